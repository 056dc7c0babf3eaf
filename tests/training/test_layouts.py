"""Losses are the same on any layout: slices, rules of activations and of single parameters."""

import functools
import re

import jax
import numpy as np
import pytest

from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState
from tests.model import tiny_t5

ROWS, INPUTS, TARGETS, STEPS = 16, 11, 7, 3


def build(config: MeshConfig, num_microbatches: int = 1) -> Program:
    model = tiny_t5.config(
        "1.1", vocab_size=60, emb_dim=24, num_heads=4, head_dim=5, mlp_dim=28,
        num_encoder_layers=1, num_decoder_layers=1, dropout_rate=0.1,
    )  # fmt: skip
    return Program(
        model=model,
        loss=CrossEntropy(first_sentinel_id=50),
        tx=AdamW(learning_rate=0.01, schedule=Constant()).build(STEPS),
        mesh_config=config,
        mesh=config.build(),
        num_microbatches=num_microbatches,
    )


def batches(program: Program) -> list[dict]:
    make = functools.partial(tiny_t5.random_batch, program.model, ROWS, INPUTS, TARGETS)
    return [jax.device_put(make(seed=n), program.batch_sharding) for n in range(STEPS)]


def train_losses(config: MeshConfig, num_microbatches: int = 1) -> list[float]:
    """Of steps of training."""
    program = build(config, num_microbatches)
    spec = {name: x.shape[1:] for name, x in batches(program)[0].items()}
    step = program.compile_train_step(program.abstract_batch(spec, ROWS), jax.random.key(0))
    params, zero = tiny_t5.random_params(program.model), np.zeros((), np.int32)
    state = TrainState(zero, params, program.tx.init(params), zero)
    state, found = jax.device_put(state, program.shardings), []
    for batch in batches(program):
        state, metrics = step(state, batch, jax.random.key(3))
        found.append(float(metrics["loss"]))
    return found


def eval_losses(config: MeshConfig) -> list[float]:
    """Of the first parameters."""
    program = build(config)
    params = jax.device_put(tiny_t5.random_params(program.model), program.shardings.params)
    found = [program.eval_step(params, batch) for batch in batches(program)]
    return [float(sums.objective / sums.denominator) for sums in found]


@functools.cache
def of_replicas(losses) -> list[float]:
    """On a mesh of eight replicas."""
    return losses(MeshConfig(fsdp=1))


def assert_same(losses, config: MeshConfig):
    assert losses(config) == pytest.approx(of_replicas(losses), rel=1e-5)


def of_eval_and_train(values: list[tuple], fast: bool = False) -> list:
    """Evaluation's losses of the first value in the fast tests; training's take longest."""
    marks = lambda train, n: [(), pytest.mark.slow, pytest.mark.long][
        max(train + (n > 0), not fast)
    ]
    return [
        pytest.param(losses, *value, marks=marks(train, n))
        for n, value in enumerate(values)
        for train, losses in enumerate((eval_losses, train_losses))
    ]


SLICES = [  # eight devices in two parts, or four; the devices in the mesh's order
    (MeshConfig(data=2, fsdp=4, dcn_fsdp=2), [0, 1, 4, 5, 2, 3, 6, 7]),
    (MeshConfig(data=4, fsdp=2, dcn_data=2), [0, 1, 2, 3, 4, 5, 6, 7]),
    (MeshConfig(data=4, fsdp=2, dcn_data=2, dcn_fsdp=2), [0, 2, 1, 3, 4, 6, 5, 7]),
]


@pytest.mark.parametrize(("losses", "config", "order"), of_eval_and_train(SLICES, fast=True))
def test_slices(losses, config, order):
    assert [device.id for device in config.build().devices.flat] == order
    assert_same(losses, config)


CUBE = {"data": 2, "fsdp": 2, "tensor": 2}
RULES = [
    MeshConfig(**CUBE, length=("tensor",)),  # 11 inputs and 7 targets, in two unequal parts
    MeshConfig(**CUBE, activation_embed=("tensor",)),
    MeshConfig(data=2, fsdp=4, batch=("data",), length=("fsdp",)),
    MeshConfig(data=4, fsdp=2, batch=("fsdp",), activation_embed=("data",)),
]


@pytest.mark.parametrize(("losses", "config"), of_eval_and_train([(x,) for x in RULES]))
def test_sharded_activations(losses, config):
    config.check()
    assert_same(losses, config)


@pytest.mark.slow
@pytest.mark.parametrize("config", RULES)
def test_activations_between_blocks_are_sharded(config):
    """In the program that is compiled: rows, positions and vectors of the encoder's."""
    program = build(config)
    shapes = {name: x.shape[1:] for name, x in batches(program)[0].items()}
    text = program.lower_eval_step(program.abstract_batch(shapes, ROWS)).as_text()
    part = lambda axes: "{" + ", ".join(f'"{axis}"' for axis in axes) + "}"
    axes = ", ".join(map(part, (config.batch, config.length, config.activation_embed)))
    constraint = rf"sharding_constraint .*<@mesh, \[(.*)\]> : tensor<{ROWS}x{INPUTS}x24xf32>"
    assert axes in re.findall(constraint, text)


SINGLE = {"decoder/layers/mlp/wo$:embed": (), "token_embedder:vocab": ("tensor", "data")}


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [2, pytest.param(1, marks=pytest.mark.long)])
def test_single_parameters(num_microbatches):
    """With microbatches no axis is left over which replicas of all parameters could add up."""
    config = MeshConfig(**CUBE, rules=SINGLE)
    losses = functools.partial(train_losses, num_microbatches=num_microbatches)
    assert losses(config) == pytest.approx(of_replicas(train_losses), rel=1e-5)
