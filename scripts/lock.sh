#!/usr/bin/env bash
# The locked packages anew, one file for Python 3.11 and 3.12: for a CPU, and the same for a GPU. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

lock() { # EXTRA FILE OPTIONS...
    local extra=$1 file=$2 version
    for version in 3.11 3.12; do
        uv pip compile --quiet --python-version "$version" --python-platform x86_64-manylinux_2_35 \
            --generate-hashes --no-header --no-annotate --no-emit-index-url \
            --extra "$extra" --extra tracing --extra client --extra gateway --extra test "${@:3}" \
            --output-file "$folder/$version.txt" pyproject.toml requirements/build.in
    done
    cmp "$folder/3.11.txt" "$folder/3.12.txt"
    mv "$folder/3.11.txt" "$file"
    rm "$folder/3.12.txt"
}

lock serve requirements/lock.txt --extra openvino
lock gpu requirements/lock-gpu.txt --constraint requirements/lock.txt
