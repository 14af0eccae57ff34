#!/bin/bash
# drain.sh SECONDS [ADMIN_PORT]: before Envoy is told to end, as it breaks off what passes through it.
#
# Callers are told to go elsewhere: a connection ends with the pictures on it, once it is asked for
# another one. Returns when nothing passes through any more, after SECONDS at the latest.
set -euo pipefail
port=${2:-9901}

ask() { # METHOD PATH; Envoy's image has bash, and no curl
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n' "$1" "$2" >&3
    cat <&3
    exec 3>&-
}

ask POST /healthcheck/fail >/dev/null
sleep 5 # until nobody has its address any more
while ((SECONDS < $1)) && [[ $(ask GET /stats?filter=http.grpc.downstream_rq_active) != *": 0"* ]]; do
    sleep 1
done
