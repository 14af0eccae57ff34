#!/usr/bin/env bash
# From a FastDeploy container or a bare machine to a model that can be served:
#
#     bash env_bash.sh [MODEL] [options of scripts/export_stages.py]
#
# MODEL is a file, a name or a folder, Stable Diffusion 1.5 if it is left out. In FastDeploy's container the
# export goes through Paddle and writes native files; elsewhere through PyTorch, unless
# `--framework paddle` is among the options. The packages go into .venv-export or .venv-paddle; where
# no environment can be made, those for PyTorch go into the system's Python.
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "env_bash.sh: $1" >&2
    exit 1
}

install() { # PYTHON ARGUMENTS...: pip, and what to do where it fails
    "$1" -m pip install --disable-pip-version-check "${@:2}" | "$root/scripts/pip_progress.sh" "${1%/bin/*}" ||
        fail "pip cannot install ${*:2}: without a network, point pip to a local index or to wheels (PIP_INDEX_URL, PIP_FIND_LINKS)"
}

in_fastdeploy() { # whether FastDeploy's own server is here, and not only this project's command
    local server
    server=$(command -v fastdeployserver) && ! grep -q triptych.launcher "$server"
}

model=
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    model=$1
    shift
fi

if [[ $model == [./]* || $model == *.safetensors || $model == *.ckpt ]] && [ ! -e "$model" ]; then
    fail "there is no file or folder $model"
fi

if in_fastdeploy; then
    install python3 -r "$root/requirements/fastdeploy.txt"
    # ppdiffusers' own store has the model by its first name.
    python3 "$root/scripts/export_stages.py" "${model:-runwayml/stable-diffusion-v1-5}" \
        --framework paddle "$@"
else
    make --no-print-directory -C "$root" setup
    python=$root/.venv-export/bin/python
    "$root/scripts/environment.sh" "$root/.venv/bin/python" "$root/.venv-export" || python=python3
    compgen -G "$root/.venv-export/lib/*/site-packages/torch" > /dev/null ||
        echo "env_bash.sh: installing PyTorch, 6 GB, which takes minutes, once" >&2
    install "$python" -e "$root[export]"
    "$python" "$root/scripts/export_stages.py" \
        "${model:-stable-diffusion-v1-5/stable-diffusion-v1-5}" "$@"
fi
if [[ " $*" == *" --output"* || " $*" == *" --name"* ]]; then
    echo "Ready: serve that repository with fastdeployserver --model-repository=..."
elif in_fastdeploy; then
    echo "Ready: fastdeployserver --model-repository=model_repository"
else
    gpu=
    [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ] || gpu=" GPU=1"
    echo "Ready: make run$gpu PROMPT=\"...\" draws a picture, make web$gpu starts the page"
fi
