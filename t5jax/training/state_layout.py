"""Layout of a run's state on its mesh: shape, sharding and bytes per device of every parameter, and
why where it is whole on every device. Nothing is compiled."""

import dataclasses
import math

import jax

from t5jax.model.layer_stack import parameter_path
from t5jax.model.registry import abstract_model
from t5jax.sharding import BUILT_IN, param_axes, rule_of
from t5jax.training.memory import device_bytes, shard_bytes
from t5jax.training.steps import Program

REPLICATED_SHARE = 0.05  # of a device's memory that replicated state may take without a word


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

    @property
    def whole_by_reason(self) -> dict[str, list[ParameterLayout]]:
        """Why -> the parameters that are therefore whole on every device, the most bytes first."""
        found: dict[str, list[ParameterLayout]] = {}
        for x in self.parameters:
            if x.why:
                found.setdefault(x.why, []).append(x)
        return dict(sorted(found.items(), key=lambda item: -bytes_of(item[1])))

    def warning(self, memory_bytes: float) -> str | None:
        """Where replicated state takes more than REPLICATED_SHARE of a device's memory."""
        share = self.replicated_bytes / memory_bytes
        if math.prod(self.mesh.values()) == 1 or share <= REPLICATED_SHARE:
            return None
        return (
            f"{self.replicated_bytes / 1e9:.2f} GB of parameters and optimizer state ({share:.0%} "
            "of the memory) are whole on every device: mesh.fsdp divides them; `t5jax inspect "
            "sharding` lists them"
        )


def bytes_of(parameters: list[ParameterLayout]) -> int:
    """Of one device."""
    return sum(x.shard_bytes for x in parameters)


def state_layout(program: Program) -> StateLayout:
    """The layout of a program's state on its mesh."""
    state = program.abstract_state
    axes = param_axes(abstract_model(program.model))
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


def _layout(path, x: jax.ShapeDtypeStruct, program: Program, axes) -> ParameterLayout:
    sharding = x.sharding
    assert isinstance(sharding, jax.sharding.NamedSharding)
    spec = tuple(sharding.spec) + (None,) * (len(x.shape) - len(sharding.spec))
    shard = sharding.shard_shape(x.shape)
    pieces = math.prod(x.shape) // math.prod(shard)
    name = parameter_path(path)
    return ParameterLayout(
        name=name,
        shape=x.shape,
        spec=tuple("+".join(_tuple(axis)) or "-" for axis in spec),
        shard=shard,
        shard_bytes=shard_bytes(x),
        copies=sharding.num_devices // pieces,
        why="" if pieces > 1 else _why(name, axes.get(name), program),
    )


def _tuple(axis) -> tuple[str, ...]:
    return () if axis is None else axis if isinstance(axis, tuple) else (axis,)


def _why(path: str, axes: tuple[str, ...] | None, program: Program) -> str:
    """Why a parameter is whole on every device."""
    if axes is None:
        return "added by fine-tuning: no axis of it has a rule"
    rules, sizes = program.mesh_config.logical_axis_rules, program.mesh.shape
    reasons = []
    for axis in axes:
        mesh_axes = rule_of(rules, axis, path)
        if not mesh_axes:
            by_field = axis in BUILT_IN and not rules[axis]
            reasons.append(f"mesh.{axis if by_field else 'rules'} names no mesh axis for {axis}")
        else:
            names = " x ".join(f"{name}={sizes[name]}" for name in mesh_axes)
            reasons.append(f"{axis} is divided along {names}")
    return "; ".join(dict.fromkeys(reasons)) or "it has no axis that is divided"
