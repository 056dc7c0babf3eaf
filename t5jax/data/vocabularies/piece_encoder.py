"""Encoding and decoding with a SentencePiece model that got more pieces: sentinels, added tokens.

SentencePiece numbers pieces without gaps, a vocabulary may have them: sentinels and added tokens
are appended to the model, and the ids of those that stand elsewhere in the vocabulary are mapped.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import sentencepiece

from t5jax.data.vocabularies.added_tokens import AddedToken
from t5jax.data.vocabularies.base import sentinel_index
from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    has_dummy_prefix,
    keeps_spaces,
    read_pieces,
    with_more_pieces,
    with_pieces,
    without_dummy_prefix,
)
from t5jax.errors import DataError

# No character of a text: a piece that stands before one which is no beginning.
_BEFORE = "\U0010fffe"


class PieceEncoder:
    """A model's pieces, `sentinels` ({i: id}) and tokens of its `own`, with their ids.

    In texts with sentinels these are pieces that begin with the word mark, as seqio makes them: a
    sentinel takes the space before it, and what follows it is no beginning of a text. `own` tokens
    are decoded here; finding them is the caller's, before the model sees the text. `special` ({id:
    content}: padding, EOS) behind the model's pieces show nothing.
    """

    def __init__(
        self,
        model: bytes,
        path: str,
        unk_id: int,
        *,
        sentinels: Mapping[int, int],
        own: Sequence[AddedToken] = (),
        special: Mapping[int, str] | None = None,
    ):
        self._path, self._unk_id = path, unk_id
        in_file = sentinels_of(model)
        self._plain_bytes = _sentinels_as(PieceType.UNUSED, model) if in_file else model
        self._plain = processor_of(self._plain_bytes, path)
        size = self._plain.get_piece_size()
        behind = {number: f"▁<extra_id_{i}>" for i, number in sentinels.items() if i not in in_file}
        for index in in_file.keys() & sentinels.keys():
            if in_file[index] != sentinels[index]:
                raise DataError(
                    f"vocabulary {path!r}: <extra_id_{index}> is id {in_file[index]} of the model, "
                    f"and {sentinels[index]} beside it; the files are of two tokenizers"
                )
        coded = _sentinels_as(PieceType.USER_DEFINED, model) if in_file else model
        self._coded_bytes = with_more_pieces(coded, _user_defined(behind)) if behind else coded
        self._coded = processor_of(self._coded_bytes, path)
        names = behind | {token.id: token.content for token in own}
        self._shown, shown_ids = self._coded, sorted(behind)
        if own:
            self._shown, shown_ids = self._all_pieces(model, names, size)
        self._names = {**(special or {}), **names}
        self.vocab_size = max([size, *(number + 1 for number in self._names)])
        self._outside = _outside(size, sorted(behind))
        self._inside = np.full(self.vocab_size, unk_id, np.int64)
        self._inside[:size] = np.arange(size)
        for position, number in enumerate(shown_ids):
            self._inside[number] = size + position
        for number in special or ():
            if number >= size:
                self._inside[number] = -1
        self._text_begins_word = has_dummy_prefix(model)
        self._keeps_spaces = keeps_spaces(model)

    def _all_pieces(
        self, model: bytes, names: Mapping[int, str], size: int
    ) -> tuple[sentencepiece.SentencePieceProcessor, list[int]]:
        """(the model that shows every id, the ids of the pieces behind its own). An added token
        inside the table is a piece that shows nothing there (`<s>`); here it shows itself."""
        behind = {number: name for number, name in names.items() if number >= size}
        inside = {number: name for number, name in names.items() if number < size}
        if inside:
            pieces = read_pieces(model)
            for number, name in inside.items():
                pieces[number] = Piece(name, 0.0, PieceType.USER_DEFINED)
            model = with_pieces(model, pieces)
        if behind:
            model = with_more_pieces(model, _user_defined(behind))
        return processor_of(model, self._path), sorted(behind)

    def encode(self, text: str, *, sentinels: bool, as_beginning: bool) -> np.ndarray:
        """int32 ids of a text without tokens of its own."""
        start = text if self._keeps_spaces else text.lstrip()
        begins_with_sentinel = sentinels and start.startswith("<extra_id_")
        if begins_with_sentinel and not (as_beginning and self._text_begins_word):
            return self._encode_behind(f" {start}", sentinels)
        if not as_beginning:
            return self._encode_behind(text, sentinels)
        ids = (self._coded if sentinels else self._plain).encode_as_numpy(text)
        return ids if self._outside is None or not sentinels else self._outside[ids]

    def _encode_behind(self, text: str, sentinels: bool) -> np.ndarray:
        """As if something stood before the text, which is not shown."""
        processor = self._coded_behind if sentinels else self._plain_behind
        ids = processor.encode_as_numpy(_BEFORE + text)[1:]
        return ids if self._outside is None or not sentinels else self._outside[ids]

    @functools.cached_property
    def _plain_behind(self) -> sentencepiece.SentencePieceProcessor:
        return self._behind(self._plain_bytes)

    @functools.cached_property
    def _coded_behind(self) -> sentencepiece.SentencePieceProcessor:
        return self._behind(self._coded_bytes)

    def _behind(self, model: bytes) -> sentencepiece.SentencePieceProcessor:
        before = Piece(_BEFORE, 0.0, PieceType.USER_DEFINED)
        return processor_of(with_more_pieces(without_dummy_prefix(model), [before]), self._path)

    def decode(self, ids: np.ndarray) -> str:
        """The text of int64 ids; those that are none show as the unknown piece."""
        ids = np.where((ids < 0) | (ids >= self.vocab_size), self._unk_id, ids)
        inside = self._inside[ids]
        return self._shown.decode(inside[inside >= 0].tolist())

    def content(self, number: int) -> str:
        """The token of an id as the files write it."""
        name = self._names.get(number)
        return self._plain.id_to_piece(number) if name is None else name.removeprefix("▁")


def _user_defined(names: Mapping[int, str]) -> list[Piece]:
    return [Piece(names[number], 0.0, PieceType.USER_DEFINED) for number in sorted(names)]


def _outside(size: int, behind: Sequence[int]) -> np.ndarray | None:
    """int32: the vocabulary's id of each of the model's; None where they are the same."""
    found = np.array([*range(size), *behind], np.int32)
    return None if np.array_equal(found, np.arange(len(found))) else found


def processor_of(model: bytes, path: str) -> sentencepiece.SentencePieceProcessor:
    """The model, loaded. Raises DataError that names `path` when the bytes are none."""
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"vocabulary {path!r} is not a SentencePiece model: {error}") from error


def sentinels_of(model: bytes) -> dict[int, int]:
    """Sentinel -> id, of those that are pieces of the file."""
    if b"<extra_id_" not in model:
        return {}
    indices = map(sentinel_index, (piece.text for piece in read_pieces(model)))
    return {index: token for token, index in enumerate(indices) if index is not None}


def _sentinels_as(kind: PieceType, model: bytes) -> bytes:
    """The model whose sentinels are pieces of a type: USER_DEFINED are found wherever they stand (a
    control symbol is never found in a text, a piece with a low score is spelled by others), UNUSED
    are spelled in documents like any other text."""
    pieces = read_pieces(model)
    changed = [
        p if sentinel_index(p.text) is None else Piece(p.text, p.score, kind) for p in pieces
    ]
    return model if changed == pieces else with_pieces(model, changed)
