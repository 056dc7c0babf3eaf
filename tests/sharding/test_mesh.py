"""The mesh: its shape, slices, what is refused and which mesh is nearest."""

import jax
import numpy as np
import pytest
from jax.experimental import mesh_utils

from t5jax.errors import ConfigError
from t5jax.sharding import MeshConfig
from t5jax.sharding.device_grid import device_grid, nearest_shape, num_slices


@pytest.mark.parametrize(
    ("config", "devices", "shape"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), 8, (1, 8, 1)),
        (MeshConfig(fsdp=3, tensor=2), 30, (5, 3, 2)),
        (MeshConfig(data=2, fsdp=2, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(), 1, (1, 1, 1)),
    ],
)
def test_shape(config, devices, shape):
    assert config.shape(devices) == shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MeshConfig(fsdp=3),
            "data=-1 x fsdp=3 x tensor=1 does not make 8 devices; .*; the nearest that does: "
            "data=2 x fsdp=4 x tensor=1$",
        ),
        (MeshConfig(data=2, fsdp=2), "does not make 8 devices.* data=4 x fsdp=2 x tensor=1$"),
        (MeshConfig(data=16), "does not make 8 devices.* data=8 x fsdp=1 x tensor=1$"),
        (MeshConfig(data=2, fsdp=1, tensor=5), "nearest that does: data=2 x fsdp=1 x tensor=4$"),
        (MeshConfig(data=0), "mesh.data = 0"),
        (MeshConfig(tensor=-2), "mesh.tensor = -2"),
        (MeshConfig(fsdp=-1), "only one of data, fsdp can be -1"),
    ],
)
def test_shape_that_does_not_fit(config, message):
    with pytest.raises(ConfigError, match=message):
        config.shape(8)


def test_axes_that_do_not_exist():
    with pytest.raises(ConfigError, match=r"mesh\.mlp: 'model' is not one of"):
        MeshConfig(mlp=("model",)).check()
    MeshConfig().check()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(batch=("data", "fsdp", "fsdp")), "mesh.batch"),
        (MeshConfig(embed=("tensor",)), "mesh.vocab and mesh.embed both use 'tensor'"),
        (MeshConfig(batch=("data", "tensor")), "mesh.batch and mesh.vocab both use 'tensor'"),
        (MeshConfig(mlp=("tensor", "fsdp")), "mesh.embed and mesh.mlp both use 'fsdp'"),
        (MeshConfig(length=("data",)), "mesh.batch and mesh.length both use 'data'"),
        (MeshConfig(dcn_data=0), "mesh.dcn_data = 0: must be at least 1, or None"),
    ],
)
def test_what_no_mesh_has(config, message):
    with pytest.raises(ConfigError, match=message):
        config.check()


def test_mesh_has_all_devices_and_lets_xla_propagate():
    mesh = MeshConfig(data=2, fsdp=2, tensor=2).build()
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert {d.id for d in mesh.devices.flat} == {d.id for d in jax.devices()}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


# ---- several slices


class Device:
    """What a mesh is made of, without anything behind it."""

    core_on_chip = 0
    local_hardware_id = 0
    client = None

    def __init__(self, number: int, platform: str, **attributes):
        self.id, self.platform, self.device_kind = number, platform, f"a {platform}"
        vars(self).update(attributes)


def tpus(slices: int, of: int) -> list:
    """Slices of a ring of chips."""
    return [
        Device(i, "tpu", slice_index=i // of, coords=(i % of, 0, 0)) for i in range(slices * of)
    ]


SHAPES = [  # config, devices of each slice, slices -> parts of the axes
    (MeshConfig(), 6, 2, {"data": 2}),
    (MeshConfig(fsdp=6), 6, 2, {"data": 2}),
    (MeshConfig(data=1, fsdp=-1), 6, 2, {"fsdp": 2}),
    (MeshConfig(data=2, fsdp=12), 6, 4, {"data": 2, "fsdp": 2}),
    (MeshConfig(data=3, fsdp=4, tensor=2), 6, 4, {"fsdp": 4}),
    (MeshConfig(data=4, fsdp=6, dcn_fsdp=2), 6, 4, {"data": 2, "fsdp": 2}),
    (MeshConfig(data=2, fsdp=6, dcn_data=1, dcn_fsdp=2), 6, 2, {"fsdp": 2}),
    (MeshConfig(), 6, 1, {}),
]


@pytest.mark.parametrize(("config", "of", "slices", "parts"), SHAPES)
def test_slices_are_parts_of_data_then_of_fsdp(config, of, slices, parts):
    config.check()
    devices = tpus(slices, of)
    assert config.between_slices(devices) == parts
    grid = config.build(devices).devices
    for axis, name in enumerate(("data", "fsdp", "tensor")):
        # Along an axis the slices are as many equal runs of devices as it has parts.
        slice_at = np.vectorize(lambda device: device.slice_index)(np.moveaxis(grid, axis, -1))
        runs = 1 + (np.diff(slice_at, axis=-1) != 0).sum(axis=-1)
        assert set(runs.flat) == {parts.get(name, 1)}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MeshConfig(data=1, fsdp=1, tensor=12),
            "data=1 x fsdp=1 x tensor=12 does not go over 2 slices: they are parts of data and "
            "fsdp, never of tensor; the nearest that does: data=2 x fsdp=1 x tensor=6$",
        ),
        (MeshConfig(data=1, fsdp=3, tensor=4), "nearest that does: data=1 x fsdp=4 x tensor=3$"),
        (
            MeshConfig(data=3, fsdp=4, dcn_data=2),
            "over 2 slices with mesh.dcn_data = 2: .*: data=4 x fsdp=3 x tensor=1$",
        ),
        (MeshConfig(dcn_data=3), "mesh.dcn_data = 3: the devices are 2 slices of 6"),
        (MeshConfig(dcn_data=2, dcn_fsdp=2), "dcn_data = 2 and mesh.dcn_fsdp = 2: the devices are"),
    ],
)
def test_meshes_that_do_not_go_over_the_slices(config, message):
    with pytest.raises(ConfigError, match=message):
        config.build(tpus(2, 6))


def test_one_slice_has_no_parts():
    with pytest.raises(ConfigError, match="dcn_data = 2: the 6 devices are one slice"):
        MeshConfig(dcn_data=2).build(tpus(1, 6))


@pytest.mark.parametrize(
    ("shape", "parts"), [((4, 2, 1), (2, 1, 1)), ((2, 4, 1), (1, 2, 1)), ((2, 2, 2), (2, 2, 1))]
)
def test_devices_without_slices_are_cut_in_their_order(shape, parts):
    """As JAX's hybrid mesh has hosts that are slices."""
    groups = int(np.prod(parts))
    devices = [Device(i, "gpu", process_index=i * groups // 8) for i in range(8)]
    within = [size // part for size, part in zip(shape, parts, strict=True)]
    want = mesh_utils.create_hybrid_device_mesh(within, parts, devices, process_is_granule=True)
    np.testing.assert_array_equal(device_grid(shape, parts, devices), want)


def test_hosts_of_gpus_are_no_slices():
    """XLA numbers them as if they were."""
    devices = [Device(i, "gpu", slice_index=i // 2) for i in range(8)]
    assert num_slices(devices) == 1
    assert MeshConfig(data=1, fsdp=1, tensor=8).build(devices).shape["tensor"] == 8


def test_nearest_shape_prefers_what_was_asked_for():
    anything = lambda shape: True
    assert nearest_shape((None, 4, 1), 32, anything) == (8, 4, 1)
    assert nearest_shape((None, 5, 2), 32, anything) == (4, 4, 2)
    assert nearest_shape((1, 1, 12), 24, lambda shape: shape[2] <= 6) == (4, 1, 6)
    assert nearest_shape((1, 1, 1), 7, lambda shape: False) is None
