"""Collectives by mesh axis: groups as XLA writes them, bytes and times by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from t5jax.planning.collectives import MeshNetwork, replica_groups
from t5jax.planning.hlo import parse_module
from t5jax.planning.topology import parse_topology
from t5jax.sharding import MeshConfig

TEXT = """\
ENTRY %main () -> f32[] {
  %a = f32[6,10]{1,0} parameter(0)
  %b = bf16[4]{0} parameter(1)
  %gather = f32[6,40]{1,0} all-gather(%a), channel_id=1, replica_groups=[2,4]<=[8], dimensions={1}
  %start = (f32[6,10]{1,0}, f32[6,40]{1,0}) all-gather-start(%a), replica_groups=[2,4]<=[8]
  %reduce = (f32[6,10]{1,0}, bf16[4]{0}) all-reduce(%a, %b), replica_groups=[4,2]<=[2,4]T(1,0)
  %scatter = f32[3,10]{1,0} reduce-scatter(%a), replica_groups={{0,4},{1,5},{2,6},{3,7}}
  %all = f32[6,10]{1,0} all-reduce(%a), replica_groups={}
  %permute = f32[6,10]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  ROOT %plain = f32[] constant(0)
}
"""


def network(topology):
    mesh = MeshConfig(data=2, fsdp=4).build(jax.devices()[:8])
    return MeshNetwork(mesh, topology)


def collective(name: str, topology=None):
    computation = parse_module(TEXT).computations["main"]
    topology = topology or parse_topology("v5e:2x4")
    return network(topology).collective(computation[name], computation)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x=1", [(0, 1), (2, 3)]),
        ("replica_groups=[2,4]<=[8]", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}, x=1", [(0, 2, 4, 6), (1, 3, 5, 7)]),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", [(0, 1), (2, 3), (4, 5), (6, 7)]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", [tuple(range(8))]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [(0, 2), (1, 3), (4, 6), (5, 7)]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [(0, 2), (1, 3)]),
        ("replica_groups={}", [tuple(range(8))]),
        ("replica_groups=in_a_new_way", []),
    ],
)
def test_groups(text, groups):
    assert replica_groups(text, 8) == groups


@pytest.mark.parametrize(
    ("name", "kind", "axes", "group", "nbytes"),
    [
        ("gather", "all-gather", "fsdp", 4, 960),
        ("start", "all-gather", "fsdp", 4, 960),
        ("reduce", "all-reduce", "data", 2, 248),
        ("scatter", "reduce-scatter", "data", 2, 240),
        ("all", "all-reduce", "data+fsdp", 8, 240),
        ("permute", "collective-permute", "fsdp", 2, 240),
    ],
)
def test_kind_axes_and_bytes(name, kind, axes, group, nbytes):
    found = collective(name)
    assert (found.kind, found.axes, found.group, found.nbytes) == (kind, axes, group, nbytes)
    assert not found.over_network


def test_other_instructions_are_none():
    assert collective("plain") is None


def test_times_of_a_ring():
    link = parse_topology("v5e:2x4").chip.link_bandwidth
    assert collective("gather").seconds == pytest.approx(960 * 3 / 4 / link)
    assert collective("reduce").seconds == pytest.approx(2 * 248 / 2 / link)
    assert collective("permute").seconds == pytest.approx(240 / (link / 2))


def test_between_hosts_the_network_is_what_takes_time():
    """Two hosts of four GPUs: the data axis crosses them, fsdp does not."""
    topology = parse_topology("h100:2x4")
    chip = topology.chip
    assert not collective("gather", topology).over_network
    crossing = collective("reduce", topology)
    assert crossing.over_network
    assert crossing.seconds == pytest.approx(2 * 248 / 2 / chip.network_bandwidth)
    # Of all eight: reduced inside each host first, then by four links side by side.
    everything = collective("all", topology)
    inside, between = 2 * 240 * 3 / 4 / chip.link_bandwidth, 2 * 240 / 2
    assert everything.seconds == pytest.approx(inside + between / (4 * chip.network_bandwidth))


def test_slices_are_told_apart_by_their_devices():
    topology = dataclasses.replace(parse_topology("v5e:2x2"), slices=2)

    class Device:
        def __init__(self, number):
            self.id, self.slice_index = number, number // 4

    parts = [topology.network_part(Device(number)) for number in range(8)]
    assert parts == [0, 0, 0, 0, 1, 1, 1, 1]


def test_what_goes_between_slices_is_a_recv():
    """libtpu reduces inside each slice first; what it then sends names its kind."""
    topology = dataclasses.replace(parse_topology("v6e:2x2"), slices=2)
    text = (
        "ENTRY %main () -> f32[] {\n"
        "  %z = token[] after-all()\n"
        "  %r = (bf16[512,8]{1,0}, u32[], token[]) recv(%z), channel_id=1, is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}\n'
        "  ROOT %c = f32[] constant(0)\n"
        "}\n"
    )

    class Slices(MeshNetwork):
        """Of devices that are not those of this process."""

        def __init__(self):
            super().__init__(MeshConfig(data=4, fsdp=2).build(jax.devices()[:8]), topology)
            self._parts = np.arange(8) // 4

    computation = parse_module(text).computations["main"]
    found = Slices().collective(computation["r"], computation)
    assert (found.kind, found.axes, found.over_network) == ("all-reduce", "data", True)
    assert found.nbytes == 512 * 8 * 2 + 4
    expected = 2 * found.nbytes / 2 / topology.chip.network_bandwidth
    assert found.seconds == pytest.approx(expected)
