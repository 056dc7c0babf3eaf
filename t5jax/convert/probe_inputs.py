"""Fixed inputs on which the logits of two implementations are compared, and at which positions."""

import dataclasses
from collections.abc import Sequence

import numpy as np

INPUTS_VERSION = 1  # of the inputs below, for which golden logits are stored
SOURCE_LENGTHS, TARGET_LENGTHS = (144, 57), (120, 23)  # beyond the last distance bucket
_POSITIONS = 6  # of each row at which logits are compared


@dataclasses.dataclass(frozen=True)
class ProbeInputs:
    """Rows of which some are padded, by their lengths: any id may be a token."""

    encoder_tokens: np.ndarray  # int32 [B, S]
    decoder_inputs: np.ndarray  # int32 [B, T], what the decoder reads, its start included
    target_lengths: np.ndarray  # int32 [B], without padding
    rows: np.ndarray  # int32 [R]: logits are compared at (row, position)
    positions: np.ndarray
    source_lengths: np.ndarray | None = None  # int32 [B], without padding; None: 0 is padding

    @classmethod
    def for_vocabulary(cls, vocab_size: int) -> "ProbeInputs":
        """Two rows, the second one padded; ids from the whole vocabulary."""
        encoder = _tokens(SOURCE_LENGTHS, vocab_size, 0)
        targets = _tokens(TARGET_LENGTHS, vocab_size, 7919)
        decoder = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
        compared = [
            (row, int(position))
            for row, length in enumerate(TARGET_LENGTHS)
            for position in np.linspace(0, length - 1, _POSITIONS)
        ]
        rows, positions = np.array(compared, np.int32).T
        return cls(encoder, decoder, np.array(TARGET_LENGTHS, np.int32), rows, positions)

    @classmethod
    def of_outputs(
        cls, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], start_id: int
    ) -> "ProbeInputs":
        """Inputs, and outputs that are read behind the start; compared is every position that
        predicts a token of an output."""
        lengths = np.array([len(ids) for ids in outputs], np.int32)
        shifted = [[start_id, *ids[:-1]] for ids in outputs]
        rows = np.repeat(np.arange(len(outputs)), lengths)
        positions = np.concatenate([np.arange(length) for length in lengths])
        source_lengths = np.array([len(ids) for ids in inputs], np.int32)
        return cls(_padded(inputs), _padded(shifted), lengths, rows, positions, source_lengths)

    @property
    def encoder_mask(self) -> np.ndarray:
        """bool [B, S]: False at padding."""
        if self.source_lengths is None:
            return self.encoder_tokens > 0
        return np.arange(self.encoder_tokens.shape[1]) < self.source_lengths[:, None]

    @property
    def decoder_mask(self) -> np.ndarray:
        """bool [B, T]: False at padding."""
        return np.arange(self.decoder_inputs.shape[1]) < self.target_lengths[:, None]


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    padded = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def _tokens(lengths: tuple[int, ...], vocab_size: int, start: int) -> np.ndarray:
    """Ids in golden-section steps through the vocabulary, few of them neighbours; 1 ends a row."""
    usable = vocab_size - 3
    stride = max(1, int(usable * 0.6180339887498949)) | 1
    tokens = np.zeros((len(lengths), max(lengths)), np.int32)
    for row, length in enumerate(lengths):
        order = np.arange(length, dtype=np.int64) + start + 1000 * row
        tokens[row, :length] = 3 + order * stride % usable
        tokens[row, length - 1] = 1
    return tokens
