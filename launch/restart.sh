#!/usr/bin/env bash
# Restarts a command after failures that a restart may fix, by its exit code.
#
#   launch/restart.sh t5jax train configs/CONFIG.py --workdir runs/NAME
#   launch/restart.sh launch/ssh.sh HOSTS configs/CONFIG.py --workdir /shared/runs/NAME
#
# Again: 143 (preempted after a save), 70 (a peer died, internal error), 75 (hang), 134, 137, 139
# (signals), 255 (ssh lost a host). Never: 0 (done), 64 (configuration), 65 (data), 66 (no good
# checkpoint), 73 (cannot write). Gives up after T5JAX_MAX_FAILURES (default 3) failures in a row; a
# run of more than T5JAX_GOOD_SECONDS (default 1800) starts the count anew. SIGTERM and SIGINT to
# this script end it: the command gets SIGTERM, and is not started again. Needs nothing but bash.
#
# Has been run: yes, with launch/ssh.sh and launch/mpi.sh, and every exit code in the tests.
set -uo pipefail

if (($# == 0)); then
    echo "usage: $0 COMMAND [ARGUMENT ...]" >&2
    exit 64
fi
stopped=
child=
stop() {
    stopped=yes
    [[ -z $child ]] || kill -TERM "$child" 2>/dev/null
}
trap stop INT TERM HUP

failures=0
while true; do
    started=$SECONDS
    "$@" &
    child=$!
    if [[ -n $stopped ]]; then kill -TERM "$child"; fi # it came while the command was starting
    wait "$child"
    code=$?
    # A trapped signal ends `wait` early: the command is still saving.
    while [[ -n $stopped ]] && kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    child=
    if [[ -n $stopped ]]; then exit "$code"; fi
    if ((SECONDS - started > ${T5JAX_GOOD_SECONDS:-1800})); then failures=0; fi
    case $code in
        143) ;;
        70 | 75 | 134 | 137 | 139 | 255) failures=$((failures + 1)) ;;
        *) exit "$code" ;;
    esac
    if ((failures >= ${T5JAX_MAX_FAILURES:-3})); then
        echo "$0: exit code $code, $failures failures in a row: giving up" >&2
        exit "$code"
    fi
    echo "$0: exit code $code, starting again" >&2
    for ((second = 0; second < ${T5JAX_RESTART_SECONDS:-5}; second++)); do
        if [[ -n $stopped ]]; then exit "$code"; fi
        sleep 1
    done
done
