#!/usr/bin/env bash
# A run on machines that are reached by ssh, one process per host.
#
#   launch/ssh.sh HOSTS configs/CONFIG.py --workdir /shared/runs/NAME
#   launch/restart.sh launch/ssh.sh HOSTS ...     # starts again after failures that this can mend
#   T5JAX_COMMAND=selftest launch/ssh.sh HOSTS ...    # before the run: hosts, network, disks
#
# HOSTS is a file with one [USER@]HOST per line (# begins a comment); the others must reach the
# first one at T5JAX_PORT (default 8476; on a private network only, the port has no password).
# Needs: ssh without a password, bash, this directory and t5jax at the same paths on every host
# (T5JAX=/path/to/venv/bin/t5jax, default: the one in PATH), a shared work directory. More options
# for ssh: SSH_OPTIONS="-p 2222". A host begins with the variables of its own login alone; those that
# T5JAX_ENV names are carried there (launch/environment.sh), on a command line that its other users see.
#
# The first host that fails stops the others; its exit code is that of this script. Interrupting
# or killing the script stops the run in order: every process gets SIGTERM, saves and exits; one
# that still runs after T5JAX_GRACE seconds (default 300) is killed.
#
# Has been run: with OpenSSH 9.2, two and three CPU processes on one machine: to the end, killed
# process, unreachable host, interrupt, SIGTERM, kill -9 of this script (the end, a kill and SIGTERM by
# tests/launch/test_engines.py). Not on several machines.
set -euo pipefail

if (($# < 2)) || [[ ! -r $1 ]]; then
    echo "usage: $0 HOSTS_FILE CONFIG [--section.field value ...]" >&2
    exit 64
fi
mapfile -t hosts < <(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$1")
shift
if ((${#hosts[@]} == 0)); then
    echo "$0: the hosts file names no host" >&2
    exit 64
fi
read -ra ssh_options <<<"${SSH_OPTIONS:-}"
exports=$("$(dirname "$0")/environment.sh" exports)
# As words of a POSIX shell: %q of bash writes what a host's login shell may not read.
quoted() {
    local word quote=\'
    for word; do printf "'%s' " "${word//$quote/$quote\\$quote$quote}"; done
}
command=$(quoted "${T5JAX:-t5jax}" "${T5JAX_COMMAND:-train}" "$@")

# What runs on a host. Its standard input ends when the launcher lets go of it, for whatever reason:
# then the run gets SIGTERM. (A terminal's hang-up would kill it without a save.)
# shellcheck disable=SC2016  # expanded on the hosts
remote='
    exec 3<&0
    "$@" </dev/null 3<&- & run=$!
    {
        while read -r -u 3 _; do :; done
        kill -TERM $run
        for ((second = 0; second < grace; second++)); do
            kill -0 $run || exit 0
            sleep 1
        done
        kill -KILL $run
    } >/dev/null 2>&1 & guard=$!
    wait $run
    code=$?
    kill $guard 2>/dev/null
    exit $code'

scratch=$(mktemp -d)
mkfifo "$scratch/hold" "$scratch/results"
exec {hold}<>"$scratch/hold" {results}<>"$scratch/results"
hold_path=$scratch/hold
stop() { [[ -z ${hold:-} ]] || { exec {hold}>&-; hold=; }; }
trap 'rm -rf "$scratch"' EXIT
trap stop INT TERM HUP

for index in "${!hosts[@]}"; do
    variables="grace=${T5JAX_GRACE:-300} PYTHONUNBUFFERED=1"
    variables+=" T5JAX_COORDINATOR=${hosts[0]#*@}:${T5JAX_PORT:-8476}"
    variables+=" T5JAX_NUM_PROCESSES=${#hosts[@]} T5JAX_PROCESS_ID=$index"
    line="$exports
cd $(quoted "$PWD") && env $variables bash -c $(quoted "$remote") run $command"
    (
        trap '' INT TERM HUP # the run ends through its standard input, so that its end is seen
        set +e
        ssh -o BatchMode=yes -o ServerAliveInterval=30 "${ssh_options[@]}" "${hosts[$index]}" \
            "$line" <"$hold_path" {hold}>&- 2>&1 | sed -u "s/^/[$index] /" {hold}>&-
        echo "$index ${PIPESTATUS[0]}" >&"$results"
    ) {hold}>&- &
done

code=0
for _ in "${hosts[@]}"; do
    read -r index ended <&"$results"
    echo "[$index] ended with $ended" >&2
    if ((ended != 0)); then stop; fi
    # The first failure is the cause; one that trying again cannot mend is, whenever it is seen.
    case $ended in 64 | 65 | 66 | 73) code=$ended ;; *) ((code != 0)) || code=$ended ;; esac
done
exit "$code"
