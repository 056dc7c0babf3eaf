#!/usr/bin/env bash
# Installs t5jax on a TPU host, in the checkout that holds this file: Python 3.11 and the versions of
# requirements.lock, with their hashes, and JAX's own libtpu. tpu_vm.sh starts it on every host.
#
# Has been run: no; validated: with stand-ins in the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."

export PATH=$HOME/.local/bin:$PATH
if ! command -v uv >/dev/null; then
    # Images with a newer Ubuntu allow no --user install; there uv's own installer serves.
    python3 -m pip install --quiet --user 'uv>=0.9,<1' 2>/dev/null ||
        curl -LsSf https://astral.sh/uv/install.sh | sh
fi
# What is locked is for Python 3.11; images of Ubuntu 22.04 have 3.10: uv then fetches one.
[[ -x .venv/bin/python ]] || uv venv --quiet --python 3.11 .venv
install=(uv pip install --quiet --compile-bytecode --python .venv/bin/python)
"${install[@]}" --require-hashes -r requirements.lock
grep -E '^(libtpu|requests)==' requirements-plan.lock >.venv/tpu.lock
"${install[@]}" --no-deps -r .venv/tpu.lock
"${install[@]}" --constraint <(sed -e '/--hash/d' -e 's/ *\\$//' requirements.lock) -e '.[gcs]'
.venv/bin/t5jax --version
