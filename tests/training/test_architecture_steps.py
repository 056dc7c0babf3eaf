"""Training every architecture: the same update on every mesh, and a loss that falls."""

import functools

import jax
import numpy as np
import pytest

from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState
from tests.model import tiny_t5
from tests.model.tiny_architectures import MASK_ID, batch_of, config, examples

ROWS, STEPS = 16, 4
# What eight devices share one way or another has to divide among them.
SHAPE = {"vocab_size": 60, "emb_dim": 24, "num_heads": 4, "head_dim": 5, "mlp_dim": 28}
ADAFACTOR = Adafactor(learning_rate=0.1, schedule=Constant(), min_dim_size_to_factor=20)
LENGTHS = [[(5, 3), (4, 6), (3, 2)], [(7, 4), (6, 5)], [(11, 6)], [(2, 9), (3, 3)]]


def program(architecture, mesh, num_microbatches=1) -> Program:
    mesh_config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    return Program(
        model=config(architecture, **SHAPE, dropout_rate=0.1),
        loss=CrossEntropy(first_sentinel_id=MASK_ID),
        tx=ADAFACTOR.build(STEPS),
        mesh_config=mesh_config,
        mesh=mesh_config.build(),
        num_microbatches=num_microbatches,
    )


def train(program: Program):
    """Metrics of every step on one packed batch, and the last parameters."""
    architecture = program.model.architecture
    lengths = LENGTHS * (ROWS // len(LENGTHS))
    batch = batch_of(architecture, examples(architecture, lengths), packed=True)
    spec = {name: x.shape[1:] for name, x in batch.items()}
    step = program.compile_train_step(program.abstract_batch(spec, ROWS), jax.random.key(0))
    params, zero = tiny_t5.random_params(program.model), np.zeros((), np.int32)
    state = TrainState(zero, params, program.tx.init(params), zero)
    state = jax.device_put(state, program.shardings)
    batch, metrics = jax.device_put(batch, program.batch_sharding), []
    for _ in range(STEPS):
        state, numbers = step(state, batch, jax.random.key(3))
        metrics.append({name: float(x) for name, x in numbers.items()})
    return metrics, state.params


@functools.cache
def reference(architecture):
    """Eight replicas of everything, the batch in one piece."""
    return train(program(architecture, (8, 1, 1)))


CASES = [
    ("shared_encoder_decoder", (2, 2, 2), 2),
    ("encoder_only", (2, 2, 2), 1),
    ("decoder_only", (1, 2, 4), 1),
    ("decoder_only", (1, 8, 1), 2),
    ("prefix_lm", (1, 2, 4), 2),
    ("prefix_lm", (2, 2, 2), 4),
]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "mesh", "num_microbatches"), CASES)
def test_the_update_does_not_depend_on_the_mesh(architecture, mesh, num_microbatches):
    want, want_params = reference(architecture)
    got, params = train(program(architecture, mesh, num_microbatches))
    for step, (x, y) in enumerate(zip(got, want, strict=True)):
        assert x == pytest.approx(y, rel=1e-5), f"step {step}"
    assert want[-1]["loss"] < 0.9 * want[0]["loss"]
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(want_params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
