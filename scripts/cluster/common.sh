# Sourced by slurm and ray: where clusters live, and how their processes begin and end.

root=$(dirname -- "$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")")
clusters=${PIPELINE_CLUSTER:-/tmp/pipeline-cluster}
python=${PYTHON:-$root/.venv/bin/python} # into which install_extra installs

say() { printf '[cluster] %s\n' "$*" >&2; }

fail() {
    say "error: $1"
    shift
    printf '    %s\n' "$@" >&2
    exit 2
}

usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

# apart COMMAND...: becomes a daemon, in a subshell, without the open files of who starts it: a lock among them
# would never be given back.
apart() {
    local fd
    for fd in /proc/"$BASHPID"/fd/*; do
        fd=${fd##*/}
        ((fd <= 2)) || eval "exec $fd>&-"
    done
    exec "$@"
}

# One call at a time changes a cluster.
locked() {
    mkdir -p -- "$clusters"
    exec 9>"$clusters/.lock"
    flock 9
    "$@"
}

install_extra() {
    [[ -x $python ]] || fail "no $python" "./scripts/run --help makes it"
    "$python" -m pip install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" \
        --editable "$root[$1]"
}

# alive PIDFILE NAME: whether the process is there, and is still the one that wrote the file.
alive() {
    local pid
    [[ -s $1 ]] && read -r pid <"$1" && [[ -r /proc/$pid/comm && $(<"/proc/$pid/comm") == "$2"* ]]
}

end_process() {
    local pid
    if alive "$1" "$2"; then
        read -r pid <"$1"
        kill -TERM "$pid" 2>/dev/null || true
        wait_until 15 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f -- "$1"
}

# A zombie is gone too: in a container there may be nobody to collect it.
gone() {
    local state
    [[ ! -r /proc/$1/stat ]] || { state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) && [[ $state == Z* ]]; } ||
        [[ ! -r /proc/$1/stat ]]
}

# wait_until SECONDS COMMAND...
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}
