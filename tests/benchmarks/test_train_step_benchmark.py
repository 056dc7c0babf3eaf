"""The comparison with Hugging Face refuses sides that would not do the same work."""

import types

import jax
import optax
import pytest

from benchmarks import train_step
from t5jax.sharding import MeshConfig
from t5jax.tracking.throughput import model_flops
from t5jax.training.losses import CrossEntropy
from t5jax.training.steps import Program
from tests.model import tiny_t5


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
    options = types.SimpleNamespace(rows=8, inputs=512, targets=114)
    assert train_step.step_flops(options) == pytest.approx(850e9, rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_the_compiled_program_has_the_models_flops(num_microbatches):
    """With einsum's attention, which computes no product again."""
    cfg = tiny_t5.config(vocab_size=211, emb_dim=36, mlp_dim=70, attention="einsum")
    mesh = MeshConfig()
    program = Program(
        model=cfg,
        loss=CrossEntropy(),
        tx=optax.sgd(0.1),
        mesh_config=mesh,
        mesh=mesh.build(jax.devices()[:1]),
        num_microbatches=num_microbatches,
    )
    batch = program.abstract_batch(
        {name: x.shape[1:] for name, x in tiny_t5.random_batch(cfg, 1, 29, 23).items()}, 3
    )
    text = program.compile_train_step(batch, jax.random.key(0)).as_text()
    counted = train_step.program_flops(text)
    assert counted == pytest.approx(model_flops(cfg, 3, 29, 23), rel=0.02)
