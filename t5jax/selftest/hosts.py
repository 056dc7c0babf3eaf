"""Devices, software and clocks: whether the hosts are alike."""

import hashlib
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax

from t5jax.run.provenance import environment
from t5jax.runtime import ExitCode, ambient_settings, gather_texts
from t5jax.selftest.check import Check, Outcome, failed, on_every_host
from t5jax.version import __version__

_PACKAGE = pathlib.Path(__file__).parents[1]
_CLOCK_ROUNDS = 5
_MOST_CLOCK_SECONDS = 1.0  # between two hosts; leases and saves by the clock allow for more


def check_devices(mesh: jax.sharding.Mesh) -> Check:
    """Every host has as many devices as host 0, of the same kind, all of them in the mesh."""
    kinds = lambda: sorted({device.device_kind for device in jax.local_devices()})
    hosts = on_every_host(lambda: {"number": jax.local_device_count(), "kinds": kinds()})
    shape = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    text = (
        f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()}), "
        f"{hosts[0]['number']} on each of {len(hosts)} host{'s' * (len(hosts) > 1)}; mesh {shape}"
    )
    if different := _different(hosts):
        said = "; ".join(
            f"host {host} has {hosts[host]['number']} x {', '.join(hosts[host]['kinds'])}"
            for host in (0, *different)
        )
        return failed("devices", ExitCode.CONFIG, f"hosts have different devices: {said}")
    numbers = {"devices": jax.device_count(), "hosts": len(hosts)}
    return Check(name="devices", value=text, numbers=numbers)


def check_software() -> Check:
    """Every host has the versions, the files of t5jax and the settings of host 0."""
    hosts = on_every_host(software)
    if different := _different(hosts):
        ours, theirs = hosts[0], hosts[different[0]]
        said = "; ".join(
            f"host {different[0]} has {name} {theirs.get(name)}, host 0 {ours.get(name)}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        )
        more = f"; {len(different)} hosts differ" if different[1:] else ""
        return failed("software", ExitCode.CONFIG, f"{said}{more}")
    shown = ("t5jax", "jax", "jaxlib", "flax", "python")
    flags = [f"{name}={value}" for name, value in hosts[0].items() if "_FLAGS " in name]
    text = ", ".join(f"{name} {hosts[0][name]}" for name in shown)
    return Check(name="software", value=f"{text}; {' '.join(flags) or 'no flags'}")


def software() -> dict[str, str]:
    """Versions of packages, a checksum of t5jax's own files, and what else changes numbers."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(file.read_bytes())
    return {
        **environment(),
        "t5jax": __version__,
        "files of t5jax": digest.hexdigest()[:12],
        **ambient_settings(),
    }


def check_clocks() -> Check:
    """How far the hosts' clocks are from that of host 0, as far as a collective lets one tell."""
    times = []
    for _ in range(_CLOCK_ROUNDS):
        gather_texts("")  # all leave it at about the same time
        times.append(time.time())
    offsets, uncertainty = clock_offsets(on_every_host(lambda: times))
    if len(offsets) == 1:
        return Check(name="clocks", outcome=Outcome.LEFT_OUT, value="one host")
    host = max(range(len(offsets)), key=lambda host: abs(offsets[host]))
    text = f"host {host} is {offsets[host]:+.3f} s from host 0 (± {uncertainty:.3f} s)"
    text += ", the others less" * (len(offsets) > 2)
    outcome = Outcome.OK
    if abs(offsets[host]) - uncertainty > _MOST_CLOCK_SECONDS:
        outcome = Outcome.WARNING
        text += ": set the clocks by one server (chrony, ntp)"
    return Check(
        name="clocks", outcome=outcome, value=text, numbers={"offset_seconds": offsets[host]}
    )


def clock_offsets(times_HR: Sequence[Sequence[float]]) -> tuple[list[float], float]:
    """(offset of each host H to host 0, half the range that the rounds R gave), in seconds."""
    first = times_HR[0]
    differences = [[ours - zero for ours, zero in zip(x, first, strict=True)] for x in times_HR]
    ranges = [(max(x) - min(x)) / 2 for x in differences]
    return [statistics.median(x) for x in differences], max(ranges)


def _different(hosts: Sequence[Any]) -> list[int]:
    """Hosts that are not as host 0."""
    return [host for host, found in enumerate(hosts) if found != hosts[0]]
