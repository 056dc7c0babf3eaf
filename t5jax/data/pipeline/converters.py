"""Converters: from the features of a task to the batch of a model.

The keys and values are those of seqio's feature converters of the same names. A row with several
examples has their numbers (segments: 1, 2, ... and 0 for padding) and the places of their tokens in
them (positions: 0, 1, ...); the decoder's inputs then begin anew with the start id in every
segment.

Shapes: B rows, S tokens of inputs, T of targets, D of inputs and targets one behind the other.
Everything is int32, tokens padded with the vocabulary's pad id, the rest with 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from t5jax.data.registry.row_format import RowFormat
from t5jax.errors import ConfigError
from t5jax.types import PAD_ID, Batch

Shapes = dict[str, tuple[int, ...]]


class SpecialIds(NamedTuple):
    """What pads a row and is no token in it, and what a decoder reads first."""

    pad: int = PAD_ID
    start: int = PAD_ID


_T5_IDS = SpecialIds()


class Features(NamedTuple):
    """Rows of a task: tokens [B, S] and [B, T], EOS included, and where rows are packed what
    belongs together. Segments and positions are given for both sides or for none; a task without
    inputs has S = 0."""

    inputs: np.ndarray
    targets: np.ndarray
    inputs_segments: np.ndarray | None = None
    targets_segments: np.ndarray | None = None
    inputs_positions: np.ndarray | None = None
    targets_positions: np.ndarray | None = None


def encoder_decoder(features: Features, *, ids: SpecialIds = _T5_IDS) -> Batch:
    """Inputs to the encoder, targets to the decoder; every target weighs 1."""
    batch = {"encoder_input_tokens": features.inputs, **_decoder(features, ids)}
    if features.inputs_segments is not None and features.inputs_positions is not None:
        batch["encoder_segment_ids"] = features.inputs_segments
        batch["encoder_positions"] = features.inputs_positions
    return batch


def lm(features: Features, *, ids: SpecialIds = _T5_IDS) -> Batch:
    """The targets alone, to a decoder; inputs are left out."""
    return _decoder(features, ids)


def prefix_lm(
    features: Features,
    *,
    loss_on_targets_only: bool = True,
    length: int | None = None,
    ids: SpecialIds = _T5_IDS,
) -> Batch:
    """Inputs and targets one behind the other, [B, D], example by example.

    `decoder_causal_attention` is 1 where the decoder reads the inputs, and once more where it reads
    their last token and predicts the first target. D is `length`, or S + T; raises ConfigError when
    a row is longer.
    """
    both = features.inputs.shape[1] + features.targets.shape[1]
    joined, inputs_counts_BD = _joined(features, both if length is None else length, ids.pad)
    batch = _decoder(joined, ids)
    if joined.targets_positions is None:
        positions_BD = np.arange(joined.targets.shape[1])
        filled_BD = True  # seqio's unpacked rows have the 1 even where there is no example at all
    else:
        positions_BD, filled_BD = joined.targets_positions, joined.targets != ids.pad
    batch["decoder_causal_attention"] = ((positions_BD <= inputs_counts_BD) & filled_BD).astype(
        np.int32
    )
    if loss_on_targets_only:
        batch["decoder_loss_weights"] *= positions_BD >= inputs_counts_BD
    return batch


def encoder(features: Features, *, mask_id: int, ids: SpecialIds = _T5_IDS) -> Batch:
    """Aligned inputs and targets to an encoder (BERT): the loss is on the tokens that are
    `mask_id` in the inputs. Raises ConfigError when inputs and targets differ in length."""
    del ids  # the loss is where the mask is
    if features.inputs.shape != features.targets.shape:
        raise ConfigError(
            f"inputs_length={features.inputs.shape[1]}, targets_length="
            f"{features.targets.shape[1]}: an encoder's inputs and targets are aligned, so set the "
            "same length"
        )
    batch = {
        "encoder_input_tokens": features.inputs,
        "encoder_target_tokens": features.targets,
        "encoder_loss_weights": (features.inputs == mask_id).astype(np.int32),
    }
    if features.inputs_segments is not None and features.inputs_positions is not None:
        batch["encoder_segment_ids"] = features.inputs_segments
        batch["encoder_positions"] = features.inputs_positions
    return batch


def _decoder(features: Features, ids: SpecialIds) -> Batch:
    targets_BT, segments_BT = features.targets, features.targets_segments
    shifted_BT = np.full_like(targets_BT, ids.start)
    shifted_BT[:, 1:] = targets_BT[:, :-1]
    if segments_BT is not None:
        shifted_BT[:, 1:][segments_BT[:, 1:] != segments_BT[:, :-1]] = ids.start
        shifted_BT[segments_BT == 0] = ids.pad
    batch = {
        "decoder_target_tokens": targets_BT,
        "decoder_input_tokens": shifted_BT,
        "decoder_loss_weights": (targets_BT != ids.pad).astype(np.int32),
    }
    if segments_BT is not None and features.targets_positions is not None:
        batch["decoder_segment_ids"] = segments_BT
        batch["decoder_positions"] = features.targets_positions
    return batch


def _joined(features: Features, length: int, pad_id: int) -> tuple[Features, np.ndarray]:
    """(the examples, inputs and targets of each behind each other, as targets [B, D]; and for each
    of their tokens the number of its example's inputs, [B, D], or [B, 1] where unpacked).

    A stable sort of a row's tokens by example, inputs before targets, puts them in place.
    """
    tokens_BW = np.concatenate([features.inputs, features.targets], axis=1)
    if features.inputs_segments is None or features.targets_segments is None:
        inputs_segments_BS = _up_to_last_token(features.inputs, pad_id)
        targets_segments_BT = _up_to_last_token(features.targets, pad_id)
    else:
        inputs_segments_BS = features.inputs_segments
        targets_segments_BT = features.targets_segments
    segments_BW = np.concatenate([inputs_segments_BS, targets_segments_BT], axis=1)
    is_target_W = np.arange(segments_BW.shape[1]) >= features.inputs.shape[1]
    keys_BW = np.where(segments_BW > 0, 2 * segments_BW + is_target_W, np.iinfo(np.int16).max)
    order_BD = np.argsort(keys_BW.astype(np.int16), axis=1, kind="stable")
    _check_fits(segments_BW, length)
    order_BD = order_BD[:, : min(length, order_BD.shape[1])]
    tokens_BD = _padded(np.take_along_axis(tokens_BW, order_BD, axis=1), length, pad_id)
    segments_BD = _padded(np.take_along_axis(segments_BW, order_BD, axis=1), length, 0)
    if features.targets_segments is None:
        counts_B1 = inputs_segments_BS.sum(axis=1, keepdims=True)
        return Features(inputs=features.inputs[:, :0], targets=tokens_BD), counts_B1
    joined = Features(
        inputs=features.inputs[:, :0],
        targets=tokens_BD,
        targets_segments=segments_BD,
        targets_positions=_positions(segments_BD),
    )
    return joined, _counts_by_segment(inputs_segments_BS, segments_BD)


def _up_to_last_token(tokens_BT: np.ndarray, pad_id: int) -> np.ndarray:
    """int32 [B, T]: 1 up to each row's last token, 0 behind it."""
    return (np.cumsum((tokens_BT != pad_id)[:, ::-1], axis=1)[:, ::-1] > 0).astype(np.int32)


def _check_fits(segments_BW: np.ndarray, length: int) -> None:
    longest = int((segments_BW > 0).sum(axis=1).max(initial=0))
    if longest > length:
        raise ConfigError(
            f"length={length}: a row has {longest} tokens of inputs and targets together; pack to "
            "their joint length"
        )


def _padded(rows_BW: np.ndarray, length: int, pad_id: int) -> np.ndarray:
    out_BD = np.full((len(rows_BW), length), pad_id, np.int32)
    out_BD[:, : rows_BW.shape[1]] = rows_BW
    return out_BD


def _positions(segments_BD: np.ndarray) -> np.ndarray:
    """int32 [B, D]: how many tokens before it in the row are of the same segment; 0 in padding."""
    places_D = np.arange(segments_BD.shape[1])
    begins_BD = np.ones_like(segments_BD, bool)
    begins_BD[:, 1:] = segments_BD[:, 1:] != segments_BD[:, :-1]
    first_BD = np.maximum.accumulate(np.where(begins_BD, places_D, 0), axis=1)
    return np.where(segments_BD > 0, places_D - first_BD, 0).astype(np.int32)


def _counts_by_segment(inputs_segments_BS: np.ndarray, segments_BD: np.ndarray) -> np.ndarray:
    """int64 [B, D]: for each token, how many inputs its segment has; 0 in padding."""
    num_rows, most = len(segments_BD), int(segments_BD.max(initial=0)) + 1
    rows_B1 = np.arange(num_rows)[:, None] * most
    counts = np.bincount((rows_B1 + inputs_segments_BS).ravel(), minlength=num_rows * most)
    counts_BM = counts.reshape(num_rows, most)
    counts_BM[:, 0] = 0
    return np.take_along_axis(counts_BM, segments_BD.astype(np.int64), axis=1)


_CONVERTERS: dict[str, Callable[..., Batch]] = {
    "encoder_decoder": encoder_decoder,
    "lm": lm,
    "prefix_lm": prefix_lm,
    "encoder": encoder,
}
_DECODER_KEYS = ("target_tokens", "input_tokens", "loss_weights")
# Keys of a batch by side, without segment ids and positions.
_ENCODER_KEYS_OF = {
    "encoder_decoder": ("input_tokens",),
    "encoder": ("target_tokens", "input_tokens", "loss_weights"),
}
_DECODER_KEYS_OF = {
    "encoder_decoder": _DECODER_KEYS,
    "lm": _DECODER_KEYS,
    "prefix_lm": (*_DECODER_KEYS, "causal_attention"),
}


def convert(features: Features, row_format: RowFormat) -> Batch:
    """The batch of the row format's converter. Raises ConfigError as the converters do."""
    joined = row_format.joined_length
    length = {} if joined is None else {"length": joined}
    ids = SpecialIds(row_format.pad_id, row_format.start_id)
    return _CONVERTERS[row_format.converter](features, ids=ids, **row_format.settings, **length)


def batch_shapes(row_format: RowFormat, *, packed: bool) -> Shapes:
    """The shape of every array of a batch, without its first dimension, the rows."""
    encoder_length, decoder_length = row_format.lengths
    shapes: Shapes = {}
    for side, keys_of, length in (
        ("encoder", _ENCODER_KEYS_OF, encoder_length),
        ("decoder", _DECODER_KEYS_OF, decoder_length),
    ):
        keys = keys_of.get(row_format.converter, ())
        ids = ("segment_ids", "positions") if keys and packed else ()
        shapes |= {f"{side}_{key}": (length,) for key in (*keys, *ids)}
    return shapes
