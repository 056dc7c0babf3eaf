"""Which row comes i-th: epoch after epoch, each in an order of its own."""

import functools

import numpy as np

from t5jax.data.rng import Permutation, derive_seed


class Order:
    """Row i belongs to epoch i // num_rows, whose keyed permutation says which one it is."""

    def __init__(self, num_rows: int, seed: int):
        self.num_rows = num_rows
        self._seed = derive_seed(seed, "order")

    def __call__(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, row in [0, num_rows)) of each id; int64."""
        epochs_B, positions_B = np.divmod(ids_B, self.num_rows)
        rows_B = np.empty_like(positions_B)
        for epoch in np.unique(epochs_B).tolist():
            here_B = epochs_B == epoch
            rows_B[here_B] = _permutation(self.num_rows, self._seed, epoch)(positions_B[here_B])
        return epochs_B, rows_B


@functools.lru_cache(maxsize=256)
def _permutation(num_rows: int, seed: int, epoch: int) -> Permutation:
    return Permutation(num_rows, seed, epoch)
