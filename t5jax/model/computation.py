"""How a model is computed where its config says "auto", by the platform alone.

What memory decides is chosen by `run/auto.py` before; this is what is left: models that are built
outside a run, or read only.
"""

import dataclasses
from typing import Any

from t5jax.model.config import T5Config

# Layers of both stacks that compile in minutes when unrolled (docs/plans.md): XLA takes 1 to 5
# minutes for a TPU, half a minute for a GPU and for a CPU, where a scan takes half of that.
_UNROLLED = {"cpu": 24, "gpu": 48, "tpu": 24}


def resolve_computation(cfg: T5Config, platform: str) -> T5Config:
    """The config with `dtype`, `unroll_layers` and `remat` where it says "auto"; `attention` stays,
    because `dot_product_attention` decides it call by call."""
    changes: dict[str, Any] = {}
    if cfg.dtype == "auto":
        changes["dtype"] = "float32" if platform == "cpu" else "bfloat16"
    if cfg.unroll_layers == "auto":
        layers = cfg.num_encoder_layers + cfg.num_decoder_layers
        changes["unroll_layers"] = "all" if layers <= _UNROLLED[platform] else 1
    if cfg.remat == "auto":
        changes["remat"] = "none"
    return dataclasses.replace(cfg, **changes) if changes else cfg
