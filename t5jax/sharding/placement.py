"""Placement of what is traced: constraints on activations, `shard_map`, collectives, by axis names.

All of it follows the mesh and the sharding rules that `use_mesh` has set.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.sharding.rules import AxisRules

_rules: contextvars.ContextVar[AxisRules | None] = contextvars.ContextVar(
    "axis_rules", default=None
)


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
    return jax.lax.with_sharding_constraint(x, spec_of(axes, rules))


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
    spec = lambda axes: P() if axes is None else spec_of(axes, rules, of_xla)
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


def spec_of(axes: tuple[str | None, ...], rules: AxisRules, left_out: Iterable[str] = ()) -> P:
    """The PartitionSpec of named axes; without the mesh axes `left_out` and those over which a
    `shard_map` is being traced: arrays there are one index's part already."""
    left_out = {*left_out, *jax.sharding.get_abstract_mesh().manual_axes}
    mesh_axes_of = lambda name: tuple(x for x in rules[name] if x not in left_out)
    return P(*(None if axis is None else (mesh_axes_of(axis) or None) for axis in axes))
