"""Cycles of the attention kernels for TPUs: libtpu's static bundles of a tile, times the tiles.

libtpu's text of a compiled program says nothing about what is inside a Pallas kernel. Its scheduler
packs a kernel's instructions into bundles, one a cycle where nothing waits; their number is in its
dumps, which `benchmarks/kernel_cycles.py CHIP --table` reads.
"""

import math
from typing import NamedTuple

from t5jax.model.attention.pallas_tiles import LANES, TILE, tile_size
from t5jax.planning.chips import Chip
from t5jax.planning.flops import (
    BACKWARD_PRODUCTS,
    FORWARD_PRODUCTS,
    is_attention_kernel,
    is_backward,
)
from t5jax.planning.hlo import Computation, Instruction


class Tile(NamedTuple):
    """A tile of queries and keys, of one block of heads whose features fill the lanes."""

    head_dim: int
    queries: int
    keys: int


TILES = (
    Tile(64, 512, 512),
    Tile(64, 128, 128),
    Tile(64, 128, 512),
    Tile(128, 512, 512),
    Tile(256, 512, 512),
)
# libtpu 0.0.42.1, bfloat16; a bias and segments wherever queries are as many as keys.
_BUNDLES = {
    "v4": {"forward": (4771, 795, 1455, 3137, 3715), "backward": (7860, 1431, 2175, 4994, 7821)},
    "v5e": {"forward": (2871, 625, 1209, 2034, 2677), "backward": (6096, 1247, 2305, 4237, 6947)},
    "v5p": {"forward": (2850, 681, 1228, 1984, 2690), "backward": (6049, 1389, 2275, 4177, 6735)},
    "v6e": {"forward": (2506, 688, 1077, 1753, 1948), "backward": (4355, 1254, 2031, 2969, 3584)},
    "tpu7x": {"forward": (2375, 827, 1109, 1525, 1655), "backward": (4140, 1460, 2056, 2853, 3407)},
}


def kernel_cycles(instruction: Instruction, computation: Computation, chip: Chip) -> float:
    """Cycles of one call on a TPU; 0 for what is no attention kernel, and on other chips."""
    if chip.name not in _BUNDLES or not is_attention_kernel(instruction):
        return 0.0
    flops, pairs = (
        float(instruction.find(rf'"{name}":\s*"?(\d+)') or 0)
        for name in ("flops", "transcendentals")
    )
    arrays = [computation[x].arrays[0].dims for x in instruction.operands if x in computation]
    (_, T, J), (_, S, _) = [dims for dims in arrays if len(dims) == 3][:2]
    backward = is_backward(instruction)
    products = BACKWARD_PRODUCTS if backward else FORWARD_PRODUCTS
    head_dim = round(flops / (2 * products * pairs))  # as pallas_tiles.Tiles.cost says
    tile = Tile(head_dim, tile_size(T, TILE), tile_size(S, TILE))
    block = min(J, head_dim * math.ceil(LANES / head_dim))  # features of a program
    programs = (
        pairs * head_dim / (T * S * block)
        * math.ceil(T / tile.queries) * math.ceil(S / tile.keys)
    )  # fmt: skip
    return programs * _bundles(chip.name, "backward" if backward else "forward", tile) / chip.cores


def _bundles(chip: str, direction: str, tile: Tile) -> float:
    """Those of the measured tile of the nearest area, in proportion to the area."""
    measured = dict(zip(TILES, _BUNDLES[chip][direction], strict=True))
    nearest_head = min((x.head_dim for x in TILES), key=lambda H: abs(math.log(H / tile.head_dim)))
    area = lambda x: x.queries * x.keys
    nearest = min(
        (x for x in TILES if x.head_dim == nearest_head),
        key=lambda x: abs(math.log(area(x) / area(tile))),
    )
    # Beyond the lanes, a block of heads has as many features as a head.
    wider = max(tile.head_dim, LANES) / max(nearest.head_dim, LANES)
    return measured[nearest] * wider * area(tile) / area(nearest)
