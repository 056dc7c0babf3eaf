"""Topologies: `v5e:4x8`, `h100:4x8` (hosts x GPUs), `cpu:8`; their compile-only devices."""

import contextlib
import dataclasses
import importlib.resources
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from t5jax import runtime
from t5jax.errors import ConfigError, message_of
from t5jax.planning.chips import CHIPS, Chip, find_chip, virtual_cpu

_EXAMPLES = "v5e:4x8, v5p:4x4x8, h100:4x8 (hosts x GPUs) or cpu:8"
_MOST_GPUS_OF_A_HOST = 8
_LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Without these it complains that it finds no TPU.
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# A v4 chip is one device with megacore, as Cloud TPU VMs have it.
_TPU_OPTIONS: dict[str, dict[str, Any]] = {"v4": {"chip_config_name": "megacore"}}
INSTALL = "pip install 't5jax[plan]'"
INSTALL_FOR_GPUS = "pip install 't5jax[plan-gpu]'"


@dataclasses.dataclass(frozen=True, slots=True)
class Topology:
    """Devices to plan for: `slices` slices (of GPUs: clusters) of `shape` chips each."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    def __str__(self) -> str:
        name = f"{self.chip.name}:{'x'.join(map(str, self.shape))}"
        return name if self.slices == 1 else f"{self.slices} slices of {name}"

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def num_devices(self) -> int:
        return self.num_chips * self.chip.devices_per_chip

    def network_part(self, device: Any) -> int:
        """The slice (of TPUs) or host (of GPUs) of a device; between two of them lies DCN."""
        if self.chip.platform == "gpu":
            return device.id // self.shape[1]
        return int(getattr(device, "slice_index", 0) or 0)

    def devices(self) -> list[Any]:
        """The devices, which programs can be compiled for; of a `cpu` topology they are real.

        Raises ConfigError where what compiles for them is not installed, and for a shape that no
        slice has.
        """
        make = {"tpu": _tpu_devices, "gpu": _gpu_devices, "cpu": _cpu_devices}
        devices = make[self.chip.platform](self)
        assert len(devices) == self.num_devices, (str(self), len(devices))
        return devices


def parse_topology(text: str, slices: int = 1) -> Topology:
    """The topology of a text. Raises ConfigError for an unknown chip and for a wrong shape."""
    if slices < 1:
        raise ConfigError(f"--slices {slices}: at least 1")
    name, _, shape_text = text.partition(":")
    if name != "cpu":
        chip = find_chip(name)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape_text):
        raise ConfigError(f"--topology {text}: give CHIP:SHAPE, such as {_EXAMPLES}")
    shape = tuple(int(size) for size in shape_text.split("x"))
    if name == "cpu":
        chip = virtual_cpu(math.prod(shape) * slices)
    if len(shape) != chip.dims:
        raise ConfigError(
            f"--topology {text}: a shape of {name} has {chip.dims} number"
            f"{'s' * (chip.dims > 1)}{_meaning(chip)}, such as {_EXAMPLES}"
        )
    if chip.platform == "gpu" and shape[1] > _MOST_GPUS_OF_A_HOST:
        raise ConfigError(
            f"--topology {text}: a host has at most {_MOST_GPUS_OF_A_HOST} GPUs; give hosts x "
            f"GPUs, such as {name}:{math.prod(shape) // 8 or 1}x8"
        )
    if chip.platform != "tpu" and slices > 1:
        raise ConfigError(
            f"--slices {slices}: only TPUs come in slices; more hosts of GPUs are the first number "
            "of the shape"
        )
    return Topology(chip, shape, slices)


def _meaning(chip: Chip) -> str:
    return {"tpu": "", "gpu": ", hosts x GPUs", "cpu": ", of virtual devices"}[chip.platform]


def prepare_process(topology: Topology) -> None:
    """Settings with which this process compiles for the topology, whatever hardware it has. Call it
    before JAX is used: a backend that is there already keeps its own.

    Raises ConfigError where fewer CPU devices than `cpu:N` asks for are there already, and where
    JAX is set to compute in float64.
    """
    runtime.refuse_float64()
    # libtpu is loaded to compile alone: it must not look for a TPU or keep others from it.
    for name, value in _LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    if topology.chip.platform == "cpu":
        with contextlib.suppress(RuntimeError):  # JAX is in use; `devices` counts what there is
            jax.config.update("jax_num_cpu_devices", topology.num_devices)


def _tpu_devices(topology: Topology) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {topology}: programs for TPUs are compiled by libtpu, which is not "
            f"installed here; {INSTALL}"
        )
    name = f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}"
    options = dict(_TPU_OPTIONS.get(topology.chip.name, {}))
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if math.prod(topology.shape) == 1:  # libtpu's hosts have four chips unless told otherwise
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(name, platform="tpu", **options).devices
    except Exception as error:
        raise ConfigError(
            f"--topology {name}: libtpu knows no such slice ({message_of(error)}); give the shape "
            "of one that can be had, such as v5e:4x8, v5p:4x4x8"
        ) from error


def _gpu_devices(topology: Topology) -> list[Any]:
    hosts, gpus = topology.shape
    target = importlib.resources.files("t5jax.planning") / "targets" / f"{topology.chip.name}.txtpb"
    try:
        return topologies.get_topology_desc(
            "gpu", platform="cuda", topology=f"1x{hosts}x{gpus}", target_config=target.read_text()
        ).devices
    except NotImplementedError as error:
        raise ConfigError(
            f"--topology {topology}: programs for GPUs are compiled by JAX's CUDA plugin, which is "
            f"not installed here; {INSTALL_FOR_GPUS}"
        ) from error


def _cpu_devices(topology: Topology) -> list[Any]:
    devices = jax.devices("cpu")
    if len(devices) < topology.num_devices:
        raise ConfigError(
            f"--topology {topology}: JAX has {len(devices)} CPU devices in this process; set "
            f"JAX_NUM_CPU_DEVICES={topology.num_devices}"
        )
    return devices[: topology.num_devices]


__all__ = ["CHIPS", "INSTALL", "Topology", "parse_topology", "prepare_process"]
