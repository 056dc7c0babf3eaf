"""MeshConfig: the shape of the device mesh, and the sharding rules from logical axis names to mesh
axes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
from jax.sharding import AxisType

from t5jax.errors import ConfigError
from t5jax.sharding.device_grid import (
    Shape,
    device_grid,
    nearest_shape,
    num_slices,
    splits_physical_axes,
)
from t5jax.sharding.rules import BUILT_IN, MESH_AXES, AxisRules, check_rules


@dataclasses.dataclass(kw_only=True, slots=True)
class MeshConfig:
    """Shape of the device mesh, and the sharding rules: logical axis -> mesh axes.

    Several slices of TPUs, which the data centre's network (DCN) joins, are parts of `data` and
    `fsdp`. Other devices can be cut into as many equal parts, in their order: GPUs where only some
    hosts share a fast network.
    """

    data: int = -1  # data parallelism; -1: the remaining devices
    # Data parallelism with sharded parameters and optimizer state; "auto": as many as these need.
    fsdp: int | Literal["auto"] = "auto"
    tensor: int = 1  # tensor parallelism: devices that share each matrix product
    # How many parts of `data`, and of `fsdp`, are slices; None: of data as many as divide it.
    dcn_data: int | None = None
    dcn_fsdp: int | None = None
    batch: tuple[str, ...] = ("data", "fsdp")
    # Of the activations between blocks, their positions and their vectors.
    length: tuple[str, ...] = ()
    activation_embed: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ("tensor",)
    embed: tuple[str, ...] = ("fsdp",)
    heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)
    relpos_buckets: tuple[str, ...] = ()
    # More rules: of axes of your own, and of single parameters, PATTERN:AXIS.
    rules: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def shape(self, num_devices: int) -> Shape:
        """Sizes of the mesh axes for this many devices; an fsdp of "auto" counts as 1. Raises
        ConfigError, with the nearest mesh, if they do not fit."""
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
                f"{self._nearest(num_devices, lambda shape: True)}"
            )
        return sizes["data"], sizes["fsdp"], sizes["tensor"]

    @property
    def logical_axis_rules(self) -> AxisRules:
        """Mesh axes of each logical axis, and of those of single parameters (`rules.py`)."""
        own = {name: tuple(axes) for name, axes in self.rules.items()}
        return {name: tuple(getattr(self, name)) for name in BUILT_IN} | own

    def check(self) -> None:
        """Raises ConfigError for what is wrong with any number of devices."""
        for name in ("dcn_data", "dcn_fsdp"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"mesh.{name} = {value}: must be at least 1, or None")
        for name in self.rules:
            if name in BUILT_IN:
                raise ConfigError(f"mesh.rules[{name!r}]: set the field mesh.{name}")
        check_rules(self.logical_axis_rules)

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        """The mesh over the devices (default: all there are).

        Raises ConfigError, with the nearest mesh, where the devices do not make it.
        """
        devices = jax.devices() if devices is None else devices
        shape = self.shape(len(devices))
        parts = self._parts(shape, devices)
        try:
            grid = device_grid(shape, parts, devices)
        except NotImplementedError as error:
            raise ConfigError(
                f"mesh: {_text(shape)} cannot be laid out on {devices[0].device_kind}: {error}"
                f"{self._nearest(len(devices), lambda shape: self._is_laid_out(shape, devices))}"
            ) from error
        # Auto: XLA propagates shardings. JAX's own default, Explicit, would reject FSDP's layouts.
        return jax.sharding.Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))

    def between_slices(self, devices: Sequence[Any]) -> dict[str, int]:
        """Mesh axis -> how many parts of it are slices, of the axes that go over several. Raises
        ConfigError as `build`."""
        parts = self._parts(self.shape(len(devices)), devices)
        return {axis: n for axis, n in zip(MESH_AXES, parts, strict=True) if n > 1}

    def shares_links(self, devices: Sequence[Any]) -> bool:
        """Whether an axis of the mesh takes a part of one of the slice's own axes, so that its
        collectives do not have all the links of a ring to themselves."""
        shape = self.shape(len(devices))
        return splits_physical_axes(shape, self._parts(shape, devices), devices)

    def allows(self, fsdp: int, devices: Sequence[Any]) -> bool:
        """Whether the devices make this mesh with so many of them along fsdp."""
        config = dataclasses.replace(self, fsdp=fsdp)
        try:
            config._parts(config.shape(len(devices)), devices)
        except ConfigError:
            return False
        return True

    def _parts(self, shape: Shape, devices: Sequence[Any]) -> Shape:
        """How many parts of each axis the slices are. Raises ConfigError."""
        given: dict[str, int] = {}
        for name, number in (("dcn_data", self.dcn_data), ("dcn_fsdp", self.dcn_fsdp)):
            if number is not None:
                given[name] = number
        asked = math.prod(given.values())
        slices = num_slices(devices) if devices[0].platform == "tpu" else asked
        said = " and ".join(f"mesh.{name} = {number}" for name, number in given.items())
        with_said = f" with {said}" if said else ""
        if slices % asked or (len(given) == 2 and slices != asked):
            raise ConfigError(
                f"{said}: {_devices_text(devices)}, and the product of the two is their number; "
                "leave them None"
            )
        parts = self._parts_of(shape, slices)
        if parts is None:
            possible = lambda shape: self._parts_of(shape, slices) is not None
            raise ConfigError(
                f"mesh: {_text(shape)} does not go over {slices} slices{with_said}: they are parts "
                "of data and fsdp, never of tensor"
                f"{self._nearest(len(devices), possible)}"
            )
        return parts

    def _parts_of(self, shape: Shape, slices: int) -> Shape | None:
        """None where the axes do not divide into so many slices."""
        over_data, over_fsdp = self.dcn_data, self.dcn_fsdp
        if over_data is None:
            # What divides data crosses the slow network once a step, what divides fsdp in every
            # layer.
            over_data = math.gcd(shape[0], slices // (over_fsdp or 1))
        if over_fsdp is None:
            over_fsdp = slices // over_data
        divides = shape[0] % over_data == 0 and shape[1] % over_fsdp == 0
        return (over_data, over_fsdp, 1) if divides and over_data * over_fsdp == slices else None

    def _is_laid_out(self, shape: Shape, devices: Sequence[Any]) -> bool:
        parts = self._parts_of(shape, num_slices(devices))
        try:
            return parts is not None and device_grid(shape, parts, devices) is not None
        except NotImplementedError:
            return False

    def _nearest(self, num_devices: int, possible: Callable[[Shape], bool]) -> str:
        """`; the nearest that does: data=2 x fsdp=4 x tensor=1`, or nothing."""
        fsdp = 1 if self.fsdp == "auto" else self.fsdp
        wanted = [None if size == -1 else size for size in (self.data, fsdp, self.tensor)]
        found = nearest_shape(wanted, num_devices, possible)
        return "" if found is None else f"; the nearest that does: {_text(found)}"


def _text(shape: Shape) -> str:
    return " x ".join(f"{name}={size}" for name, size in zip(MESH_AXES, shape, strict=True))


def _devices_text(devices: Sequence[Any]) -> str:
    slices = num_slices(devices)
    if slices == 1:
        return f"the {len(devices)} devices are one slice"
    return f"the devices are {slices} slices of {len(devices) // slices}"
