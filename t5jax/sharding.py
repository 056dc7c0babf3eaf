"""Where arrays live: the names of their axes -> axes of the device mesh.

The model names axes ("embed", "heads", ...) and knows nothing of meshes. A run picks a mesh shape
and a table of rules; changing the layout of a run means changing those, in its config.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import jax
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")
AxisRules = Mapping[str, tuple[str, ...]]
_AXES_OF_ONE_ARRAY = (  # of the logits, the tables, the kernels, the position bias
    ("batch", "vocab"),
    ("vocab", "embed"),
    ("embed", "heads"),
    ("embed", "mlp"),
    ("heads", "relpos_buckets"),
)
_rules: contextvars.ContextVar[AxisRules | None] = contextvars.ContextVar(
    "axis_rules", default=None
)


@dataclasses.dataclass(kw_only=True, slots=True)
class MeshConfig:
    """Shape of the device mesh and the table from axis names of arrays to axes of the mesh."""

    data: int = -1  # replicas; -1: whatever the devices leave
    fsdp: int = 1  # replicas that share the storage of parameters and optimizer state
    tensor: int = 1  # devices that share each matrix product
    batch: tuple[str, ...] = ("data", "fsdp")
    vocab: tuple[str, ...] = ("tensor",)
    embed: tuple[str, ...] = ("fsdp",)
    heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)
    relpos_buckets: tuple[str, ...] = ()

    def shape(self, num_devices: int) -> tuple[int, int, int]:
        """Sizes of the mesh axes for this many devices. Raises ConfigError if they do not fit."""
        sizes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        for name, size in sizes.items():
            if size != -1 and size < 1:
                raise ConfigError(f"mesh.{name} = {size}: must be positive, or -1 for the rest")
        unknown = [name for name, size in sizes.items() if size == -1]
        known = math.prod(size for size in sizes.values() if size != -1)
        if len(unknown) > 1:
            raise ConfigError(f"mesh: only one of {', '.join(unknown)} can be -1")
        if unknown and num_devices % known == 0:
            sizes[unknown[0]] = num_devices // known
        if math.prod(sizes.values()) != num_devices:
            raise ConfigError(
                f"mesh: data={self.data} x fsdp={self.fsdp} x tensor={self.tensor} does not make "
                f"{num_devices} device{'s' * (num_devices != 1)}; set one of them to -1 or change "
                "their product (on CPUs, JAX_NUM_CPU_DEVICES sets the number of devices)"
            )
        return sizes["data"], sizes["fsdp"], sizes["tensor"]

    @property
    def rules(self) -> AxisRules:
        names = ("batch", "vocab", "embed", "heads", "mlp", "relpos_buckets")
        return {name: tuple(getattr(self, name)) for name in names}

    def check(self) -> None:
        for name, axes in self.rules.items():
            for axis in axes:
                if axis not in MESH_AXES:
                    raise ConfigError(f"mesh.{name}: {axis!r} is not one of {MESH_AXES}")
            if len(set(axes)) < len(axes):
                raise ConfigError(f"mesh.{name} = {axes}: names an axis twice")
        for one, other in _AXES_OF_ONE_ARRAY:
            for axis in set(self.rules[one]) & set(self.rules[other]):
                raise ConfigError(
                    f"mesh.{one} and mesh.{other} both use {axis!r}, but are axes of one array: "
                    "a mesh axis can divide only one of them"
                )

    def build(self) -> jax.sharding.Mesh:
        # Auto: XLA propagates shardings. JAX's own default, Explicit, would reject FSDP's layouts.
        shape = self.shape(jax.device_count())
        return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh, rules: AxisRules) -> Iterator[None]:
    """Makes mesh and rules known to everything called inside."""
    token = _rules.set(rules)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _rules.reset(token)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Lays an activation out by the names of its axes (None: whole). No effect without rules in
    use, and on a device on its own."""
    rules = _rules.get()
    if rules is None or _on_its_own():
        return x
    return jax.lax.with_sharding_constraint(x, _spec(axes, rules))


def batch_sharding(mesh: jax.sharding.Mesh, rules: AxisRules) -> NamedSharding:
    """Of the arrays of a batch: rows over the replicas, positions whole."""
    return NamedSharding(mesh, P(rules["batch"]))


def on_each_device(function: Callable, rows: NamedSharding) -> Callable:
    """`function(whole, rows)`, every device computing the results of its own rows, on its own.

    `whole` (any pytree) lies whole on every device; of `rows` and of the results, the first axis is
    laid out as the sharding says. Inside there is nothing to lay out and nobody to wait for: a loop
    ends on a device when that device's rows have ended.
    """
    specs = (P(), rows.spec)
    return jax.shard_map(
        function, mesh=rows.mesh, in_specs=specs, out_specs=rows.spec, check_vma=False
    )


def devices_in_program() -> int:
    """How many devices what is being traced will run on, as one program."""
    return 1 if _on_its_own() else jax.device_count()


def _on_its_own() -> bool:
    """Whether what is being traced is inside `on_each_device`."""
    return jax.sharding.get_abstract_mesh().are_all_axes_manual


def param_specs(model: nnx.Module, rules: AxisRules, mesh: jax.sharding.Mesh) -> dict:
    """A PartitionSpec per parameter of an (abstract) model. A stack's leading axis stays whole.

    Raises:
      ConfigError: an axis of a parameter is not divisible by the devices that should share it.
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
        return _spec((None,) * stacked + param.axes, rules)

    is_param = lambda x: isinstance(x, nnx.Variable)
    specs = jax.tree_util.tree_map_with_path(spec, nnx.state(model, nnx.Param), is_leaf=is_param)
    return nnx.to_pure_dict(specs)


def state_shardings(abstract_state, specs: dict, mesh: jax.sharding.Mesh):
    """Shardings of a whole TrainState. A slot of the optimizer that has the path and the shape of a
    parameter is laid out like it; the rest (counters, Adafactor's factors) is replicated.
    """
    is_spec = lambda x: isinstance(x, P)
    params = jax.tree_util.tree_leaves_with_path(abstract_state.params)
    flat_specs = jax.tree.leaves(specs, is_leaf=is_spec)
    like = {_names(path): (x.shape, s) for (path, x), s in zip(params, flat_specs, strict=True)}

    def sharding(path, slot):
        names = _names(path)
        tails = (like.get(names[start:], (None, P())) for start in range(len(names)))
        return NamedSharding(mesh, next((s for shape, s in tails if shape == slot.shape), P()))

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def _spec(axes: tuple[str | None, ...], rules: AxisRules) -> P:
    return P(*(None if axis is None else (rules[axis] or None) for axis in axes))


def _names(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
