"""Cycles of attention kernels: programs of the kernel's own grid, times the bundles of a tile."""

import pytest

from t5jax.model.attention.pallas_tiles import Tiles
from t5jax.model.attention.score import ScoreFunction
from t5jax.planning.chips import CHIPS
from t5jax.planning.hlo import parse_module
from t5jax.planning.kernel_cycles import _BUNDLES, TILES, Tile, kernel_cycles

PRODUCTS = {"forward": 2, "backward": 5}


def tiles_of(B, T, S, N, H, *, bias) -> Tiles:
    return Tiles.of((B, T, N, H), S, False, False, ScoreFunction(), bias, 128 if bias else None)


def cycles(tiles: Tiles, direction: str, chip: str = "v5e") -> float:
    """Of a call as libtpu's text has it."""
    B, features = tiles.batch, tiles.heads * tiles.head_dim
    cost = tiles.cost(products=PRODUCTS[direction], arrays=2, itemsize=2)
    estimate = f'"flops":"{cost.flops}","transcendentals":"{cost.transcendentals}"'
    text = (
        "ENTRY %main () -> bf16[] {\n"
        "  %lost = s32[1]{0} parameter(0)\n"
        f"  %q = bf16[{B},{tiles.queries},{features}]{{2,1,0}} parameter(1)\n"
        f"  %k = bf16[{B},{tiles.keys},{features}]{{2,1,0}} parameter(2)\n"
        f"  ROOT %attention_{direction}.3 = bf16[{B},{tiles.queries},{features}]{{2,1,0}} "
        'custom-call(%lost, %q, %k, %k), custom_call_target="tpu_custom_call", '
        f'backend_config={{"custom_call_config":{{"cost_estimate":{{{estimate}}}}}}}\n}}\n'
    )
    main = parse_module(text).computations["main"]
    return kernel_cycles(main[f"attention_{direction}.3"], main, CHIPS[chip])


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("shape", "bias", "measured"),
    [
        ((3, 512, 512, 6, 64), True, Tile(64, 512, 512)),
        ((3, 2048, 2048, 6, 64), True, Tile(64, 512, 512)),
        ((5, 114, 512, 4, 64), False, Tile(64, 128, 512)),
        ((5, 114, 114, 4, 64), True, Tile(64, 128, 128)),
        ((2, 1000, 1000, 3, 128), True, Tile(128, 512, 512)),
        ((2, 512, 512, 3, 256), True, Tile(256, 512, 512)),
    ],
)
def test_bundles_of_every_program_of_the_grid(shape, bias, measured, direction):
    tiles = tiles_of(*shape, bias=bias)
    assert (tiles.query_tile, tiles.key_tile) == measured[1:]
    programs = tiles.batch * tiles.head_blocks * tiles.query_tiles * tiles.key_tiles
    for chip, bundles in _BUNDLES.items():
        expected = programs * bundles[direction][TILES.index(measured)] / CHIPS[chip].cores
        assert cycles(tiles, direction, chip) == pytest.approx(expected)


def test_tiles_between_the_measured_ones_are_in_proportion():
    one, other = (cycles(tiles_of(1, T, T, 2, 64, bias=True), "forward") for T in (384, 512))
    assert one / other == pytest.approx((384 / 512) ** 2)


def test_every_tpu_is_measured_and_larger_tiles_take_longer():
    assert set(_BUNDLES) == {name for name, chip in CHIPS.items() if chip.platform == "tpu"}
    for of_chip in _BUNDLES.values():
        for bundles in of_chip.values():
            assert bundles[1] < bundles[2] < bundles[0]


def test_no_kernel_reaches_the_peak():
    """Bundles that were read of something else would give a rate that the chip does not have."""
    tiles = tiles_of(1, 512, 512, 2 * 64, 64, bias=True)
    for name in _BUNDLES:
        chip = CHIPS[name]
        for direction, products in PRODUCTS.items():
            flops = tiles.cost(products=products, arrays=2, itemsize=2).flops
            rate = flops * chip.clock_hz / cycles(tiles, direction, name)
            assert 0.05 < rate / chip.peak_flops("bfloat16") < 0.8, (name, direction)


def test_what_is_no_kernel_has_none():
    text = "ENTRY %main () -> f32[] {\n  ROOT %a = f32[3,5]{1,0} parameter(0)\n}\n"
    main = parse_module(text).computations["main"]
    assert kernel_cycles(main["a"], main, CHIPS["v5e"]) == 0.0
