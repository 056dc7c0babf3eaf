"""What "auto" is by platform; numbers of a config stay."""

import pytest

from t5jax.model.computation import resolve_computation
from t5jax.model.config import t5_1_1_base, t5_1_1_large, t5_1_1_xl
from t5jax.model.registry import abstract_model


@pytest.mark.parametrize(
    ("size", "platform", "expected"),
    [
        (t5_1_1_base, "cpu", ("float32", "all", "none")),
        (t5_1_1_large, "cpu", ("float32", 1, "none")),
        (t5_1_1_base, "tpu", ("bfloat16", "all", "none")),
        (t5_1_1_large, "gpu", ("bfloat16", "all", "none")),
        (t5_1_1_xl, "tpu", ("bfloat16", 1, "none")),
    ],
)
def test_auto_by_platform(size, platform, expected):
    cfg = resolve_computation(size(), platform)
    assert (cfg.dtype, cfg.unroll_layers, cfg.remat) == expected
    assert cfg.attention == "auto"


def test_what_is_given_stays():
    cfg = t5_1_1_base(dtype="bfloat16", unroll_layers=3, remat="dots", attention="einsum")
    assert resolve_computation(cfg, "cpu") == cfg


def test_a_model_is_computed_as_its_platform_says():
    model = abstract_model(t5_1_1_base())  # on the CPU of the tests
    assert (model.encoder.unroll, model.encoder.remat) == (12, "none")
