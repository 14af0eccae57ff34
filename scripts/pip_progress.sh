#!/usr/bin/env bash
# pip_progress.sh FOLDER [ALL]: what a pip that installs into the environment FOLDER prints, from standard
# input, as one line on a terminal that counts the packages, of which there are ALL; else nothing.
set -euo pipefail
folder=$1 all=${2:+ of $2}

if [ ! -t 2 ]; then
    cat > /dev/null
    exit
fi
collected=0 unpacking='' started="@${EPOCHREALTIME/,/.}"
while read -r -t 0.5 line || [ $? -gt 128 ]; do # 128: no line in that time
    case $line in
        Collecting*)
            line=${line#Collecting }
            printf '\r%d%s: %s\033[K' $((++collected)) "$all" "${line%% *}"
            ;;
        "Installing collected"*) unpacking=${line//[^,]/} ;; # its commas are one less than packages
    esac
    [ -z "$unpacking" ] || printf '\runpacking %d of %d\033[K' \
        "$(find "$folder"/lib/*/site-packages -maxdepth 1 -name '*.dist-info' -newermt "$started" 2> /dev/null | wc -l)" \
        $((${#unpacking} + 1))
done >&2
printf '\r\033[K' >&2
