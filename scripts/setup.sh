# Sourced by run and test: `prepare run` or `prepare test` makes .venv and installs into it what is pinned.
# A stamp in .venv says what was installed; while it is right, nothing is done.

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
venv=$root/.venv
stamp=$venv/.installed       # written last: "<hash> run" or "<hash> test"
unfinished=$venv/.installing # there while an installation runs, and after one that was killed

say() { printf '[setup] %s\n' "$*" >&2; }

fail() {
    say "error: $1"
    shift
    printf '    %s\n' "$@" >&2
    exit 2
}

# The folder counts too: an editable installation names it.
fingerprint() {
    local hash
    hash=$({ printf '%s\n' "$root" && cat -- "$root/pyproject.toml" "$root/constraints.txt"; } | sha256sum)
    printf '%s' "${hash%% *}"
}

installed() {
    local hash extra
    [[ -x $venv/bin/python && -f $stamp && ! -e $unfinished ]] || return 1
    read -r hash extra <"$stamp"
    [[ $hash == "$(fingerprint)" && ($extra == test || $extra == "$1") ]]
}

# Each candidate is run, because a name on PATH may be a shim with nothing behind it.
find_python() {
    local name without_venv=
    for name in python3.13 python3.12 python3.11 python3; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s' "$name"
            return
        fi
        without_venv=${without_venv:-$name}
    done
    if [[ -n $without_venv ]]; then
        fail "$without_venv has no venv module" "install it, on Debian and Ubuntu: apt-get install $without_venv-venv"
    fi
    fail "no Python 3.11 or newer on PATH" "install one with its venv module, on Debian and Ubuntu: apt-get install python3 python3-venv"
}

# Of pip's many lines, those that show a person that it moves.
show_progress() {
    sed --unbuffered -nE -e 's/^ *(Downloading .*\(([0-9]{2,}\.[0-9]+ MB|[0-9.]+ GB)\))$/[setup]   \1/p' \
        -e 's/^Installing collected packages.*/[setup]   all downloaded, unpacking/p' >&2
}

# pip repeats for every package that a package folder named in its configuration is not there.
quieten() {
    "$@" 2> >(grep --line-buffered -v 'is ignored: it is neither a file nor a directory' >&2)
}

install() {
    local extra=$1 target=$root python
    [[ $extra == test ]] && target="$root[test]"
    if [[ -e $unfinished ]]; then
        say "the last installation did not finish: starting again"
        rm -rf -- "$venv"
    fi
    if [[ ! -x $venv/bin/python ]]; then
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        rm -rf -- "$venv"
        mkdir -- "$venv"
        touch -- "$unfinished"
        "$python" -m venv "$venv"
    fi
    touch -- "$unfinished"
    rm -f -- "$stamp"
    say "installing the pinned packages into .venv (about 2 GB on disk, once)"
    local pip=("$venv/bin/python" -m pip --no-input --disable-pip-version-check)
    # Older pips take longer.
    quieten "${pip[@]}" install --quiet --constraint "$root/constraints.txt" pip
    quieten "${pip[@]}" install --progress-bar off --no-compile --constraint "$root/constraints.txt" \
        --editable "$target" | show_progress
    # Bytecode on all cores, where pip would use one. Some packages hold templates that do not compile: no fault.
    say "compiling"
    (cd -- "$venv/lib" && ../bin/python -m compileall -qq -j 0 -x '/tests/' . >/dev/null) || true
    rm -f -- "$unfinished"
    printf '%s %s\n' "$(fingerprint)" "$extra" >"$stamp"
    say "done in $SECONDS s"
}

prepare() {
    local lock
    installed "$1" && return
    exec {lock}<"$root/pyproject.toml"
    if ! flock --nonblock "$lock"; then
        say "another call is installing into .venv: waiting for it"
        flock "$lock"
    fi
    installed "$1" || install "$1"
    exec {lock}<&-
}
