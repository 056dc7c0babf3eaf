"""The train step whose loss is known: against T5 in NumPy float64, on several meshes."""

import jax
import numpy as np
import pytest

from t5jax.selftest import Outcome, check_known_step, known_step
from t5jax.selftest.known_step import (
    MODEL,
    REFERENCE,
    known_params,
    known_rows,
    layout,
    prepare,
)
from t5jax.sharding import MeshConfig
from tests.model import numpy_t5


def reference_loss(params) -> float:
    """Mean over target tokens, in float64, row by row."""
    rows, total, count = known_rows(8), 0.0, 0
    for inputs, targets in zip(
        rows["encoder_input_tokens"], rows["decoder_target_tokens"], strict=True
    ):
        inputs, targets = inputs[inputs > 0], targets[targets > 0]
        logits_TV = numpy_t5.logits(MODEL, params, inputs, targets)
        norms_T = np.log(np.exp(logits_TV - logits_TV.max()).sum(axis=1)) + logits_TV.max()
        total += (norms_T - logits_TV[np.arange(len(targets)), targets]).sum()
        count += len(targets)
    return total / count


def test_the_reference_loss_is_that_of_the_definition():
    assert reference_loss(known_params()) == pytest.approx(REFERENCE.loss, rel=2e-6)
    assert abs(REFERENCE.loss - np.log(MODEL.vocab_size)) > 0.5, "it says something of the weights"


def test_rows_are_of_several_lengths_and_repeated():
    rows = known_rows(16)
    lengths = (rows["encoder_input_tokens"] > 0).sum(axis=1)
    assert len(set(lengths[:8].tolist())) > 3
    for name, x in rows.items():
        np.testing.assert_array_equal(x[:8], x[8:], err_msg=name)
        assert x.max() < MODEL.vocab_size


@pytest.mark.long
@pytest.mark.slow
def test_gradient_and_update_are_those_of_the_definition():
    """The gradient from the update; its norm from the loss on both sides of the parameters, in
    float64; the second loss from the parameters after the update."""
    step, state = prepare(MeshConfig(), MeshConfig().build(jax.devices()[:1]))
    before, after = known_params(), step(state)[0].params
    steps = jax.tree.map(
        lambda x, y: (np.float64(x) - np.float64(y)) / known_step.LEARNING_RATE, before, after
    )
    norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(steps)))
    assert norm == pytest.approx(REFERENCE.grad_norm, rel=1e-4)
    moved = lambda e: jax.tree.map(lambda x, g: np.float64(x) + e * g / norm, before, steps)
    slope = (reference_loss(moved(1e-4)) - reference_loss(moved(-1e-4))) / 2e-4
    assert slope == pytest.approx(REFERENCE.grad_norm, rel=1e-4)
    assert reference_loss(after) == pytest.approx(REFERENCE.second_loss, rel=1e-5)


@pytest.mark.long  # on two hosts: tests/multiprocess/test_selftest_of_two_hosts.py
@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "whole"), [((8, 1, 1), ""), ((2, 2, 2), ""), ((1, 1, 3), "heads")]
)
def test_any_mesh_gives_the_reference(shape, whole):
    data, fsdp, tensor = shape
    config = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    mesh = config.build(jax.devices()[: data * fsdp * tensor])
    check = check_known_step(config, mesh)
    assert check.outcome is Outcome.OK, check
    assert (f"does not divide: {whole}" in check.value) == bool(whole)


def test_what_does_not_divide_is_whole():
    config = MeshConfig(data=1, fsdp=1, tensor=7, vocab=("fsdp",), rules={"x:mlp": ()})
    rules, whole = layout(config, config.build(jax.devices()[:7]))
    assert whole == "vocab, heads, mlp"
    assert (rules.vocab, rules.embed, rules.heads, rules.rules) == ((), ("fsdp",), (), {})


@pytest.mark.parametrize("field", ["loss", "grad_norm", "second_loss"])
def test_another_number_fails(monkeypatch, field):
    wrong = REFERENCE._replace(**{field: getattr(REFERENCE, field) * 1.001})
    monkeypatch.setattr(known_step, "run_steps", lambda config, mesh: wrong)
    check = check_known_step(MeshConfig(), MeshConfig().build())
    assert (check.outcome, check.code) == (Outcome.FAILED, 70)
    assert check.value.count("NOT within") == 1
    assert f"{field} {getattr(wrong, field):.6g}, NOT within" in check.value
    monkeypatch.setattr(known_step, "run_steps", lambda config, mesh: REFERENCE)
    assert check_known_step(MeshConfig(), MeshConfig().build()).outcome is Outcome.OK
