"""Counter-based random numbers (of a seed, a row and a counter) and keyed permutations.

A stream of random numbers ties a row to all that was drawn before it. A counter does not: row i
gets the same numbers in any batch, on any host and after any restart. NumPy's generators would do,
but their methods may change between versions, and a resumed run must not. The mixing is
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

import hashlib
import math

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def derive_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each use of a run's seed, so that no two uses share numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little")


def splitmix64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 in which every bit moves every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys_of_rows(seed: int, row_ids_B: np.ndarray) -> np.ndarray:
    """One uint64 key per row: a function of the seed and of the row's own id, of nothing else."""
    seed_key = splitmix64(np.array([(seed * 0xD1342543DE82EF95 + 1) & _MASK], np.uint64))
    return splitmix64(
        splitmix64(np.asarray(row_ids_B).astype(np.uint64) + np.uint64(_GOLDEN)) ^ seed_key
    )


def random_bits(keys_B: np.ndarray, count: int, stream: int) -> np.ndarray:
    """uint32 [B, count]; the numbers of one row are all different (every step is a bijection of the
    counter), so that comparing them orders the counters without ties.

    32 bits wide because this is the loader's hottest loop; the constants are those of the
    `lowbias32` family (Wellons, hash-prospector), and both halves of the row's key enter.
    """
    keys_B1 = splitmix64(keys_B ^ np.uint64(stream))[:, None]
    counters_C = (np.arange(count, dtype=np.uint64) * np.uint64(_GOLDEN & 0xFFFFFFFF)).astype(
        np.uint32
    )
    x_BC = counters_C + keys_B1.astype(np.uint32)
    scratch_BC = np.empty_like(x_BC)
    _fold(x_BC, 16, 0x21F0AAAD, scratch_BC)
    x_BC ^= (keys_B1 >> np.uint64(32)).astype(np.uint32)
    _fold(x_BC, 15, 0xD35A2D97, scratch_BC)
    x_BC ^= np.right_shift(x_BC, 15, out=scratch_BC)
    return x_BC


def _fold(x: np.ndarray, shift: int, factor: int, scratch: np.ndarray) -> None:
    x ^= np.right_shift(x, shift, out=scratch)
    x *= np.uint32(factor)


def integers_below(limit: int, seed: int, row_ids_B: np.ndarray) -> np.ndarray:
    """int64 [B] in [0, limit); the bias of the remainder is limit / 2**64."""
    return (keys_of_rows(seed, row_ids_B) % np.uint64(limit)).astype(np.int64)


class Permutation:
    """A keyed permutation of range(size) without a table: a Feistel network with cycle walking.

    A position is a pair of digits (x, y) with x < a and y < b, and each round adds to one digit a
    keyed function of the other (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002, section 5). a * b exceeds `size` by one part in sqrt(size) at most, so hardly any
    value lands outside and has to go through again.
    """

    _ROUNDS = 6

    def __init__(self, size: int, seed: int, epoch: int):
        assert size > 0, size
        self.size = size
        self._b = np.uint64(math.isqrt(size - 1) + 1)
        self._a = np.uint64(-(-size // int(self._b)))
        rounds = np.arange(self._ROUNDS, dtype=np.uint64)
        self._round_keys = splitmix64(keys_of_rows(seed, np.array([epoch])) + rounds)

    def __call__(self, index_B: np.ndarray) -> np.ndarray:
        """int64 positions in [0, size) -> int64 positions in [0, size)."""
        value_B = self._encipher(np.asarray(index_B).astype(np.uint64))
        outside_B = value_B >= np.uint64(self.size)
        while outside_B.any():
            value_B[outside_B] = self._encipher(value_B[outside_B])
            outside_B = value_B >= np.uint64(self.size)
        return value_B.astype(np.int64)

    def _encipher(self, value_B: np.ndarray) -> np.ndarray:
        x_B, y_B = np.divmod(value_B, self._b)
        for key_x, key_y in self._round_keys.reshape(-1, 2):
            x_B = (x_B + (splitmix64(y_B + key_x) >> np.uint64(32))) % self._a
            y_B = (y_B + (splitmix64(x_B + key_y) >> np.uint64(32))) % self._b
        return x_B * self._b + y_B
