"""Sharding: device mesh, and sharding rules from logical axis names to mesh axes.

The model names the axes of its arrays ("embed", "heads", ...) and knows nothing of meshes. A run's
config sets the mesh shape and the rules (`MeshConfig`); the sharding rule of a new logical axis is
a field there.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")
AxisRules = Mapping[str, tuple[str, ...]]
_AXES_OF_ONE_ARRAY = (  # logits, token embedding, kernels, position bias
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
    """Shape of the device mesh, and the sharding rules: logical axis -> mesh axes."""

    data: int = -1  # data parallelism; -1: the remaining devices
    # Data parallelism with sharded parameters and optimizer state; "auto": as many as these need.
    fsdp: int | Literal["auto"] = "auto"
    tensor: int = 1  # tensor parallelism: devices that share each matrix product
    batch: tuple[str, ...] = ("data", "fsdp")
    vocab: tuple[str, ...] = ("tensor",)
    embed: tuple[str, ...] = ("fsdp",)
    heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)
    relpos_buckets: tuple[str, ...] = ()

    def shape(self, num_devices: int) -> tuple[int, int, int]:
        """Sizes of the mesh axes for this many devices; an fsdp of "auto" counts as 1. Raises
        ConfigError if they do not fit."""
        fsdp = 1 if self.fsdp == "auto" else self.fsdp
        sizes = {"data": self.data, "fsdp": fsdp, "tensor": self.tensor}
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
                f"mesh: data={self.data} x fsdp={fsdp} x tensor={self.tensor} does not make "
                f"{num_devices} device{'s' * (num_devices != 1)}; set one of them to -1 or change "
                "their product (on CPUs, JAX_NUM_CPU_DEVICES sets the number of devices)"
            )
        return sizes["data"], sizes["fsdp"], sizes["tensor"]

    @property
    def logical_axis_rules(self) -> AxisRules:
        """Mesh axes of each logical axis."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: tuple(getattr(self, name)) for name in names if name not in MESH_AXES}

    def check(self) -> None:
        for name, axes in self.logical_axis_rules.items():
            for axis in axes:
                if axis not in MESH_AXES:
                    raise ConfigError(f"mesh.{name}: {axis!r} is not one of {MESH_AXES}")
            if len(set(axes)) < len(axes):
                raise ConfigError(f"mesh.{name} = {axes}: names an axis twice")
        for one, other in _AXES_OF_ONE_ARRAY:
            for axis in set(self.logical_axis_rules[one]) & set(self.logical_axis_rules[other]):
                raise ConfigError(
                    f"mesh.{one} and mesh.{other} both use {axis!r}, but are axes of one array: "
                    "a mesh axis can divide only one of them"
                )

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        """The mesh over the devices (default: all there are). Of several slices each is a part of
        the data axis, or where it does not divide of fsdp: those need the network least.

        Raises ConfigError where the devices do not make the mesh.
        """
        devices = jax.devices() if devices is None else devices
        shape = self.shape(len(devices))
        slices = len({getattr(device, "slice_index", 0) for device in devices})
        if slices == 1:
            grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        else:
            between = _between_slices(shape, slices)
            within = [size // parts for size, parts in zip(shape, between, strict=True)]
            grid = mesh_utils.create_hybrid_device_mesh(
                within, between, devices, allow_split_physical_axes=True
            )
        # Auto: XLA propagates shardings. JAX's own default, Explicit, would reject FSDP's layouts.
        return jax.sharding.Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _between_slices(shape: tuple[int, ...], slices: int) -> tuple[int, int, int]:
    """How many parts of each axis the slices are. Raises ConfigError."""
    if shape[0] % slices == 0:
        return slices, 1, 1
    if shape[1] % slices == 0:
        return 1, slices, 1
    raise ConfigError(
        f"mesh: neither data={shape[0]} nor fsdp={shape[1]} divides into {slices} slices; change "
        "one of them"
    )


def divisors(number: int) -> list[int]:
    """The sizes into which so many devices, or rows, divide evenly, in order."""
    return [n for n in range(1, number + 1) if number % n == 0]


@contextlib.contextmanager
def use_mesh(mesh: jax.sharding.Mesh, rules: AxisRules) -> Iterator[None]:
    """Context of `constrain`: the mesh and the sharding rules."""
    token = _rules.set(rules)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _rules.reset(token)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Sharding constraint on an activation by the names of its axes (None: not sharded). No effect
    without a mesh in use and inside `on_each_device`."""
    rules = _rules.get()
    if rules is None or _inside_shard_map():
        return x
    return jax.lax.with_sharding_constraint(x, _spec(axes, rules))


def batch_sharding(mesh: jax.sharding.Mesh, rules: AxisRules) -> NamedSharding:
    """Sharding of a batch's arrays: rows over the mesh axes of "batch", positions not sharded."""
    return NamedSharding(mesh, P(rules["batch"]))


def on_each_device(function: Callable, rows: NamedSharding) -> Callable:
    """`shard_map` of `function(replicated, rows)` over the rows, without any collectives.

    `replicated` (any pytree) is whole on every device; the first axis of `rows` and of the results
    is sharded as `rows` says. A loop ends on a device when that device's rows have ended.
    """
    specs = (P(), rows.spec)
    return jax.shard_map(
        function, mesh=rows.mesh, in_specs=specs, out_specs=rows.spec, check_vma=False
    )


def on_shards(
    function: Callable, in_axes: tuple, out_axes: tuple | list, over: str | None = None
) -> Callable:
    """`shard_map` of a function over the whole mesh, its arguments' axes by name; or, with `over`,
    only over the mesh axes of that logical axis, while XLA shards along the others.

    `in_axes` has a tuple for each argument, `out_axes` one for the result, or a list of one for
    each: a logical axis or None for each of its dimensions, or None for the whole argument, which
    every device then has whole. The function itself where no mesh is in use, and inside
    `on_each_device`. Collectives in it take the mesh axes that `mesh_axes` gave outside.
    """
    rules = _rules.get()
    if rules is None or _inside_shard_map():
        return function
    mesh = jax.sharding.get_abstract_mesh()
    mapped = set(rules[over] if over else mesh.axis_names) - set(mesh.manual_axes)
    of_xla = set(mesh.axis_names) - mapped
    spec = lambda axes: P() if axes is None else _spec(axes, rules, of_xla)
    out_specs = tuple(map(spec, out_axes)) if isinstance(out_axes, list) else spec(out_axes)
    return jax.shard_map(
        function,
        in_specs=tuple(map(spec, in_axes)),
        out_specs=out_specs,
        axis_names=mapped,
        check_vma=False,
    )


def sum_over_replicas(function: Callable, whole: Any, rows: Any) -> Any:
    """`function(whole, rows)`, a sum over rows, as the sum over the replicas of the parameters.

    Each replica works on its own rows, and results (any pytree) are added up once at the end, where
    XLA would do so in every turn of a loop in the function. Replicas are the devices along the
    axes of the mesh that divide rows and no parameter. `whole` and `rows` are pytrees; the first
    axis of `rows` is the batch's.
    """
    rules = _rules.get()
    divided = {axis for name, axes in (rules or {}).items() if name != "batch" for axis in axes}
    replicas = tuple(axis for axis in mesh_axes("batch") if axis not in divided)
    if not replicas:
        return function(whole, rows)
    return jax.shard_map(
        lambda whole, rows: jax.lax.psum(function(whole, rows), replicas),
        in_specs=(P(), P(replicas)),
        out_specs=P(),
        axis_names=set(replicas),
        check_vma=False,
    )(whole, rows)


def mesh_axes(name: str) -> tuple[str, ...]:
    """The mesh axes that shard a logical axis of what is being traced: for collectives inside
    `on_shards`; () where every device has all of it."""
    rules, mesh = _rules.get(), jax.sharding.get_abstract_mesh()
    if rules is None:
        return ()
    placed = set(mesh.manual_axes)
    return tuple(axis for axis in rules[name] if mesh.shape[axis] > 1 and axis not in placed)


def num_shards(axis: str) -> int:
    """Number of parts that `on_shards` cuts a logical axis into."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in mesh_axes(axis))


def devices_in_program() -> int:
    """Number of devices that run the program being traced together."""
    if _inside_shard_map():
        return 1
    return jax.sharding.get_abstract_mesh().size if _rules.get() else jax.device_count()


def platform_in_program() -> str:
    """ "cpu", "gpu" or "tpu": of the mesh that the program is traced for, which this host need not
    have; without a mesh, the host's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return platform_of(jax.default_backend() if device is None else device.platform)


def platform_of(backend: str) -> str:
    """ "cpu", "gpu" or "tpu", from the name that JAX gives a backend."""
    return {"cuda": "gpu", "rocm": "gpu"}.get(backend, backend)


def device_kind_in_program() -> str:
    """The devices' name, such as "NVIDIA H100 80GB HBM3", of the mesh that the program is traced
    for; without a mesh, of the host's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (jax.devices()[0] if device is None else device).device_kind


def _inside_shard_map() -> bool:
    """Whether what is being traced is inside `on_each_device`."""
    return jax.sharding.get_abstract_mesh().are_all_axes_manual


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
        return _spec((None,) * stacked + param.axes, rules)

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


def _spec(axes: tuple[str | None, ...], rules: AxisRules, left_out: Iterable[str] = ()) -> P:
    """Without the mesh axes `left_out` and those over which a `shard_map` is being traced: arrays
    there are one index's part already."""
    left_out = {*left_out, *jax.sharding.get_abstract_mesh().manual_axes}
    mesh_axes_of = lambda name: tuple(x for x in rules[name] if x not in left_out)
    return P(*(None if axis is None else (mesh_axes_of(axis) or None) for axis in axes))


def _names(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
