"""Collectives along the axes of a mesh: right values pass, a wrong one is counted; NumPy is the
reference."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.selftest import Outcome, check_collectives, collectives
from t5jax.sharding import MeshConfig
from tests.marks import slow_but

COUNT = 24


@pytest.fixture(scope="module")
def mesh():
    return MeshConfig(data=2, fsdp=4, tensor=1).build()


def results(axis, x_DJ: np.ndarray) -> dict[str, np.ndarray]:
    """Of every device, [D, K]: from the definitions, over groups of devices."""
    found = {name: [None] * 8 for name in ("all-reduce", "all-gather", "reduce-scatter", "permute")}
    part = COUNT // axis.size
    for device in range(8):
        place = device // axis.stride % axis.size
        group = [device + (k - place) * axis.stride for k in range(axis.size)]
        total = sum(x_DJ[other] for other in group)
        found["all-reduce"][device] = total
        found["all-gather"][device] = np.concatenate([x_DJ[other, :part] for other in group])
        found["reduce-scatter"][device] = total[place * part : (place + 1) * part]
        found["permute"][device] = x_DJ[group[place - 1]]
    return {name: np.stack(rows) for name, rows in found.items()}


@pytest.mark.parametrize("name", ["data", "fsdp"])
def test_what_is_expected_is_what_the_definitions_give(mesh, name):
    axis = next(axis for axis in collectives.axes_of(mesh) if axis.name == name)
    d, j = np.arange(8)[:, None], np.arange(COUNT)[None]
    x_DJ = np.asarray(collectives.value(d, j))
    assert len(np.unique(x_DJ, axis=0)) == 8, "no two devices hold the same"
    for collective in collectives.collectives_along(axis, COUNT):
        wanted = results(axis, x_DJ)[collective.name]
        places = np.arange(wanted.shape[1])[None]
        np.testing.assert_array_equal(collective.expected(d, places), wanted)


def test_wrong_numbers_are_counted(mesh):
    axis = collectives.axes_of(mesh)[1]
    permute = collectives.collectives_along(axis, COUNT)[3]
    y_DK = np.array(permute.expected(np.arange(8)[:, None], np.arange(COUNT)[None]))
    y_DK[5, 3:6] += 1
    y = jax.device_put(y_DK, NamedSharding(mesh, P(mesh.axis_names, None)))
    assert collectives.num_wrong(y, permute, mesh) == 3


@pytest.mark.parametrize(
    ("data", "fsdp", "tensor"), slow_but([(1, 3, 1)], [(1, 3, 1), (2, 4, 1), (1, 2, 4)])
)
def test_every_axis_of_several_devices_is_tried(monkeypatch, data, fsdp, tensor):
    monkeypatch.setitem(collectives._BYTES, "cpu", 4096)
    devices = jax.devices()[: data * fsdp * tensor]
    checks = check_collectives(MeshConfig(data=data, fsdp=fsdp, tensor=tensor).build(devices))
    sizes = [("data", data), ("fsdp", fsdp), ("tensor", tensor)]
    assert [x.name for x in checks] == [f"collectives {a}={n}" for a, n in sizes if n > 1]
    for check in checks:
        assert check.outcome is Outcome.OK, check
        assert len(check.numbers) == 4
        assert all(rate > 0 for rate in check.numbers.values())
        assert "between hosts" not in check.value


def test_one_device_has_none():
    [check] = check_collectives(MeshConfig(data=1).build(jax.devices()[:1]))
    assert (check.outcome, check.value) == (Outcome.LEFT_OUT, "one device")


def test_a_wrong_collective_fails(monkeypatch):
    monkeypatch.setitem(collectives._BYTES, "cpu", 4096)
    monkeypatch.setattr(jax.lax, "psum", lambda x, name: x)
    [check] = check_collectives(MeshConfig(data=2).build(jax.devices()[:2]))
    assert (check.outcome, check.code) == (Outcome.FAILED, 70)
    assert check.value.startswith("all-reduce: ")
