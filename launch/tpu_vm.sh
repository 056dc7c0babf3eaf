#!/usr/bin/env bash
# A run on the hosts of one Cloud TPU slice (TPU VM).
#
#   gcloud compute tpus tpu-vm create NAME --zone=ZONE --accelerator-type=v5litepod-32 \
#       --version=v2-alpha-tpuv5-lite
#   launch/tpu_vm.sh setup NAME ZONE
#   launch/tpu_vm.sh train NAME ZONE configs/CONFIG.py --workdir /mnt/shared/runs/NAME
#   launch/tpu_vm.sh log NAME ZONE
#   launch/tpu_vm.sh stop NAME ZONE
#
# setup copies this checkout (what git tracks) to ~/t5jax on every host and installs it there.
# train starts the run on every host, detached, so that it outlives this connection; a host starts
# its process again where that may help (launch/restart.sh). stop sends SIGTERM: the run saves and
# leaves.
# Needs: gcloud, logged in, with a project set; Python 3.11 or newer there (PYTHON=python3.11);
# a work directory that all hosts share (Filestore). JAX finds the other hosts by itself.
#
# Has been run: no. The gcloud flags are those that gcloud 528 accepts; no TPU was at hand.
set -euo pipefail

if (($# < 3)) || [[ ! $1 =~ ^(setup|train|log|stop)$ ]] || [[ $1 == train && $# -lt 4 ]]; then
    echo "usage: $0 setup|train|log|stop NAME ZONE [CONFIG [--section.field value ...]]" >&2
    exit 64
fi
action=$1 name=$2 zone=$3
shift 3

on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $action in
    setup)
        archive=$(mktemp --suffix=.tar.gz)
        trap 'rm -f "$archive"' EXIT
        git -C "$(dirname "$0")/.." archive --format=tar.gz -o "$archive" HEAD
        gcloud compute tpus tpu-vm scp "$archive" "$name:t5jax.tar.gz" --zone="$zone" --worker=all
        on_all_hosts "mkdir -p t5jax && tar -xzf t5jax.tar.gz -C t5jax && cd t5jax &&
            $(printf %q "${PYTHON:-python3}") -m venv .venv && .venv/bin/pip install -e '.[tpu]'"
        ;;
    train)
        # $$ of the detached shell becomes the process id of restart.sh, which stop signals.
        on_all_hosts "cd t5jax || exit
            PYTHONUNBUFFERED=1 setsid nohup bash -c 'echo \$\$ >train.pid
            exec launch/restart.sh .venv/bin/t5jax train \"\$@\"' train $(printf '%q ' "$@") \
            >>train.log 2>&1 </dev/null &"
        ;;
    log) on_all_hosts "tail -n ${LINES_OF_LOG:-20} t5jax/train.log" ;;
    stop) on_all_hosts "kill -TERM \$(cat t5jax/train.pid)" ;;
esac
