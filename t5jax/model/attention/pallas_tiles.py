"""Tiles of an attention kernel for TPUs: what is static about one call, and its blocks.

A program of the grid handles one tile of keys and queries of one row and one block of heads, whose
features fill the lanes. Scores lie [keys, queries]: what belongs to a query (maximum, sum) is then
a row, which broadcasts for nothing, and no matrix of scores is ever transposed.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim, G heads of a block,
F = G H, K keys and Q queries of a tile, X = K + Q.
"""

import dataclasses

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5jax.model.attention.score import ScoreFunction

LANES = 128
TILE = 512  # positions of a tile, at most
# Of the 64 MiB that the smallest of today's chips has.
_VMEM_LIMIT, _VMEM_BYTES = 60 * 2**20, 52 * 2**20


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles:
    """Geometry and mask of one call, on one device."""

    batch: int
    queries: int
    keys: int
    heads: int
    head_dim: int
    heads_per_block: int
    query_tile: int
    key_tile: int
    # Offsets (key tile - query tile) whose tiles of the position bias differ; those outside are
    # like the nearest of them.
    first_offset: int
    last_offset: int
    causal: bool  # by position alone; a prefix LM's is in `prefix`
    prefix: bool
    trains_bias: bool
    score: ScoreFunction

    @classmethod
    def of(
        cls,
        q_BTNH_shape: tuple[int, ...],
        keys: int,
        mask_causal: bool,
        prefix: bool,
        score: ScoreFunction,
        has_bias: bool,
        constant_from: int | None,
        tile: int = TILE,
    ) -> "Tiles":
        """`constant_from`: distance from which the bias is constant, None if it never is."""
        B, T, N, H = q_BTNH_shape
        query_tile, key_tile = tile_size(T, tile), tile_size(keys, tile)
        causal = mask_causal and not prefix
        reaches = [int(causal), 0 if score.window is None else score.window + 1]
        if has_bias:
            reaches.append(T + keys if constant_from is None else constant_from)
        if any(reaches) and (query_tile < T or key_tile < keys):
            query_tile = key_tile = max(query_tile, key_tile)  # offsets are in tiles of one size
        far = cdiv(max(reaches) + key_tile - 1, key_tile) if any(reaches) else 0
        return cls(
            batch=B,
            queries=T,
            keys=keys,
            heads=N,
            head_dim=H,
            heads_per_block=_heads_per_block(N, H),
            query_tile=query_tile,
            key_tile=key_tile,
            first_offset=max(1 - cdiv(T, query_tile), -far),
            last_offset=min(cdiv(keys, key_tile) - 1, far),
            causal=causal,
            prefix=prefix,
            trains_bias=has_bias,
            score=score,
        )

    @property
    def query_tiles(self) -> int:
        return cdiv(self.queries, self.query_tile)

    @property
    def key_tiles(self) -> int:
        return cdiv(self.keys, self.key_tile)

    @property
    def head_blocks(self) -> int:
        return self.heads // self.heads_per_block

    @property
    def features(self) -> int:
        return self.heads_per_block * self.head_dim

    @property
    def num_offsets(self) -> int:
        return self.last_offset - self.first_offset + 1

    @property
    def positional(self) -> bool:
        """Whether scores depend on the distance of query and key."""
        return self.trains_bias or self.masks_positions

    @property
    def masks_positions(self) -> bool:
        return self.causal or self.score.window is not None

    @property
    def skips(self) -> bool:
        """Whether there can be tiles of which no query sees any key, by position."""
        return self.masks_positions and self.query_tiles * self.key_tiles > 1

    def head(self, index: int) -> slice:
        """Features of one head of a block."""
        return slice(index * self.head_dim, (index + 1) * self.head_dim)

    def bias_tile(self, head: int, query_tile, key_tile):
        """Index of the position bias of this head and pair of tiles."""
        if self.num_offsets == 1:
            return head
        offset = jnp.clip(key_tile - query_tile, self.first_offset, self.last_offset)
        return head * self.num_offsets + offset - self.first_offset

    def counts(self, lost, row, query_tile, key_tile):
        """Whether the tile has a part in the result: position lets one of its queries see one of
        its keys, or `lost` [B * query tiles] says that one of them may see no key at all, which is
        to see all of them."""
        if not self.skips:
            return True
        nearest = (key_tile - query_tile) * self.key_tile - (self.query_tile - 1)
        farthest = (key_tile - query_tile) * self.key_tile + self.key_tile - 1
        window = self.score.window
        reached = nearest <= (0 if self.causal else window)
        if window is not None:
            reached &= farthest >= -window
        return reached | (lost[row * self.query_tiles + query_tile] > 0)

    def vmem_bytes(self, itemsize: int) -> int:
        """About what the backward kernel keeps in vector memory."""
        matrix = 4 * self.key_tile * self.query_tile
        bias = (1 + self.trains_bias) * self.positional * self.heads_per_block * self.num_offsets
        dq = self.query_tiles * self.query_tile * self.features * (4 + 2 * itemsize)
        blocks = self.features * (self.key_tile + self.query_tile) * (8 * itemsize + 8)
        return (bias + 8) * matrix + dq + blocks

    def why_not(self, itemsize: int) -> str | None:
        """Why the kernels cannot run; None: they can."""
        needed = self.vmem_bytes(itemsize)
        if needed <= _VMEM_BYTES:
            return None
        return (
            f"{self.queries} queries and {self.keys} keys need {needed / 2**20:.0f} MiB of a "
            f"core's vector memory, of which {_VMEM_BYTES / 2**20:.0f} can be used"
        )

    def compiler_params(self) -> pltpu.CompilerParams:
        """Blocks of heads are independent; the rest of the grid shares what is in memory."""
        return pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
            vmem_limit_bytes=_VMEM_LIMIT,
        )

    def cost(self, *, products: int, arrays: int, itemsize: int) -> pl.CostEstimate:
        """For the scheduler: `products` of a tile's matrices, `arrays` of queries, of keys each."""
        pairs = self.batch * self.heads * self.queries * self.keys
        if self.causal and self.skips:
            pairs //= 2
        positions = self.batch * self.heads * self.head_dim * (self.queries + self.keys)
        return pl.CostEstimate(
            flops=2 * products * pairs * self.head_dim,
            transcendentals=pairs,
            bytes_accessed=arrays * positions * itemsize,
        )

    # ---- blocks; a grid's programs are (block of heads, row, …)

    def query_block(self, index_of) -> pl.BlockSpec:
        """Of an array [B, T, N H]; `index_of(*program)` gives the tile."""
        shape = (1, self.query_tile, self.features)
        return pl.BlockSpec(shape, lambda n, b, *ij: (b, index_of(*ij), n))

    def key_block(self, index_of) -> pl.BlockSpec:
        """Of an array [B, S, N H]."""
        shape = (1, self.key_tile, self.features)
        return pl.BlockSpec(shape, lambda n, b, *ij: (b, index_of(*ij), n))

    def row_block(self, size: int, index_of) -> pl.BlockSpec:
        """Of an array [B, 1, T] or [B, 1, S], padded to whole tiles."""
        return pl.BlockSpec((1, 1, size), lambda n, b, *ij: (b, 0, index_of(*ij)))

    def statistics_block(self, index_of) -> pl.BlockSpec:
        """Of an array [B, N / G, G, T], padded to whole tiles."""
        shape = (1, 1, self.heads_per_block, self.query_tile)
        return pl.BlockSpec(shape, lambda n, b, *ij: (b, n, 0, index_of(*ij)))

    def strips_block(self) -> pl.BlockSpec:
        """Of an array [N / G, G offsets, X]."""
        shape = (1, self.heads_per_block * self.num_offsets, self.key_tile + self.query_tile)
        return pl.BlockSpec(shape, lambda n, *_: (n, 0, 0))


def tile_size(length: int, most: int) -> int:
    """A multiple of the lanes that cuts the length into the fewest tiles, all alike."""
    return LANES * cdiv(cdiv(length, cdiv(length, most)), LANES)


def _heads_per_block(heads: int, head_dim: int) -> int:
    """The smallest number of heads whose features fill whole lanes; all, if none does."""
    fitting = (n for n in range(1, heads) if heads % n == 0 and n * head_dim % LANES == 0)
    return next(fitting, heads)
