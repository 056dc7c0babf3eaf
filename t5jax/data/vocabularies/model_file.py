"""The pieces of a SentencePiece model, and models with others.

The file is a protobuf message, ModelProto, whose classes come with `sentencepiece`.
"""

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

from t5jax.errors import DataError


class PieceType(enum.IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4  # found wherever it stands, before everything else
    UNUSED = 5  # keeps its id, is never found
    BYTE = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float = 0.0
    type: int = PieceType.NORMAL


def read_pieces(model: bytes) -> list[Piece]:
    """The pieces in the order of their ids. Raises DataError when the bytes are no such message."""
    pieces = [Piece(piece.piece, piece.score, piece.type) for piece in _parsed(model).pieces]
    for piece in pieces:
        if not isinstance(piece.text, str):  # protobuf gives the bytes of a string that is none
            raise DataError(f"not a SentencePiece model: piece {piece.text!r} is not UTF-8")
    return pieces


def with_pieces(model: bytes, pieces: Iterable[Piece]) -> bytes:
    """The model with these pieces in place of its own."""
    proto = _parsed(model)
    del proto.pieces[:]
    proto.MergeFrom(_of_pieces(pieces))
    return proto.SerializeToString()


def with_more_pieces(model: bytes, pieces: Iterable[Piece]) -> bytes:
    """The model with these pieces after its own: appending bytes of a repeated field appends."""
    return model + _of_pieces(pieces).SerializeToString()


def verbatim(model: bytes) -> bytes:
    """The model without dummy prefix and without removal of spaces: it spells pieces, not texts."""
    proto = _parsed(model)
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    return proto.SerializeToString()


def without_dummy_prefix(model: bytes) -> bytes:
    """The model without the space that it puts before a text."""
    proto = _parsed(model)
    proto.normalizer_spec.add_dummy_prefix = False
    return proto.SerializeToString()


def has_dummy_prefix(model: bytes) -> bool:
    """Whether a text's first word is spelled like those behind a space (T5's are)."""
    return bool(_parsed(model).normalizer_spec.add_dummy_prefix)


def charsmap_of(model: bytes) -> bytes:
    """The rules by which characters are replaced; empty where none is."""
    return bytes(_parsed(model).normalizer_spec.precompiled_charsmap)


def keeps_spaces(model: bytes) -> bool:
    """Whether every space of a text is spelled (Llama's), not only one between words (T5's)."""
    return not _parsed(model).normalizer_spec.remove_extra_whitespaces


def with_record(model: bytes, record: bytes) -> bytes:
    """The model with a record of t5jax behind its message, in a field that SentencePiece leaves to
    others and reads over: the file stays a model for every program."""
    payload = _MARKER + record
    return model + _FIELD + _varint(len(payload)) + payload


def split_record(model: bytes) -> tuple[bytes, bytes | None]:
    """(model, record) of `with_record`; None where the file has none."""
    start = model.rfind(_MARKER)
    header = _FIELD + _varint(len(model) - start)
    if start < 0 or not model[:start].endswith(header):
        return model, None
    return model[: start - len(header)], model[start + len(_MARKER) :]


_MARKER = b"t5jax added tokens:"


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number % 128 + 128)
        number //= 128
    return bytes([*found, number])


_FIELD = _varint((1015 << 3) | 2)  # ModelProto's extensions are 200 and above; 2: bytes


def is_unigram(model: bytes) -> bool:
    """Whether pieces compete by score (the default), not by merges or as words."""
    trainer = _parsed(model).trainer_spec
    return trainer.model_type == trainer.UNIGRAM


def _model_proto() -> Any:
    """The message class; imported here because the processes that tokenise start faster without."""
    from sentencepiece import sentencepiece_model_pb2

    # The module makes its classes when it is imported, so that pyright knows none of them.
    return sentencepiece_model_pb2.ModelProto  # pyright: ignore[reportAttributeAccessIssue]


def _parsed(model: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return _model_proto().FromString(model)
    except DecodeError as error:
        raise DataError(f"not a SentencePiece model, or cut short: {error}") from error


def _of_pieces(pieces: Iterable[Piece]) -> Any:
    proto = _model_proto()()
    for piece in pieces:
        message = proto.pieces.add(piece=piece.text, score=piece.score)
        if piece.type != PieceType.NORMAL:  # the default, which SentencePiece leaves out
            message.type = piece.type
    return proto
