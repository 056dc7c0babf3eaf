"""Shardings of parameters and optimizer state."""

import math

import jax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError
from t5jax.sharding.mesh import AxisRules
from t5jax.sharding.placement import spec_of


def param_specs(model: nnx.Module, rules: AxisRules, mesh: jax.sharding.Mesh) -> dict:
    """A PartitionSpec per parameter of an (abstract) model. A stack's layers axis is not sharded.

    Raises ConfigError if an axis of a parameter is not divisible by its mesh axes.
    """

    def spec(path, param):
        stacked = len(param.shape) - len(param.axes)
        for size, name in zip(param.shape[stacked:], param.axes, strict=True):
            devices = math.prod(mesh.shape[axis] for axis in rules[name])
            if size % devices:
                names = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ConfigError(
                    f"mesh: {names} has {name}={size}, which does not divide into "
                    f"{' x '.join(rules[name])} = {devices}; change mesh.{name}, the mesh's shape "
                    "or the model's"
                )
        return spec_of((None,) * stacked + param.axes, rules)

    is_param = lambda x: isinstance(x, nnx.Variable)
    specs = jax.tree_util.tree_map_with_path(spec, nnx.state(model, nnx.Param), is_leaf=is_param)
    return nnx.to_pure_dict(specs)


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


def _names(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
