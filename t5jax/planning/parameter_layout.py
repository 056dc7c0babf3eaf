"""Layout of every parameter on a topology: shape, sharding, bytes per device, and why where it is
replicated. Nothing is compiled."""

import dataclasses
import math

import jax
from flax import nnx

from t5jax.config import RunConfig
from t5jax.model.registry import abstract_model
from t5jax.planning.abstract_run import abstract_run
from t5jax.planning.settings import resolve_for_topology
from t5jax.planning.topology import Topology
from t5jax.training.memory import device_bytes, shard_bytes
from t5jax.training.steps import Program


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParameterLayout:
    """Where one parameter lies. `copies` devices hold the same shard; `why` says why where the
    whole of it is on every device."""

    name: str
    shape: tuple[int, ...]
    spec: tuple[str, ...]  # mesh axes of each dimension, joined with "+", or "-"
    shard: tuple[int, ...]
    shard_bytes: int
    copies: int
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StateLayout:
    """The layout of a run's state; bytes of one device."""

    parameters: tuple[ParameterLayout, ...]
    parameter_bytes: float
    optimizer_bytes: float
    replicated_bytes: float  # of parameters and optimizer state, whole on every device
    mesh: dict[str, int]


def state_layout(config: RunConfig, topology: Topology) -> StateLayout:
    """The layout of the config's run. Raises ConfigError where config and topology do not go
    together."""
    config.check_mesh(topology.num_devices, trains=False)
    run, _ = resolve_for_topology(abstract_run(config), topology)
    program = run.program(run.config.mesh.build(topology.devices()))
    state = program.abstract_state
    axes = _axis_names(program)
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return StateLayout(
        parameters=tuple(
            _layout(path, x, program, axes)
            for path, x in jax.tree_util.tree_leaves_with_path(state.params)
        ),
        parameter_bytes=device_bytes(state.params),
        optimizer_bytes=device_bytes(state.opt_state),
        replicated_bytes=float(
            sum(shard_bytes(x) for x in leaves if x.sharding.is_fully_replicated)
        ),
        mesh=dict(program.mesh.shape),
    )


def _axis_names(program: Program) -> dict[str, tuple[str, ...]]:
    """Logical axes of the model's parameters by path, without the layers axis of a stack."""
    found = nnx.state(abstract_model(program.model), nnx.Param)
    is_param = lambda x: isinstance(x, nnx.Variable)
    leaves = jax.tree_util.tree_leaves_with_path(found, is_leaf=is_param)
    return {_path(path): param.axes for path, param in leaves}


def _path(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _layout(path, x: jax.ShapeDtypeStruct, program: Program, axes) -> ParameterLayout:
    sharding = x.sharding
    assert isinstance(sharding, jax.sharding.NamedSharding)
    spec = tuple(sharding.spec) + (None,) * (len(x.shape) - len(sharding.spec))
    shard = sharding.shard_shape(x.shape)
    pieces = math.prod(x.shape) // math.prod(shard)
    name = _path(path)
    return ParameterLayout(
        name=name,
        shape=x.shape,
        spec=tuple("+".join(_tuple(axis)) or "-" for axis in spec),
        shard=shard,
        shard_bytes=shard_bytes(x),
        copies=sharding.num_devices // pieces,
        why="" if pieces > 1 else _why(axes.get(name), program),
    )


def _tuple(axis) -> tuple[str, ...]:
    return () if axis is None else axis if isinstance(axis, tuple) else (axis,)


def _why(axes: tuple[str, ...] | None, program: Program) -> str:
    """Why a parameter is whole on every device."""
    if axes is None:
        return "added by fine-tuning: no axis of it has a rule"
    rules, sizes = program.mesh_config.logical_axis_rules, program.mesh.shape
    reasons = []
    for axis in axes:
        mesh_axes = rules.get(axis, ())
        if not mesh_axes:
            reasons.append(f"mesh.{axis} names no axis")
        else:
            names = " x ".join(f"{name}={sizes[name]}" for name in mesh_axes)
            reasons.append(f"{axis} is divided along {names}")
    return "; ".join(dict.fromkeys(reasons)) or "it has no axis that is divided"
