"""Layouts that a search tries: mesh, microbatches, rematerialisation and unrolling of one run."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

from t5jax.config import RunConfig
from t5jax.errors import ConfigError
from t5jax.model.config import REMAT_POLICIES
from t5jax.planning.topology import Topology
from t5jax.sharding import MeshConfig, divisors

# Tensor parallelism sends activations twice a block and way: only links of one host or torus do.
_MOST_TENSOR = 8
# Of a microbatch on one device: half of what "auto" takes (run/auto.py), for the compiler to judge.
_LEAST_TOKENS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One layout of a run."""

    data: int
    fsdp: int
    tensor: int
    num_microbatches: int
    remat: str
    unrolled: bool

    def __str__(self) -> str:
        sizes = (("data", self.data), ("fsdp", self.fsdp), ("tensor", self.tensor))
        mesh = " x ".join(f"{name} {size}" for name, size in sizes if size > 1) or "one device"
        layers = "unrolled" if self.unrolled else "scanned"
        return f"{mesh}, microbatches {self.num_microbatches}, remat {self.remat}, {layers}"

    @property
    def settings(self) -> dict[str, Any]:
        """The values of a config that make it, by `section.field`."""
        return {
            "mesh.data": self.data,
            "mesh.fsdp": self.fsdp,
            "mesh.tensor": self.tensor,
            "train.num_microbatches": self.num_microbatches,
            "model.remat": self.remat,
            "model.unroll_layers": "all" if self.unrolled else 1,
        }

    @property
    def flags(self) -> str:
        """The same as settings of a command line."""
        return " ".join(
            f"--{name.replace('_', '-')} {value}" for name, value in self.settings.items()
        )

    @property
    def scanned(self) -> "Candidate":
        """The same layout with scanned layers."""
        return dataclasses.replace(self, unrolled=False)

    def apply(self, config: RunConfig) -> RunConfig:
        """A config with this layout; the given one stays as it is."""
        sections: dict[str, dict[str, Any]] = {}
        for name, value in self.settings.items():
            section, field = name.split(".")
            sections.setdefault(section, {})[field] = value
        changed = {
            section: dataclasses.replace(getattr(config, section), **values)
            for section, values in sections.items()
        }
        return dataclasses.replace(config, **changed)


def meshes(config: RunConfig, topology: Topology) -> Iterator[MeshConfig]:
    """Meshes that the topology and the model's axes allow: tensor parallelism inside one host of
    GPUs and over no more than 8 devices, heads, vocabulary and MLP divided evenly."""
    devices, model = topology.num_devices, config.model
    most_tensor = _MOST_TENSOR
    if topology.chip.platform == "gpu":
        most_tensor = min(most_tensor, topology.shape[1])
    for tensor in divisors(math.gcd(devices, model.num_heads, model.mlp_dim, model.vocab_size)):
        if tensor > most_tensor:
            continue
        for fsdp in divisors(math.gcd(devices // tensor, model.emb_dim)):
            mesh = dataclasses.replace(
                config.mesh, data=devices // tensor // fsdp, fsdp=fsdp, tensor=tensor
            )
            try:
                dataclasses.replace(config, mesh=mesh).check_mesh(devices, trains=False)
                mesh.build(topology.devices())
            except ConfigError:
                continue
            yield mesh


def candidates(config: RunConfig, mesh: MeshConfig, tokens: int) -> Iterator[Candidate]:
    """The layouts of one mesh, with `tokens` positions a row; the smallest microbatches are those
    that keep a device busy."""
    replicas = math.prod(getattr(mesh, axis) for axis in mesh.batch)
    if config.train.batch_size % replicas:
        return
    rows = config.train.batch_size // replicas
    parts = [n for n in divisors(rows) if rows // n * tokens >= _LEAST_TOKENS] or [1]
    for n, remat, unrolled in itertools.product(parts, REMAT_POLICIES, (False, True)):
        yield Candidate(
            data=mesh.data, fsdp=_size(mesh.fsdp), tensor=mesh.tensor, num_microbatches=n,
            remat=remat, unrolled=unrolled,
        )  # fmt: skip


def _size(size: Any) -> int:
    """Of an axis in `meshes`, where none says "auto"."""
    assert isinstance(size, int)
    return size
