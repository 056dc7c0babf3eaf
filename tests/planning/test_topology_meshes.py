"""Meshes of TPU slices, on libtpu's descriptions of them: every one of the right product builds, or
says which does; and the shipped configs' on the slices of their headers."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs libtpu: make .venv/installed-plan"
    ),
]
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "tpu7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
}
LARGE = ("4x4x8", "8x16", "16x16")  # four of them would take as long as all others
TOPOLOGIES = [
    (f"{chip}:{shape}", slices)
    for chip, shapes in SLICES.items()
    for shape in shapes
    for slices in ((1, 2) if shape in LARGE else (1, 2, 4))
]
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def in_another_process(script: str, argument) -> list:
    """What a script prints as JSON: libtpu and XLA's flags of these tests do not go together."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, json.dumps(argument)], capture_output=True,
        text=True, env={"PATH": "/usr/bin:/bin", "XLA_FLAGS": ""}, cwd=CONFIGS.parent,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


PRELUDE = """
import json, sys
sys.path.insert(0, "")
from t5jax.errors import ConfigError
from t5jax.planning.topology import parse_topology, prepare_process
from t5jax.sharding import MeshConfig
from t5jax.sharding.device_grid import shapes
prepare_process(parse_topology("v5e:1x1"))
found, given = [], json.loads(sys.argv[1])
"""
# For each topology: number of devices, of meshes and of those that are refused.
EVERY_MESH = """
for text, slices in given:
    devices = parse_topology(text, slices).devices()
    numbers, refused, size = {device.id for device in devices}, 0, len(devices)
    for shape in shapes(size):
        data, fsdp, tensor = shape
        try:
            mesh = MeshConfig(data=data, fsdp=fsdp, tensor=tensor).build(devices)
        except ConfigError as error:
            said = str(error).split("the nearest that does: ")[1]
            shape = tuple(int(word.split("=")[1]) for word in said.split(" x "))
            mesh = MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2]).build(devices)
            refused += 1
            assert size // slices % tensor, "fits into a slice"
        assert mesh.devices.shape == shape
        assert {device.id for device in mesh.devices.flat} == numbers and mesh.size == size
        for group in mesh.devices.reshape(-1, shape[2]):
            of = {getattr(device, "slice_index", 0) for device in group}
            assert len(of) == 1, "tensor parallelism over DCN"
    found.append([size, len(list(shapes(size))), refused])
print(json.dumps(found))
"""


def test_every_mesh_builds_or_names_the_nearest():
    counts = in_another_process(EVERY_MESH, TOPOLOGIES)
    for (text, slices), (_, meshes, refused) in zip(TOPOLOGIES, counts, strict=True):
        # Of powers of two those alone whose tensor axis is as long as 2 or 4 slices.
        assert refused == {1: 0, 2: 1, 4: 3}[slices], text
        assert meshes > refused
    assert max(size for size, *_ in counts) == 512


HEADERS = """
import dataclasses
from t5jax.config import read_config
from t5jax.planning.abstract_run import with_vocabulary
from t5jax.planning.settings import layout_on_topology
for path, text in given:
    layout = layout_on_topology(read_config(path), parse_topology(text))
    found.append([layout.mesh, layout.parameter_bytes])
print(json.dumps(found))
"""


def headers() -> list[tuple[str, str, str]]:
    """(config, topology, what the header says of the mesh) of the lines `Predicted:`."""
    line = r"^ *(?:Predicted: +)?(\w+:\d+(?:x\d+)+): MFU .*\((.*), microbatches"
    pattern = re.compile(line, re.MULTILINE)
    return [
        (str(path), topology, mesh)
        for path in sorted(CONFIGS.glob("*.py"))
        for topology, mesh in pattern.findall(path.read_text())
    ]


def test_shipped_configs_are_laid_out_on_the_slices_of_their_headers():
    of_tpus = [x for x in headers() if x[1].split(":")[0] in SLICES]
    assert len(of_tpus) >= 3
    found = in_another_process(HEADERS, [x[:2] for x in of_tpus])
    for (path, _, said), (mesh, nbytes) in zip(of_tpus, found, strict=True):
        assert " x ".join(f"{name} {n}" for name, n in mesh.items() if n > 1) == said, path
        assert nbytes > 1e6
