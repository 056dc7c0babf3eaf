"""Shardings of parameters and optimizer state."""

import math

import jax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError
from t5jax.sharding.placement import spec_of
from t5jax.sharding.rules import AxisRules, check_rules_of, rule_of


def param_specs(model: nnx.Module, rules: AxisRules, mesh: jax.sharding.Mesh) -> dict:
    """A PartitionSpec per parameter of an (abstract) model. A stack's layers axis is not sharded.

    Raises ConfigError if an axis of a parameter is not divisible by its mesh axes, if a mesh axis
    would divide two of them, and for a rule of the config that no parameter follows.
    """
    check_rules_of(rules, param_axes(model))

    def spec(path, param):
        name = _joined(path)
        own = {axis: rule_of(rules, axis, name) for axis in param.axes}
        used = [mesh_axis for mesh_axes in own.values() for mesh_axis in mesh_axes]
        if len(set(used)) < len(used):
            raise ConfigError(
                f"mesh.rules: {name} has {own}, but a mesh axis can divide only one of its axes"
            )
        stacked = len(param.shape) - len(param.axes)
        for size, axis in zip(param.shape[stacked:], param.axes, strict=True):
            devices = math.prod(mesh.shape[mesh_axis] for mesh_axis in own[axis])
            if size % devices:
                raise ConfigError(
                    f"mesh: {name} has {axis}={size}, which does not divide into "
                    f"{' x '.join(own[axis])} = {devices}; change mesh.{axis}, the mesh's shape "
                    "or the model's"
                )
        return spec_of((None,) * stacked + param.axes, own)

    specs = jax.tree_util.tree_map_with_path(spec, nnx.state(model, nnx.Param), is_leaf=_is_param)
    return nnx.to_pure_dict(specs)


def param_axes(model: nnx.Module) -> dict[str, tuple[str, ...]]:
    """Path -> logical axes of every parameter, without the layers axis of a stack."""
    found = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param), is_leaf=_is_param)
    return {_joined(path): param.axes for path, param in found}


def state_shardings(abstract_state, specs: dict, mesh: jax.sharding.Mesh):
    """Shardings of a whole TrainState. Optimizer state with path and shape of a parameter is
    sharded like it; the rest (counters, Adafactor's factors) is replicated."""
    is_spec = lambda x: isinstance(x, P)
    params = jax.tree_util.tree_leaves_with_path(abstract_state.params)
    flat_specs = jax.tree.leaves(specs, is_leaf=is_spec)
    like = {_names(path): (x.shape, s) for (path, x), s in zip(params, flat_specs, strict=True)}

    def sharding(path, slot):
        names = _names(path)
        tails = (like.get(names[start:], (None, P())) for start in range(len(names)))
        return NamedSharding(mesh, next((s for shape, s in tails if shape == slot.shape), P()))

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def _is_param(x) -> bool:
    return isinstance(x, nnx.Variable)


def _joined(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _names(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
