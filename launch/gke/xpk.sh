#!/usr/bin/env bash
# A run on TPU slices of a GKE cluster that xpk made, as an xpk workload.
#
#   T5JAX_ENV="LIBTPU_INIT_ARGS" launch/gke/xpk.sh NAME IMAGE:TAG --cluster=C --tpu-type=v6e-64 \
#       --num-slices=2 -- configs/CONFIG.py --workdir /runs/NAME
#
# What stands between the image and -- goes to `xpk workload create`. xpk restarts the set after any
# failure but those that cannot be mended (64, 65, 66, 73) and those that it counts as its own; pods
# have 300 seconds to save. The variables that T5JAX_ENV names (launch/environment.sh) go along.
# Needs: xpk (pip install xpk), gcloud and kubectl; an image of launch/Dockerfile, ACCELERATOR=tpu; a
# work directory that all pods share (`xpk storage attach`, Filestore).
#
# Has been run: no; validated: with a stand-in for xpk in the tests, the options by xpk 1.16's parser.
set -euo pipefail

usage() {
    echo "usage: $0 NAME IMAGE:TAG [XPK OPTIONS] -- CONFIG [--section.field value ...]" >&2
    exit 64
}
(($# >= 4)) || usage
name=$1 image=$2
shift 2
options=()
while (($# > 0)) && [[ $1 != -- ]]; do
    options+=("$1")
    shift
done
(($# >= 2)) || usage
shift

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Names alone: xpk reads the values from this environment.
"$(dirname "$0")/../environment.sh" names >"$scratch/env"
for variable in $(<"$scratch/env"); do
    if [[ ${!variable} == *[\"\\$'\n']* ]]; then
        echo "$0: xpk writes values between double quotes; $variable holds a quote, a backslash or a line" \
            "end: put it into the image, or use launch/gke/submit.sh" >&2
        exit 64
    fi
done
# exec: xpk hands SIGTERM to the command's shell alone.
xpk workload create --workload="$name" --docker-image="$image" --max-restarts=100 \
    --restart-on-exit-codes=70,75 --termination-grace-period-seconds=300 --env-file="$scratch/env" \
    "${options[@]}" --command="exec $(printf '%q ' t5jax "${T5JAX_COMMAND:-train}" "$@")"
