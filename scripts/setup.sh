#!/usr/bin/env bash
# setup.sh FOLDER LOCK: the environment FOLDER with the locked packages; prints one line and fails where
# none can be made.
# PYTHON names the Python to use; else the first fit 3.11 or 3.12 is taken.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 lock=$2

fit_python() {
    local candidate path reason=
    for candidate in ${PYTHON:-python3.12 python3.11 python3 /usr/bin/python3.12 /usr/bin/python3.11}; do
        path=$(command -v "$candidate") || continue
        if reason=$("$path" -m triptych.server.python 2>&1); then
            "$path" -c 'import sys; print(sys.executable)'
            return
        fi
        reason=${reason##*$'\n'}
    done
    echo "make setup: ${reason:-no ${PYTHON:-python3} here: install Python 3.11 or 3.12}" >&2
    return 1
}

trap 'echo "make setup: interrupted" >&2; exit 130' INT
# One that was left half made has no pip yet.
python=
if ! { "$venv/bin/python" -m triptych.server.python && "$venv/bin/python" -c "import pip"; } 2> /dev/null; then
    rm -rf "$venv"
    python=$(fit_python)
fi
echo "make setup: installing packages into $venv, which takes minutes, once" >&2
[ -z "$python" ] || scripts/environment.sh "$python" "$venv"
"$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes -r "$lock" |
    scripts/pip_progress.sh "$venv" "$(grep -c '^[^ #]' "$lock")"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
