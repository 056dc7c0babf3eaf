"""Collectives along each mesh axis: whether their values are right, and their bandwidth.

Every device holds numbers of its own, [1, J]; their sums are exact in float32, so that a result is
right or wrong. Bandwidth is what a device sends: of J numbers along an axis of n devices an
all-reduce by a ring sends 2 (n - 1) / n, a gather or scatter of parts (n - 1) / n, a permutation
all.

Shape suffixes: D devices in the mesh's order, J a device's numbers, K those of its result, n the
devices along the axis.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.runtime import ExitCode, of_first_host
from t5jax.selftest.check import Check, Outcome, failed

_BYTES = {"cpu": 1 << 20}  # of a device's numbers
_BYTES_OF_ACCELERATOR = 32 << 20
_ROUNDS = 5


class Axis(NamedTuple):
    """An axis of the mesh; `stride`: between two devices along it, counted in the mesh's order."""

    name: str
    size: int
    stride: int


class Collective(NamedTuple):
    """`call` is of one device's numbers, [1, J]; `expected`, of devices [D, 1] and places [1, K],
    has the results of all, [D, K]."""

    name: str
    share: float  # of a device's bytes, that it sends
    call: Callable[[jax.Array], jax.Array]
    expected: Callable[[jax.Array, jax.Array], jax.Array]


def check_collectives(mesh: jax.sharding.Mesh) -> list[Check]:
    """A check for each mesh axis of several devices."""
    axes = [axis for axis in axes_of(mesh) if axis.size > 1]
    if not axes:
        return [Check(name="collectives", outcome=Outcome.LEFT_OUT, value="one device")]
    return [_check_axis(mesh, axis) for axis in axes]


def axes_of(mesh: jax.sharding.Mesh) -> list[Axis]:
    """The axes, the last of stride 1."""
    found, stride = [], 1
    for name, size in reversed(list(mesh.shape.items())):
        found.insert(0, Axis(name, size, stride))
        stride *= size
    return found


def _check_axis(mesh: jax.sharding.Mesh, axis: Axis) -> Check:
    title = f"{axis.name}={axis.size}"
    nbytes = _BYTES.get(jax.default_backend(), _BYTES_OF_ACCELERATOR)
    count = -(-nbytes // 4 // axis.size) * axis.size
    sharded = NamedSharding(mesh, P(mesh.axis_names, None))
    make = lambda: value(*_indices(mesh.size, count))
    x_DJ = jax.jit(make, out_shardings=sharded)()
    rates = {}
    for collective in collectives_along(axis, count):
        run = jax.jit(
            jax.shard_map(
                collective.call,
                mesh=mesh,
                in_specs=sharded.spec,
                out_specs=sharded.spec,
                check_vma=False,
            )
        )
        wrong = num_wrong(run(x_DJ), collective, mesh)
        if wrong:
            text = f"{collective.name}: {wrong:,} numbers of {mesh.size} devices are wrong"
            return failed(f"collectives {title}", ExitCode.INTERNAL, text)
        seconds = _best_seconds(lambda run=run: run(x_DJ))
        rates[collective.name] = collective.share * count * 4 / seconds
    rates = of_first_host(rates)
    text = ", ".join(f"{name} {rate / 1e9:.3g}" for name, rate in rates.items())
    between = " (between hosts)" if _between_hosts(mesh, axis.name) else ""
    return Check(
        name=f"collectives {title}",
        value=f"right; {text} GB/s a device{between}",
        numbers={f"{name.replace('-', '_')}_bytes_per_second": x for name, x in rates.items()},
    )


def collectives_along(axis: Axis, count: int) -> list[Collective]:
    """Those that training uses, for `count` numbers a device, which the axis divides."""
    name, n, part = axis.name, axis.size, count // axis.size
    ring = [(k, (k + 1) % n) for k in range(n)]

    def sum_over_axis(d: jax.Array, j: jax.Array) -> jax.Array:
        devices_Dn = _along(axis, d, jnp.arange(n)[None])
        return n * value(0, j) + value(devices_Dn, 0).sum(axis=1, keepdims=True)

    place = lambda d: d // axis.stride % n
    return [
        Collective("all-reduce", 2 * (n - 1) / n, lambda x: jax.lax.psum(x, name), sum_over_axis),
        Collective(
            "all-gather",
            (n - 1) / n,
            lambda x: jax.lax.all_gather(x[:, :part], name, axis=1, tiled=True),
            lambda d, j: value(_along(axis, d, j // part), j % part),
        ),
        Collective(
            "reduce-scatter",
            (n - 1) / n,
            lambda x: jax.lax.psum_scatter(x, name, scatter_dimension=1, tiled=True),
            lambda d, j: sum_over_axis(d, place(d) * part + j),
        ),
        Collective(
            "permute",
            1.0,
            lambda x: jax.lax.ppermute(x, name, ring),
            lambda d, j: value(_along(axis, d, (place(d) - 1) % n), j),
        ),
    ]


def value(device: jax.Array | int, j: jax.Array | int) -> jax.Array:
    """Number j of a device, float32; small whole ones: sums over 100,000 devices are exact."""
    return jnp.asarray(j % 97 + device % 61, jnp.float32)


def num_wrong(y_DK: jax.Array, collective: Collective, mesh: jax.sharding.Mesh) -> int:
    """How many of the numbers of all devices are not those expected, bit for bit."""

    def count(y_DK: jax.Array) -> jax.Array:
        return jnp.sum(y_DK != collective.expected(*_indices(*y_DK.shape)))

    return int(jax.jit(count, out_shardings=NamedSharding(mesh, P()))(y_DK))


def _indices(num_devices: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Devices in the mesh's order, int32 [D, 1], and the places of their numbers, [1, K]."""
    return jnp.arange(num_devices)[:, None], jnp.arange(count)[None]


def _along(axis: Axis, device: jax.Array, k: jax.Array) -> jax.Array:
    """The device at place k along the axis, in the row of `device`."""
    return device + (k - device // axis.stride % axis.size) * axis.stride


def _best_seconds(run: Callable[[], jax.Array]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _between_hosts(mesh: jax.sharding.Mesh, name: str) -> bool:
    """Whether devices along the axis are of different hosts."""
    place = mesh.axis_names.index(name)
    rows = mesh.devices.swapaxes(place, -1).reshape(-1, mesh.shape[name])
    return any(len({device.process_index for device in row}) > 1 for row in rows)
