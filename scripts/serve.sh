#!/usr/bin/env bash
# serve.sh FOLDER FLAGS...: the server in the foreground, with the environment FOLDER. It says what it needs
# to; all of Triton's log with one of Triton's flags for that, --log-info=true for example.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
shift
command=("$venv/bin/fastdeployserver" --model-repository=model_repository "$@")
case " $*" in *" --log-"*) exec "${command[@]}" ;; esac
exec "${command[@]}" > >(exec "$venv/bin/python" scripts/server_log.py) 2>&1
