"""Packing: which examples share a row, decided from their lengths alone.

A row holds examples as long as each feature's lengths sum to no more than its limit. What is
decided is two arrays of integers, so the packed data set is indexed like any other.

Shapes: N examples, F features, R rows; W windows of M examples that are packed side by side.
"""

import numpy as np

from t5jax.errors import DataError

_WINDOWS_AT_ONCE = 64  # their open rows fit a core's cache


def pack_examples(
    lengths_NF: np.ndarray, limits_F: np.ndarray, window: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """(order int64 [N], row_ends int64 [R]): row r holds the examples
    order[row_ends[r - 1] : row_ends[r]] (from 0 for the first), in their order.

    Best-fit decreasing in windows of `window` consecutive examples: the longest first, each into
    the fullest row that takes it. Lengths count as shares of their limits, summed over features.
    Raises DataError for an example that no row holds.
    """
    lengths_NF, limits_F = _checked(lengths_NF, limits_F)
    num_examples, num_features = lengths_NF.shape
    num_windows = -(-num_examples // window)
    rows_N = np.zeros(num_windows * window, np.int64)
    # The last window is filled up with examples of no tokens, which are dropped again below.
    padded_NF = np.zeros((num_windows * window, num_features), np.int64)
    padded_NF[:num_examples] = lengths_NF
    windows_WMF = padded_NF.reshape(num_windows, window, num_features)
    for first in range(0, num_windows, _WINDOWS_AT_ONCE):
        block = slice(first, first + _WINDOWS_AT_ONCE)
        rows_WM = _best_fit_windows(windows_WMF[block], limits_F)
        rows_WM += (np.arange(first, first + len(rows_WM)) * window)[:, None]
        rows_N[first * window : first * window + rows_WM.size] = rows_WM.ravel()
    rows_N = rows_N[:num_examples]
    order_N = np.argsort(rows_N, kind="stable")
    counts = np.bincount(rows_N) if num_examples else np.zeros(0, np.int64)
    return order_N, np.cumsum(counts[counts > 0], dtype=np.int64)


def _best_fit_windows(lengths_WMF: np.ndarray, limits_F: np.ndarray) -> np.ndarray:
    """int64 [W, M]: the row, counted from 0 in its window, of every example.

    All windows take a step at the same time: the next example of each, against its open rows.
    """
    num_windows, window, _ = lengths_WMF.shape
    lengths_FWM = np.moveaxis(lengths_WMF, 2, 0)
    weights_F = (1.0 / limits_F).astype(np.float32)
    shares_WM = np.tensordot(weights_F, lengths_FWM.astype(np.float32), axes=1)
    order_WM = np.argsort(-shares_WM, axis=1, kind="stable")
    sorted_FWM = np.take_along_axis(lengths_FWM, order_WM[None], axis=2).astype(np.int32)
    room_FWR = np.repeat(limits_F.astype(np.int32), num_windows * window)
    room_FWR = room_FWR.reshape(-1, num_windows, window)
    left_WR = np.full((num_windows, window), weights_F @ limits_F, np.float32)
    all_W = np.arange(num_windows)
    rows_WM = np.empty((num_windows, window), np.int64)
    opened = 0  # the largest number of rows in use in any window; the next one is always empty
    for step in range(window):
        need_FW = sorted_FWM[:, :, step]
        some = slice(0, opened + 1)
        fits_WR = (room_FWR[:, :, some] >= need_FW[:, :, None]).all(axis=0)
        # Of equally full rows the first; an empty row is the least full of all.
        row_W = np.where(fits_WR, left_WR[:, some], np.inf).argmin(axis=1)
        room_FWR[:, all_W, row_W] -= need_FW
        left_WR[all_W, row_W] -= weights_F @ need_FW
        opened = min(max(opened, int(row_W.max()) + 1), window - 1)
        rows_WM[all_W, order_WM[:, step]] = row_W
    return rows_WM


def _checked(lengths_NF: np.ndarray, limits_F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lengths_NF, limits_F = np.asarray(lengths_NF, np.int64), np.asarray(limits_F, np.int64)
    assert lengths_NF.ndim == 2, lengths_NF.shape
    assert limits_F.shape == lengths_NF.shape[1:], (lengths_NF.shape, limits_F.shape)
    assert (limits_F > 0).all(), limits_F
    long_NF = lengths_NF > limits_F
    if long_NF.any():
        example, feature = np.argwhere(long_NF)[0]
        raise DataError(
            f"example {example} has {lengths_NF[example, feature]} tokens of feature {feature}, a "
            f"row has {limits_F[feature]}: trim the examples before they are packed"
        )
    return lengths_NF, limits_F
