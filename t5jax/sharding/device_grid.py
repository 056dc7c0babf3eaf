"""Devices in the shape of a mesh: within a slice along its network, over several slices by a hybrid
mesh; and the mesh that is nearest to one that cannot be had.

A shape is (data, fsdp, tensor). The slices of TPUs are joined by the data centre's network (DCN),
which is slower than the one inside; so are the parts in which a config cuts other devices.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils

Shape = tuple[int, int, int]


def divisors(number: int) -> list[int]:
    """The sizes into which so many devices, or rows, divide evenly, in order."""
    return [n for n in range(1, number + 1) if number % n == 0]


def num_slices(devices: Sequence[Any]) -> int:
    """Of TPUs; other devices are one slice, whatever they say: hosts of GPUs lie in their order
    along the mesh, the slow network on its first axes, without being slices."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def device_grid(shape: Shape, parts: Shape, devices: Sequence[Any]) -> np.ndarray:
    """The devices in `shape`, of which the slices are `parts` (1, 1, 1 of one slice); devices that
    have no slices are cut in as many groups, in their order.

    Raises NotImplementedError where JAX does not know how the shape lies on the slice.
    """
    if math.prod(parts) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    within = _within(shape, parts)
    if num_slices(devices) > 1:
        return mesh_utils.create_hybrid_device_mesh(
            within, parts, devices, allow_split_physical_axes=True
        )
    grid = np.asarray(devices).reshape(*parts, *within)
    return grid.transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def splits_physical_axes(shape: Shape, parts: Shape, devices: Sequence[Any]) -> bool:
    """Whether an axis of the mesh takes a part of one of the slice's own: its collectives then do
    not have all the links of a ring to themselves."""
    if devices[0].platform != "tpu":
        return False
    first = getattr(devices[0], "slice_index", 0)
    of_slice = [device for device in devices if getattr(device, "slice_index", 0) == first]
    try:
        mesh_utils.create_device_mesh(
            _within(shape, parts), of_slice, allow_split_physical_axes=False
        )
    except NotImplementedError:
        return True
    return False


def nearest_shape(
    wanted: Sequence[int | None], num_devices: int, possible: Callable[[Shape], bool]
) -> Shape | None:
    """Of the shapes of so many devices that are `possible` the one whose sizes are those wanted, or
    else by the smallest factors (None: any size); None where there is none."""

    def distance(shape: Shape) -> tuple[float, ...]:
        pairs = zip(shape, wanted, strict=True)
        factors = [abs(math.log(size / want)) for size, want in pairs if want is not None]
        # Of equally near ones the least tensor parallelism, then the least FSDP.
        return (round(sum(factors), 9), shape[2], shape[1])

    return min(filter(possible, shapes(num_devices)), key=distance, default=None)


def shapes(num_devices: int) -> Iterator[Shape]:
    """All meshes of so many devices."""
    for tensor in divisors(num_devices):
        for fsdp in divisors(num_devices // tensor):
            yield num_devices // tensor // fsdp, fsdp, tensor


def _within(shape: Shape, parts: Shape) -> Shape:
    """The mesh of one slice."""
    data, fsdp, tensor = (size // part for size, part in zip(shape, parts, strict=True))
    return data, fsdp, tensor
