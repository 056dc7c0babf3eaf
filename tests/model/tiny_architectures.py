"""Every architecture small enough to compile in a second, and rows of examples for it."""

import functools

import numpy as np

from t5jax.data.pipeline.converters import Features, encoder, encoder_decoder, prefix_lm
from t5jax.model.config import Architecture, T5Config
from t5jax.types import EOS_ID
from tests.model import tiny_t5

MASK_ID = 52
CONVERTER = {
    "encoder_decoder": "encoder_decoder",
    "shared_encoder_decoder": "encoder_decoder",
    "decoder_only": "prefix_lm",
    "prefix_lm": "prefix_lm",
    "encoder_only": "encoder",
}
# Tied and untied logits, plain and gated MLPs, one bias and one of every layer.
VARIANTS = {
    "shared_encoder_decoder": "1.0",
    "decoder_only": "1.1",
    "prefix_lm": "umT5",
    "encoder_only": "1.0",
}
PACKED_ROWS = [[(5, 3), (4, 6), (3, 2)], [(7, 4), (6, 5)], [(11, 6)]]
WIDTH = 23  # of inputs and of targets; no row is full


def config(architecture: Architecture, variant: str | None = None, **changes) -> T5Config:
    """Two layers in the decoder, three in an encoder of its own."""
    layers = {
        "shared_encoder_decoder": {"num_encoder_layers": 2},
        "decoder_only": {"num_encoder_layers": 0},
        "prefix_lm": {"num_encoder_layers": 0},
        "encoder_only": {"num_decoder_layers": 0},
    }.get(architecture, {})
    variant = variant or VARIANTS.get(architecture, "1.1")
    return tiny_t5.config(variant, architecture=architecture, **{**layers, **changes})


def examples(architecture: Architecture, rows, seed: int = 2):
    """(inputs, targets) of every example of every row, whose lengths are given; a text with tokens
    masked, and the text, where that is what is read."""
    rng = np.random.default_rng(seed)

    def tokens(length):
        return np.append(rng.integers(3, MASK_ID, length - 1), EOS_ID).astype(np.int32)

    def example(inputs, targets):
        if architecture != "encoder_only":
            return tokens(inputs), tokens(targets)
        text = tokens(inputs)
        hidden = np.append(rng.random(inputs - 1) < 0.4, False)
        hidden[0] = True
        return np.where(hidden, MASK_ID, text), text

    return [[example(*lengths) for lengths in row] for row in rows]


def features(rows, *, packed: bool) -> Features:
    """Examples written into rows token by token."""
    arrays = np.zeros((2, 3, len(rows), WIDTH), np.int32)
    for row, of_row in enumerate(rows):
        ends = [0, 0]
        for number, example in enumerate(of_row, 1):
            for side, ids in enumerate(example):
                where = slice(ends[side], ends[side] + len(ids))
                arrays[side, :, row, where] = [ids, [number] * len(ids), range(len(ids))]
                ends[side] += len(ids)
    tokens = [arrays[side, 0] for side in (0, 1)]
    if not packed:
        return Features(*tokens)
    others = [arrays[side, what] for what in (1, 2) for side in (0, 1)]
    return Features(*tokens, *others)


def batch_of(architecture: Architecture, rows, *, packed: bool) -> dict[str, np.ndarray]:
    """What the architecture's converter makes of rows of examples."""
    convert = {
        "encoder_decoder": encoder_decoder,
        "prefix_lm": prefix_lm,
        "encoder": functools.partial(encoder, mask_id=MASK_ID),
    }[CONVERTER[architecture]]
    return convert(features(rows, packed=packed))
