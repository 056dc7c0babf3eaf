"""Chips: peak rates, memory and links of the accelerators that a plan can be made for.

Everything is per JAX device: a TPU7x chip is two of them, a v4 or v5p chip (megacore) one.
"""

import dataclasses
import functools
import os
import time
from typing import Literal

from t5jax.errors import ConfigError
from t5jax.tracking import measure_matmul_peak, peak_flops

Platform = Literal["tpu", "gpu", "cpu"]
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: as in a topology, `v5e:4x8`.
      device_kind: what `jax.Device.device_kind` says; `tracking.peak_flops` knows the peak by it.
      memory_bytes: HBM of a device that programs can use (of TPUs what libtpu gives them).
      memory_bandwidth: bytes/s between HBM and the device.
      clock_hz: of the TensorCore, which libtpu's cycles count; None where no cycles are known.
      link_bandwidth: bytes/s that a device sends inside a slice (ICI, both directions of one torus
        axis) or a host (NVLink, one way).
      network_bandwidth: bytes/s that a device sends between slices (DCN) or hosts (InfiniBand).
      dims: numbers in the topology's shape.
      cores: TensorCores of a device, among which a kernel's blocks of heads are divided.
      matrix_width: rows of the matrix unit, which a smaller contraction leaves partly empty.
      shared_by: virtual devices that the figures of a CPU were divided among.
      source: where the figures are from.
    """

    name: str
    platform: Platform
    device_kind: str
    memory_bytes: float
    memory_bandwidth: float
    clock_hz: float | None = None
    link_bandwidth: float
    network_bandwidth: float
    dims: int
    devices_per_chip: int = 1
    cores: int = 1
    matrix_width: int = 128
    shared_by: int = 1
    source: str

    def peak_flops(self, dtype: str) -> float:
        """Dense matrix FLOP/s of a device."""
        if self.platform == "cpu":
            return _host_matmul_peak(dtype) / self.shared_by
        peak = peak_flops(self.device_kind, dtype)
        assert peak is not None, self.device_kind
        return peak


_GOOGLE = (
    "cloud.google.com/tpu/docs (peak, HBM, interconnect), jax-ml.github.io/scaling-book (one-way "
    "bandwidth of a link, DCN per chip); memory: what libtpu 0.0.42 lets programs use"
)
_NVIDIA = "NVIDIA's data sheet and DGX system guide (SXM; NVLink one way; one NIC a GPU)"

_TABLE = (
    Chip(
        name="v4", platform="tpu", device_kind="TPU v4", dims=3, cores=2,
        memory_bytes=30.75 * GIB, memory_bandwidth=1.228e12, clock_hz=1.05e9,
        link_bandwidth=90e9, network_bandwidth=6.25e9, source=_GOOGLE,
    ),
    Chip(
        name="v5e", platform="tpu", device_kind="TPU v5 lite", dims=2,
        memory_bytes=15.75 * GIB, memory_bandwidth=0.819e12, clock_hz=1.5e9,
        link_bandwidth=90e9, network_bandwidth=3.125e9, source=_GOOGLE,
    ),
    Chip(
        name="v5p", platform="tpu", device_kind="TPU v5", dims=3, cores=2,
        memory_bytes=95.74 * GIB, memory_bandwidth=2.765e12, clock_hz=1.75e9,
        link_bandwidth=180e9, network_bandwidth=6.25e9, source=_GOOGLE,
    ),
    Chip(
        name="v6e", platform="tpu", device_kind="TPU v6 lite", dims=2,
        memory_bytes=31.25 * GIB, memory_bandwidth=1.638e12, clock_hz=1.75e9, matrix_width=256,
        link_bandwidth=180e9, network_bandwidth=12.5e9, source=_GOOGLE,
    ),
    Chip(
        name="tpu7x", platform="tpu", device_kind="TPU7x", dims=3, devices_per_chip=2,
        memory_bytes=94.75 * GIB, memory_bandwidth=3.69e12, clock_hz=2.2e9, matrix_width=256,
        link_bandwidth=100e9, network_bandwidth=12.5e9,
        source=f"{_GOOGLE}; the clock follows from the peak and four matrix units of 256 x 256",
    ),
    Chip(
        name="a100", platform="gpu", device_kind="NVIDIA A100-SXM4-80GB", dims=2,
        memory_bytes=85_094_432_768, memory_bandwidth=2.039e12,
        link_bandwidth=300e9, network_bandwidth=25e9, source=_NVIDIA,
    ),
    Chip(
        name="h100", platform="gpu", device_kind="NVIDIA H100 80GB HBM3", dims=2,
        memory_bytes=85_520_809_984, memory_bandwidth=3.35e12,
        link_bandwidth=450e9, network_bandwidth=50e9, source=_NVIDIA,
    ),
    Chip(
        name="h200", platform="gpu", device_kind="NVIDIA H200", dims=2,
        memory_bytes=151_397_597_184, memory_bandwidth=4.8e12,
        link_bandwidth=450e9, network_bandwidth=50e9, source=_NVIDIA,
    ),
)  # fmt: skip
CHIPS = {chip.name: chip for chip in _TABLE}


def find_chip(name: str) -> Chip:
    """The accelerator of a name. Raises ConfigError with the names that there are."""
    if name not in CHIPS:
        raise ConfigError(
            f"--topology {name}:…: there is no chip {name!r}; choose one of "
            f"{', '.join(CHIPS)} or cpu"
        )
    return CHIPS[name]


def virtual_cpu(devices: int) -> Chip:
    """One of so many virtual devices that share this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bandwidth = _host_copy_bandwidth() / devices
    return Chip(
        name="cpu", platform="cpu", device_kind="cpu", dims=1, shared_by=devices,
        memory_bytes=memory / devices, memory_bandwidth=bandwidth,
        link_bandwidth=bandwidth / 2, network_bandwidth=bandwidth / 2,
        source="this machine's: fastest matrix product and copy seen, memory; shared evenly",
    )  # fmt: skip


@functools.cache
def _host_matmul_peak(dtype: str) -> float:
    return measure_matmul_peak(dtype, 0.5)


@functools.cache
def _host_copy_bandwidth() -> float:
    """Bytes/s read and written while NumPy copies an array larger than the caches."""
    import numpy as np

    source = np.ones(1 << 25, np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)  # first writes to fresh memory are slow
    start, copies = time.perf_counter(), 3
    for _ in range(copies):
        np.copyto(target, source)
    return 2 * copies * source.nbytes / (time.perf_counter() - start)
