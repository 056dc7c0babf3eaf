"""Weights under the names of T5X and Hugging Face, as parameters of ours: by the converter."""

from collections.abc import Mapping

import numpy as np

from t5jax.checkpoints.restoring import nested
from t5jax.convert import architecture
from t5jax.convert.lazy_arrays import InMemory
from t5jax.convert.parameter_names import HUGGINGFACE, T5X, ParameterNaming
from t5jax.convert.source_checkpoint import Weights, bind_parameters


def from_t5x(weights: Mapping[str, np.ndarray]) -> dict:
    """Of the minimal T5X model, named like `encoder/layers_0/mlp/wi/kernel`."""
    return _converted(T5X, weights)


def from_hf(weights: Mapping[str, np.ndarray], *, tied: bool) -> dict:
    """Of `T5ForConditionalGeneration` and umT5's, whose kernels are [out, in]."""
    return _converted(
        HUGGINGFACE, {k: x for k, x in weights.items() if not (tied and k == "lm_head.weight")}
    )


def _converted(naming: ParameterNaming, arrays: Mapping[str, np.ndarray]) -> dict:
    held = {name: InMemory(array) for name, array in arrays.items()}
    weights = Weights(naming=naming, where="here", arrays=held)
    # Of the settings that shapes do not tell, none concerns the layout of parameters.
    model = architecture.infer_model_config(weights, {"relpos_max_distance": 10**6}, [])
    return nested(
        {path: array.whole() for path, array in bind_parameters(model, weights, {}).items()}
    )


def flattened(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flattened(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat
