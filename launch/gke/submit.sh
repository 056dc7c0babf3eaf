#!/usr/bin/env bash
# Applies a manifest to a Kubernetes cluster, with the variables that T5JAX_ENV names.
#
#   T5JAX_ENV="XLA_FLAGS NCCL_*" launch/gke/submit.sh launch/gke/jobset_gpu.yaml [KUBECTL OPTIONS]
#
# The variables (launch/environment.sh) become the secret that the manifest names, t5jax-env, which
# every pod reads when it starts: also one that is started again. Without T5JAX_ENV the secret is empty.
# Two runs of one namespace need names of their own: those of the manifest, the secret's too.
# Needs: kubectl, connected to the cluster. KUBECTL OPTIONS, as --namespace=N, go to every call.
#
# Has been run: no; validated: with a stand-in for kubectl in the tests, the secret by kubectl 1.32.
set -euo pipefail

if (($# == 0)) || [[ ! -r $1 ]]; then
    echo "usage: $0 MANIFEST [KUBECTL OPTIONS]" >&2
    exit 64
fi
manifest=$1
shift
if placeholders=$(grep -vE '^ *#' "$manifest" | grep -oE 'IMAGE:TAG|[^ ]*/CONFIG\.py|[^ ]*/NAME\b' | sort -u); then
    echo "$0: $manifest still holds ${placeholders//$'\n'/, }: fill in what is in capitals" >&2
    exit 64
fi
secret=$(grep -A1 'secretRef:' "$manifest" | sed -n 's/^ *name: *//p' | head -n 1)
if [[ -z $secret ]]; then
    echo "$0: $manifest names no secret (envFrom: secretRef), so no variable would reach a pod" >&2
    exit 64
fi
names=$("$(dirname "$0")/../environment.sh" names)

# One file a variable: no value stands on a command line, and any value survives.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/values"
for name in $names; do printf '%s' "${!name}" >"$scratch/values/$name"; done
kubectl create secret generic "$secret" --from-file="$scratch/values" --dry-run=client -o yaml "$@" \
    >"$scratch/secret.yaml"
kubectl apply -f "$scratch/secret.yaml" "$@"
kubectl apply -f "$manifest" "$@"
