#!/usr/bin/env bash
# The variables that T5JAX_ENV names, for the launchers that carry them to other hosts.
#
#   export XLA_FLAGS="--xla_a=1 --xla_b=2" NCCL_DEBUG=INFO
#   T5JAX_ENV="XLA_FLAGS LIBTPU_INIT_ARGS NCCL_*" launch/ssh.sh HOSTS CONFIG    # or any launcher
#   launch/environment.sh names       # what is carried: the names, one per line
#   launch/environment.sh exports     # the same as POSIX shell: export NAME='value'
#
# T5JAX_ENV holds names, with spaces or commas between them; a * at the end of a name stands for all
# variables that begin so. What it names and is not set is said on standard error. T5JAX_ENV itself
# is carried too; what a launcher gives each process (T5JAX_COORDINATOR and the like) never is.
#
# Has been run: yes, with every launcher in the tests.
set -euo pipefail

if (($# != 1)) || [[ ! $1 =~ ^(names|exports)$ ]]; then
    echo "usage: T5JAX_ENV=\"NAME PREFIX_*\" $0 names|exports" >&2
    exit 64
fi
IFS=$' \t\n,' read -r -d '' -a entries <<<"${T5JAX_ENV:-}" || true

exported=$(compgen -e)
names=$([[ ${#entries[@]} == 0 ]] || echo T5JAX_ENV)
for entry in "${entries[@]}"; do
    if [[ ! $entry =~ ^[A-Za-z_][A-Za-z0-9_]*[*]?$ ]]; then
        echo "T5JAX_ENV names '$entry': a variable's name was expected, with or without a * at its end" >&2
        exit 64
    fi
    if found=$(grep -x "${entry/%\*/.*}" <<<"$exported"); then
        names+=$'\n'$found
    else
        echo "T5JAX_ENV names $entry: no such variable is set here, none is carried to the hosts" >&2
    fi
done
names=$(awk 'NF && !/^T5JAX_(COORDINATOR|NUM_PROCESSES|PROCESS_ID)$/ && !seen[$0]++' <<<"$names")

quote=\'
while read -r name; do
    if [[ -z $name ]]; then
        continue
    elif [[ $1 == names ]]; then
        echo "$name"
    else
        echo "export $name='${!name//$quote/$quote\\$quote$quote}'"
    fi
done <<<"$names"
