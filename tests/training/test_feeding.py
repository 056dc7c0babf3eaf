"""Every device holds the rows that are its own, for any mesh, whatever this host was given."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.sharding import MeshConfig, batch_sharding
from t5jax.training.feeding import Feeder

ROWS = 16


def global_batch():
    tokens = np.arange(ROWS * 5, dtype=np.int32).reshape(ROWS, 5)
    return {"encoder_input_tokens": tokens, "decoder_loss_weights": 1000 + tokens[:, :3]}


def check(arrays, sharding, rows):
    """The shards against an independent account: rows in order over the replicas."""
    for name, want in rows.items():
        array = arrays[name]
        assert array.shape == want.shape
        assert array.dtype == want.dtype
        assert array.sharding == sharding
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, want[shard.index])
        np.testing.assert_array_equal(array, want)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4), (1, 1, 8)])
def test_every_device_has_its_rows(mesh):
    config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    mesh = config.build()
    sharding = batch_sharding(mesh, config.logical_axis_rules)
    feeder = Feeder(sharding, ROWS)
    assert feeder.rows.tolist() == list(range(ROWS))  # one host: all of them
    rows = global_batch()
    arrays = feeder.put({name: x[feeder.rows] for name, x in rows.items()})
    check(arrays, sharding, rows)
    # By coordinates: replica r of R holds the r-th part, on every device of its tensor axis.
    replicas = mesh.shape["data"] * mesh.shape["fsdp"]
    parts = rows["encoder_input_tokens"].reshape(replicas, ROWS // replicas, 5)
    held = {s.device: s.data for s in arrays["encoder_input_tokens"].addressable_shards}
    by_replica = mesh.devices.reshape(replicas, -1)
    for part, devices in zip(parts, by_replica, strict=True):
        for device in devices:
            np.testing.assert_array_equal(held[device], part)


def test_rows_over_other_axes():
    """A layout from a run's config: rows over the tensor axis too, or over nothing."""
    for axes, shard in ((("data", "tensor"), 4), ((), ROWS)):
        config = MeshConfig(data=2, fsdp=2, tensor=2, batch=axes)
        sharding = batch_sharding(config.build(), config.logical_axis_rules)
        arrays = Feeder(sharding, ROWS).put(global_batch())
        check(arrays, sharding, global_batch())
        assert {s.data.shape[0] for s in arrays["decoder_loss_weights"].addressable_shards} == {
            shard
        }


def test_devices_in_another_order():
    devices = np.array(jax.devices())[[3, 7, 0, 5, 1, 6, 2, 4]]
    mesh = jax.sharding.Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))
    arrays = Feeder(sharding, ROWS).put(global_batch())
    check(arrays, sharding, global_batch())
    (first,) = (s for s in arrays["encoder_input_tokens"].addressable_shards
                if s.device.id == devices[0].id)  # fmt: skip
    assert first.data[0, 0] == 0


class OfSomeHost:
    """A sharding as a host with some of the devices sees it."""

    def __init__(self, sharding, devices):
        self.sharding, self.devices = sharding, devices

    def addressable_devices_indices_map(self, shape):
        indices = self.sharding.devices_indices_map(shape)
        return {device: indices[device] for device in self.devices}


def test_rows_of_a_host_are_those_of_its_devices():
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, P("data"))
    rows = lambda devices: Feeder(OfSomeHost(sharding, devices), ROWS).rows.tolist()
    grid = mesh.devices
    assert rows(grid[:2].flat) == list(range(8))
    assert rows(grid[2:].flat) == list(range(8, 16))
    assert rows([grid[1, 0], grid[3, 1]]) == [4, 5, 6, 7, 12, 13, 14, 15]  # not next to each other
    assert rows(grid[:, 0]) == list(range(16))  # hosts that share replicas read the same rows


def test_a_wrong_number_of_rows_is_noticed():
    config = MeshConfig()
    feeder = Feeder(batch_sharding(config.build(), config.logical_axis_rules), ROWS)
    with pytest.raises(AssertionError):
        feeder.put({name: x[:8] for name, x in global_batch().items()})
