"""The bytes of a SentencePiece model: its pieces, one by one, and a model with others.

The file is a protobuf message, ModelProto (sentencepiece_model.proto): field 1, repeated, holds the
pieces, each with its text (1), score (2, float) and type (3, enum). Read and written here without
the protobuf runtime, whose version need not agree with sentencepiece's. What is not a piece is kept
byte for byte.
"""

import dataclasses
import enum
import struct
from collections.abc import Iterable, Iterator

from t5jax.errors import DataError

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPE, _UNIGRAM = 3, 1  # in the trainer's settings
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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
    return [_piece(value) for number, value, _ in _fields(model) if number == _PIECES]


def with_pieces(model: bytes, pieces: Iterable[Piece]) -> bytes:
    """The model with these pieces in place of its own."""
    rest = b"".join(raw for number, _, raw in _fields(model) if number != _PIECES)
    return b"".join(map(_encode, pieces)) + rest


def with_more_pieces(model: bytes, pieces: Iterable[Piece]) -> bytes:
    """The model with these pieces after its own: appending bytes of a repeated field appends."""
    return model + b"".join(map(_encode, pieces))


def verbatim(model: bytes) -> bytes:
    """The model without dummy prefix and without removal of spaces: it spells pieces, not texts.

    A second copy of an embedded message is merged into the first (protobuf's rule), so appending
    the two settings (fields 3 and 4 of the normalizer's) changes them.
    """
    return model + _field(_NORMALIZER, b"\x18\x00\x20\x00")


def is_unigram(model: bytes) -> bool:
    """Whether pieces compete by score (the default), not by merges or as words."""
    model_type = _UNIGRAM
    for number, trainer, _ in _fields(model):
        if number == _TRAINER:
            for inner, value, _ in _fields(trainer):
                model_type = _to_int(value) if inner == _MODEL_TYPE else model_type
    return model_type == _UNIGRAM


def _piece(message: bytes) -> Piece:
    text, score, kind = "", 0.0, int(PieceType.NORMAL)
    for number, value, _ in _fields(message):
        if number == 1:
            text = value.decode()
        elif number == 2:
            (score,) = struct.unpack("<f", value)
        elif number == 3:
            kind = _to_int(value)
    return Piece(text, score, kind)


def _encode(piece: Piece) -> bytes:
    body = _field(1, piece.text.encode()) + b"\x15" + struct.pack("<f", piece.score)
    if piece.type != PieceType.NORMAL:  # the default, which SentencePiece leaves out
        body += b"\x18" + _varint(piece.type)
    return _field(_PIECES, body)


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, value, the whole field) of each field; a varint's value is its bytes."""
    position = 0
    while position < len(message):
        tag_end = _varint_end(message, position)
        tag = _to_int(message[position:tag_end])
        kind = tag & 7
        if kind == _VARINT:
            start, end = tag_end, _varint_end(message, tag_end)
        elif kind == _BYTES:
            start = _varint_end(message, tag_end)
            end = start + _to_int(message[tag_end:start])
        elif kind in (_FIXED32, _FIXED64):
            start, end = tag_end, tag_end + (4 if kind == _FIXED32 else 8)
        else:
            raise DataError(f"not a SentencePiece model: wire type {kind} at byte {position}")
        if end > len(message):
            raise DataError(f"not a SentencePiece model: cut short at byte {position}")
        yield tag >> 3, message[start:end], message[position:end]
        position = end


def _varint_end(message: bytes, position: int) -> int:
    while position < len(message) and message[position] & 0x80:
        position += 1
    if position >= len(message):
        raise DataError("not a SentencePiece model: cut short within a number")
    return position + 1


def _to_int(varint: bytes) -> int:
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(varint))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
