"""The comparison with Hugging Face refuses sides that would not do the same work."""

import types

import pytest

from benchmarks import train_step


def side(first_loss=10.9, flushes=True):
    return types.SimpleNamespace(first_loss=first_loss, report={"flushes_denormals": flushes})


def test_untrained_models_with_logits_of_variance_one_pass():
    train_step.check_sides({"a": side(), "b": side(10.8)})


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (side(204.0), "first loss is 204"),
        (side(float("nan")), "first loss is nan"),
        (side(flushes=False), "denormal"),
    ],
)
def test_tied_tables_and_denormal_numbers_are_refused(wrong, what):
    with pytest.raises(RuntimeError, match=what):
        train_step.check_sides({"a": side(), "b": wrong})


def test_what_is_compared():
    assert train_step.pairs(["float32", "bfloat16"]) == [
        ("Hugging Face float32", "t5jax float32"),
        ("Hugging Face bfloat16", "t5jax bfloat16"),
        ("t5jax float32", "t5jax bfloat16"),
    ]


def test_a_step_is_850_gflop():
    assert train_step.step_flops() == pytest.approx(850e9, rel=0.001)
