"""Topologies: what their texts mean, and what is refused."""

import jax
import pytest

from t5jax.errors import ConfigError
from t5jax.planning.chips import CHIPS
from t5jax.planning.topology import parse_topology


@pytest.mark.parametrize(
    ("text", "chips", "devices"),
    [
        ("v5e:4x8", 32, 32),
        ("v5p:4x4x8", 128, 128),
        ("tpu7x:2x2x1", 4, 8),
        ("h100:3x8", 24, 24),
        ("cpu:5", 5, 5),
    ],
)
def test_numbers_of_chips_and_devices(text, chips, devices):
    topology = parse_topology(text)
    assert (topology.num_chips, topology.num_devices) == (chips, devices)
    assert str(topology) == text


def test_slices_multiply():
    topology = parse_topology("v6e:2x4", 3)
    assert topology.num_chips == 24
    assert str(topology) == "3 slices of v6e:2x4"


@pytest.mark.parametrize(
    ("text", "slices", "reason"),
    [
        ("v5x:4x8", 1, r"no chip 'v5x'; choose one of v4, v5e, v5p, v6e, tpu7x, a100, h100, h200"),
        ("v5e", 1, "give CHIP:SHAPE, such as v5e:4x8"),
        ("v5e:4*8", 1, "give CHIP:SHAPE"),
        ("v5e:0x8", 1, "give CHIP:SHAPE"),
        ("v5e:4x4x8", 1, "a shape of v5e has 2 numbers, such as"),
        ("v5p:32", 1, "a shape of v5p has 3 numbers"),
        ("h100:8", 1, "a shape of h100 has 2 numbers, hosts x GPUs"),
        ("h100:1x32", 1, "at most 8 GPUs; give hosts x GPUs, such as h100:4x8"),
        ("h100:1x8", 2, "only TPUs come in slices"),
        ("v5e:2x4", 0, "--slices 0: at least 1"),
        ("cpu:2x2", 1, "a shape of cpu has 1 number, of virtual devices"),
    ],
)
def test_wrong_texts_are_refused_with_what_is_right(text, slices, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_topology(text, slices)


def test_devices_of_a_cpu_topology_are_the_first_of_this_process():
    assert parse_topology("cpu:3").devices() == jax.devices()[:3]
    with pytest.raises(ConfigError, match="JAX_NUM_CPU_DEVICES=4711"):
        parse_topology("cpu:4711").devices()


def test_virtual_devices_share_the_machine():
    one, seven = (parse_topology(f"cpu:{n}").chip for n in (1, 7))
    assert seven.memory_bytes == pytest.approx(one.memory_bytes / 7)
    assert seven.peak_flops("float32") == pytest.approx(one.peak_flops("float32") / 7)


@pytest.mark.parametrize("name", CHIPS)
def test_every_chip_has_a_peak_and_a_source(name):
    chip = CHIPS[name]
    assert 100e12 < chip.peak_flops("bfloat16") < 2000e12
    assert chip.source
    # Not mistaken by a power of ten: matrix units outrun memory 100 to 700 times on all of them.
    assert 100 < chip.peak_flops("bfloat16") / chip.memory_bandwidth < 700
    assert chip.link_bandwidth > 5 * chip.network_bandwidth
