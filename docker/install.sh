#!/bin/bash
# Installs everything into /opt/venv; called by Dockerfile and apptainer.def in a stage whose other files are thrown away.
# usage: VARIANT=cpu|cuda docker/install.sh SOURCE      SOURCE: folder with pyproject.toml, src, conf and the locks
# /wheels may hold wheels that no index has, /run/secrets/certificates the certificates that pip trusts. COMMIT, DIRTY, CHANGES: state of the checkout, for the records of runs.
set -euo pipefail
source=$1
venv=/opt/venv
lock=$source/requirements-$VARIANT.lock
build=$source/requirements-build.lock
[[ -f $lock ]] || { echo "error: VARIANT=$VARIANT: there is no $lock; it is cpu or cuda" >&2; exit 2; }

[[ -f /run/secrets/certificates ]] && export PIP_CERT=/run/secrets/certificates
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do [[ -n ${!name:-} ]] || unset "$name"; done
python3 -m venv "$venv"
pip() { "$venv/bin/python" -m pip --no-input --no-cache-dir --disable-pip-version-check --quiet "$@"; }
locked=(install --require-hashes --no-deps --no-compile --find-links /wheels)
pip "${locked[@]}" --requirement "$build"
pip "${locked[@]}" --no-build-isolation --requirement "$lock"
pip install --no-index --no-deps --no-compile --no-build-isolation "$source"

# What only building needed.
names() { sed -nE 's/^([a-z0-9-]+)==.*/\1/p' "$1" | sort; }
mapfile -t spare < <(comm -23 <(names "$build") <(names "$lock"))
pip uninstall --yes "${spare[@]}"

# Tests and their data, and what C and C++ programs are built with, which a CPU image has no compiler for.
packages=$(echo "$venv"/lib/python3*/site-packages)
find "$packages" -type d \( -name tests -o -name test \) -not -path '*/torch/*' -prune -exec rm -rf {} +
if [[ $VARIANT == cpu ]]; then
    rm -rf "$packages"/torch/{include,share} "$packages"/pyarrow/include "$packages"/numpy/_core/include
    find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete
    find "$packages" -name '*.a' -delete
fi
# Names for debuggers, where they take much. auditwheel's libraries (*.libs) are left: strip breaks what patchelf wrote.
strip --strip-unneeded "$packages"/torch/lib/libtorch*.so "$packages"/pyarrow/*.so* "$packages"/cc3d/*.so
rm -rf "$venv"/{include,share,bin/activate*,bin/Activate*}

state=null
[[ -n ${COMMIT:-} ]] && state=$(printf '{"commit": "%s", "dirty": %s, "changes_sha256": %s}' \
    "$COMMIT" "${DIRTY:-false}" "$([[ -n ${CHANGES:-} ]] && printf '"%s"' "$CHANGES" || printf null)")
printf '{"git": %s, "lock_file": "%s", "lock_sha256": "%s"}\n' \
    "$state" "$(basename "$lock")" "$(sha256sum <"$lock" | cut -d' ' -f1)" >"$packages/pipeline/built_from.json"

# Bytecode once, valid whatever the time stamps: the image is read-only. Some packages hold templates that do not compile.
find "$packages" -name __pycache__ -prune -exec rm -rf {} +
"$venv/bin/python" -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$packages" >/dev/null || true
"$venv/bin/python" -c 'import cc3d, pyarrow.flight, pyarrow.parquet, torch; torch.ones(2) @ torch.ones(2)'
"$venv/bin/python" -m pipeline --version
