"""Collectives of a compiled program: bytes by kind and mesh axis, within slices and between."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from t5jax.planning.hlo import Computation, Instruction
from t5jax.planning.topology import Topology
from t5jax.planning.traffic import collective_kind

_PASSES = {"all-reduce": 2.0}  # of the data over the links: reduce-scatter, then all-gather


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """One collective of a compiled program.

    Attributes:
      nbytes: of the whole array of one execution: what is gathered, reduced or sent.
      axes: mesh axes that its groups extend along, joined with "+"; "?" where the text does not
        say which devices take part.
      group: devices of a group.
      over_network: whether a group has devices of several slices (hosts, of GPUs).
      seconds: of one execution, without anything beside it.
    """

    kind: str
    nbytes: float
    axes: str
    group: int
    over_network: bool
    seconds: float
    shape: tuple[int, ...]


class MeshNetwork:
    """Which mesh axes and which network the groups of a collective use."""

    def __init__(self, mesh: jax.sharding.Mesh, topology: Topology):
        self._names, self._shape = mesh.axis_names, mesh.devices.shape
        self._parts = np.array([topology.network_part(x) for x in mesh.devices.flat])
        self._chip = topology.chip

    def collective(self, instruction: Instruction, computation: Computation) -> Collective | None:
        """What an instruction is as a collective; None for any other."""
        kind = collective_kind(instruction.opcode)
        if kind is None:
            return self._between_slices(instruction)
        arrays = list(instruction.arrays)
        if kind == "reduce-scatter":
            arrays += [x for name in instruction.operands if name in computation
                       for x in computation[name].arrays]  # fmt: skip
        whole = max(arrays, key=lambda array: array.nbytes, default=None)
        nbytes = self._total(kind, instruction, computation)
        groups = self._groups(kind, instruction)
        axes = self._axes(groups)
        size = len(groups[0]) if groups else len(self._parts)
        crosses = any(len(set(self._parts[list(group)])) > 1 for group in groups or ())
        return Collective(
            kind=kind,
            nbytes=nbytes,
            axes=axes,
            group=size,
            over_network=crosses,
            seconds=self._seconds(kind, nbytes, size, groups, crosses),
            shape=whole.dims if whole else (),
        )

    def _between_slices(self, instruction: Instruction) -> Collective | None:
        """The part of a collective that goes over DCN, which libtpu writes as a `recv` from the
        other slices."""
        transfer = instruction.find(r'_xla_megascale_transfer_type="(\w+)"')
        if instruction.opcode != "recv" or transfer is None:
            return None
        kind, slices = transfer.lower().replace("_", "-"), len(set(self._parts.tolist()))
        nbytes = sum(array.nbytes for array in instruction.arrays)
        passed = nbytes * _PASSES.get(kind, 1.0) * (slices - 1) / slices
        grid = self._parts.reshape(self._shape)
        varying = [
            name
            for axis, name in enumerate(self._names)
            if (grid != np.take(grid, [0], axis=axis)).any()
        ]
        return Collective(
            kind=kind,
            nbytes=nbytes,
            axes="+".join(varying) or "?",
            group=slices,
            over_network=True,
            seconds=passed / self._chip.network_bandwidth,
            shape=instruction.arrays[0].dims if instruction.arrays else (),
        )

    def _total(self, kind: str, instruction: Instruction, computation: Computation) -> float:
        """Of the gathered, reduced or sent arrays; a `-start` lists operands beside results."""
        given = [
            array.nbytes
            for name in instruction.operands
            if name in computation
            for array in computation[name].arrays
        ]
        if kind == "reduce-scatter" or kind == "all-reduce":
            return sum(given) or sum(array.nbytes for array in instruction.arrays)
        made = [array.nbytes for array in instruction.arrays]
        if kind == "all-gather" and instruction.opcode.endswith("-start"):
            return sum(made) - sum(given)
        if instruction.opcode.endswith("-start"):
            return max(made, default=0.0)
        return sum(made)

    def _groups(self, kind: str, instruction: Instruction) -> list[tuple[int, ...]]:
        if kind == "collective-permute":
            pairs = instruction.find(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}") or ""
            return _braced(pairs)
        return replica_groups(instruction.attributes, len(self._parts))

    def _axes(self, groups: Iterable[Sequence[int]]) -> str:
        """Axes along which the devices of some group differ."""
        varying = np.zeros(len(self._shape), bool)
        for group in groups:
            places = np.array(np.unravel_index(np.asarray(group), self._shape))
            varying |= (places != places[:, :1]).any(axis=1)
        names = [name for name, varies in zip(self._names, varying, strict=True) if varies]
        return "+".join(names) or "?"

    def _seconds(
        self, kind: str, nbytes: float, size: int, groups: list[tuple[int, ...]], crosses: bool
    ) -> float:
        """A ring: every device passes on (size - 1) / size of the array, twice in an all-reduce.
        Between slices or hosts their devices send side by side."""
        chip = self._chip
        if size < 2:
            return 0.0
        if kind == "collective-permute":
            return nbytes / (chip.network_bandwidth if crosses else chip.link_bandwidth / 2)
        passed = nbytes * _PASSES.get(kind, 1.0) * (size - 1) / size
        if not crosses:
            return passed / chip.link_bandwidth
        parts = dict.fromkeys(self._parts[list(groups[0])], 0)
        beside = size / len(parts)  # devices of the group in one slice or host
        within = nbytes * _PASSES.get(kind, 1.0) * (beside - 1) / beside / chip.link_bandwidth
        between = nbytes * _PASSES.get(kind, 1.0) * (len(parts) - 1) / len(parts)
        return within + between / (chip.network_bandwidth * beside)


_FROM_ARRAY = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_FROM_LISTS = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)+)\}")
_FROM_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?\{([^}]*)\}"
)


def replica_groups(attributes: str, num_devices: int) -> list[tuple[int, ...]]:
    """Groups of device numbers, in the order of the mesh; all devices where none are named, none
    where they are written in an unknown way.

    Written `{{0,1},{2,3}}`; or `[2,4]<=[4,2]T(1,0)`, numbers in the order of an array [4, 2] that
    is transposed and cut into two groups of four; or `mesh['a'=4,'b'=2] {'b'}`, groups along `b`
    of a mesh of 0, 1, 2, …, or of the numbers after `device_ids=`.
    """
    if found := _FROM_ARRAY.search(attributes):
        count, size = int(found[1]), int(found[2])
        return [tuple(row) for row in _numbers(found[3], found[4]).reshape(count, size).tolist()]
    if found := _FROM_MESH.search(attributes):
        return _along(found[1], _numbers(found[2], found[3]) if found[2] else None, found[4])
    if found := _FROM_LISTS.search(attributes):
        return _braced(found[1])
    if "replica_groups={}" in attributes or "replica_groups" not in attributes:
        return [tuple(range(num_devices))]
    return []


def _numbers(dims: str, permutation: str | None) -> np.ndarray:
    """0, 1, 2, … in an array of `dims`, transposed."""
    shape = [int(x) for x in dims.split(",")]
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return numbers.transpose([int(x) for x in permutation.split(",")]) if permutation else numbers


def _along(axes: str, devices: np.ndarray | None, chosen: str) -> list[tuple[int, ...]]:
    """Groups along the `chosen` of the axes `'a'=4,'b'=2`; of `'a':(2)2` along a part of the axis,
    which has 2 positions and lies inside 2 others."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", axes)}
    shape: list[int] = []
    grouped: list[int] = []
    parts = {
        name: (int(before or 1), int(size or sizes[name]))
        for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", chosen)
    }
    for name, whole in sizes.items():
        before, size = parts.get(name, (1, 1))
        if name in parts:
            grouped.append(len(shape) + 1)
        shape += [before, size, whole // (before * size)]
    numbers = np.arange(np.prod(shape)) if devices is None else devices.reshape(-1)
    others = [axis for axis in range(len(shape)) if axis not in grouped]
    size = int(np.prod([shape[axis] for axis in grouped]))
    rows = numbers.reshape(shape).transpose(*others, *grouped).reshape(-1, size)
    return [tuple(row) for row in rows.tolist()]


def _braced(text: str) -> list[tuple[int, ...]]:
    """`{0,1},{2,3}` as numbers."""
    return [tuple(int(x) for x in group.split(",")) for group in re.findall(r"\{([\d,]+)\}", text)]
