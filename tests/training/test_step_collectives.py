"""What a train step's devices exchange, read from the compiled program."""

import dataclasses
import importlib.util
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from t5jax.model.config import t5_1_1_small
from t5jax.planning.abstract_run import abstract_key
from t5jax.planning.topology import parse_topology, prepare_process
from t5jax.sharding import MESH_AXES, MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.steps import Program
from tests.model import tiny_t5

ROWS, INPUTS, TARGETS, MICROBATCHES = 16, 11, 7, 4


def program(*shape: int, **changes) -> Program:
    """On four devices."""
    sizes = {
        "vocab_size": 60, "emb_dim": 24, "num_heads": 4, "mlp_dim": 28, "num_encoder_layers": 1,
        "num_decoder_layers": 1,
    }  # fmt: skip
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Program(
        model=tiny_t5.config(**sizes),
        loss=CrossEntropy(first_sentinel_id=50),
        tx=optax.sgd(0.1),
        mesh_config=MeshConfig(**dict(zip(MESH_AXES, shape, strict=True))),
        mesh=Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3),
        **changes,
    )


def compiled_text(program: Program) -> str:
    batch = tiny_t5.random_batch(program.model, ROWS, INPUTS, TARGETS)
    spec = {name: x.shape[1:] for name, x in batch.items()}
    abstract = program.abstract_batch(spec, ROWS)
    return program.compile_train_step(abstract, jax.random.key(0)).as_text()


class Sum(tuple):
    """(in a loop, mesh axes, elements) of an all-reduce or reduce-scatter."""


def sums(text: str, shape: tuple[int, ...]) -> list[Sum]:
    """The sums over devices that are made in a compiled program."""
    parts = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))
    called = {
        name: set(re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", body))
        for name, body in parts.items()
    }
    looped, new = set(), set(re.findall(r"body=%?([\w.\-]+)", text))
    while new:
        looped |= new
        new = {name for parent in new for name in called.get(parent, ())} - looped
    kinds = r"= (.*?) (?:all-reduce|reduce-scatter)(?:-start)?\(.*?replica_groups=(.*?), use_global"
    return [
        Sum((name in looped, axes_of(groups, shape), elements(result)))
        for name, body in parts.items()
        for result, groups in re.findall(kinds, body)
    ]


def axes_of(groups: str, shape: tuple[int, ...]) -> set[str]:
    """The mesh axes along which the devices of a group differ."""
    numbers = lambda text: [int(x) for x in text.split(",")]
    iota = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
    laid_out = lambda dims, order: np.arange(np.prod(dims)).reshape(dims).transpose(order)
    if found := re.fullmatch(rf"\[([\d,]+)\]<={iota}", groups):
        to, dims, order = (numbers(part) if part else None for part in found.groups())
        ids = laid_out(dims, order).reshape(to)
    elif found := re.fullmatch(rf"mesh\[(.*?)\](?:, device_ids=\({iota}\))? \{{(.*)\}}", groups):
        sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", found[1])}
        dims, order = numbers(found[2] or str(np.prod(shape))), found[3] and numbers(found[3])
        ids = laid_out(dims, order).reshape(*sizes.values())
        together = [list(sizes).index(name) for name in found[4].split(",")]
        ids = np.moveaxis(ids, together, range(len(together)))
        ids = ids.reshape(np.prod(ids.shape[: len(together)]), -1).T
    else:
        assert re.fullmatch(r"\{(\{[\d,]+\},?)+\}", groups), groups
        ids = [numbers(group) for group in re.findall(r"\{([\d,]+)\}", groups)]
    found = set()
    for group in ids:
        places = np.stack(np.unravel_index(np.asarray(group), shape))
        found |= {MESH_AXES[axis] for axis, row in enumerate(places) if len(set(row)) > 1}
    return found


def elements(result: str) -> int:
    """Of all arrays of a result's type."""
    shapes = re.findall(r"\w+\[([\d,]*)\]", result)
    return sum(int(np.prod([int(x) for x in shape.split(",") if x])) for shape in shapes)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 2, 1), (2, 1, 2)])
def test_gradients_are_added_up_over_replicas_once_a_step(shape):
    found = sums(compiled_text(program(*shape, num_microbatches=MICROBATCHES)), shape)
    assert not [x for x in found if x[0] and "data" in x[1]]
    outside = sum(number for looped, axes, number in found if not looped and axes == {"data"})
    params = jax.tree.leaves(program(*shape).abstract_state.params)
    assert outside >= sum(np.prod(x.sharding.shard_shape(x.shape)) for x in params)
    if shape[1] > 1:
        assert [x for x in found if x[0] and "fsdp" in x[1]], "each microbatch's, for memory"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: make .venv/installed-plan"
)
def test_microbatches_under_fsdp_compile_for_tpus():
    """libtpu's motion of sums out of loops ends there with an internal error, unless it is off."""
    topology = parse_topology("v5e:2x2")
    prepare_process(topology)
    mesh = MeshConfig(data=2, fsdp=2)
    model = t5_1_1_small(
        vocab_size=2048, emb_dim=256, num_heads=4, num_encoder_layers=1, num_decoder_layers=1,
        dtype="bfloat16", attention="einsum", unroll_layers=1, remat="none",
    )  # fmt: skip
    tpus = dataclasses.replace(
        program(2, 2, 1, num_microbatches=2),
        model=model,
        mesh_config=mesh,
        mesh=mesh.build(topology.devices()),
    )
    batch = tiny_t5.random_batch(model, ROWS, 128, 64)
    spec = {name: x.shape[1:] for name, x in batch.items()}
    compiled = tpus.compile_train_step(tpus.abstract_batch(spec, ROWS), abstract_key(tpus))
    assert compiled.memory_analysis().temp_size_in_bytes > 0
