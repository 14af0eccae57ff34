#!/usr/bin/env bash
# environment.sh PYTHON FOLDER: makes FOLDER an environment of PYTHON with pip in it, unless it is one.
# Debian's, Ubuntu's and FastDeploy's Python have no venv of their own; virtualenv stands in for it.
set -euo pipefail
python=$1 folder=$2

"$folder/bin/python" -c "import pip" 2> /dev/null && exit
base=$("$python" -c 'import sys; print(sys._base_executable)')
"$base" -m venv --clear "$folder" > /dev/null 2>&1 ||
    "$base" -m virtualenv --quiet --clear "$folder" 2> /dev/null || {
    echo "no environment $folder: $base has neither venv nor virtualenv (apt-get install python3-venv)" >&2
    exit 1
}
