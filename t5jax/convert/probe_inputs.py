"""Fixed inputs on which the logits of two implementations are compared, and at which positions."""

import dataclasses

import numpy as np

INPUTS_VERSION = 1  # of the inputs below, for which golden logits are stored
SOURCE_LENGTHS, TARGET_LENGTHS = (144, 57), (120, 23)  # beyond the last distance bucket
_POSITIONS = 6  # of each row at which logits are compared


@dataclasses.dataclass(frozen=True)
class ProbeInputs:
    """Two rows, the second one padded; ids from the whole vocabulary."""

    encoder_tokens: np.ndarray  # int32 [2, S], 0 is padding
    decoder_inputs: np.ndarray  # int32 [2, T], begins with 0
    target_lengths: np.ndarray  # int32 [2], without padding
    rows: np.ndarray  # int32 [R]: logits are compared at (row, position)
    positions: np.ndarray

    @classmethod
    def for_vocabulary(cls, vocab_size: int) -> "ProbeInputs":
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

    @property
    def decoder_mask(self) -> np.ndarray:
        """bool [2, T]: False at padding."""
        return np.arange(self.decoder_inputs.shape[1]) < self.target_lengths[:, None]


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
