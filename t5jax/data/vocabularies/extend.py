"""Extending a vocabulary with more pieces, and the map from old ids to new ones.

The new pieces come after the old ones, so these keep their ids; the sentinels stay on top, so
theirs move up. `Extension` says where each new id comes from, and is saved beside the new file:
`model/resize_vocab.py` makes a model's new tables of it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from t5jax.data.atomic_files import write_file, write_json_file
from t5jax.data.vocabularies.base import UNK_ID, sentinel_index
from t5jax.data.vocabularies.files import is_local
from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    is_unigram,
    read_pieces,
    split_record,
    verbatim,
    with_more_pieces,
    with_pieces,
)
from t5jax.data.vocabularies.piece_encoder import processor_of
from t5jax.data.vocabularies.sentencepiece import SentencePieceVocabulary
from t5jax.data.vocabularies.train import TooManyPieces, train_unigram, training_lines
from t5jax.errors import ConfigError, DataError

_FORMAT = 1
_SUFFIX = ".extension.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Extension:
    """From an old vocabulary to a new one, sentinels included in the sizes.

    `spellings[k]` are the old ids by which the old vocabulary spelled the k-th new piece, whose id
    is `first_new + k`; empty where it could not.
    """

    old_fingerprint: str
    new_fingerprint: str
    old_size: int
    new_size: int
    first_new: int
    pieces: tuple[str, ...]
    spellings: tuple[tuple[int, ...], ...]

    @property
    def id_map(self) -> np.ndarray:
        """int32 [new_size]: the old id of each new id, -1 for a new piece."""
        ids, after = np.arange(self.new_size, dtype=np.int32), self.first_new + len(self.pieces)
        ids[after:] -= len(self.pieces)
        ids[self.first_new : after] = -1
        return ids

    def sources(self) -> list[Sequence[int]]:
        """Per new id the old ids whose mean row is a good beginning for its own.

        The id itself where it is old; the spelling of a new piece; all pieces (without padding,
        EOS, unknown and sentinels) where there is none.
        """
        every_piece = range(UNK_ID + 1, self.first_new)
        found: list[Sequence[int]] = [(old,) for old in self.id_map.tolist()]
        for k, spelling in enumerate(self.spellings):
            found[self.first_new + k] = spelling or every_piece
        return found

    def save(self, vocabulary_path: str) -> None:
        """Beside the new vocabulary's file."""
        record = {"format": _FORMAT, **dataclasses.asdict(self)}
        write_json_file(_record_path(vocabulary_path), record, shared=True)

    @classmethod
    def load(cls, vocabulary_path: str) -> "Extension":
        """The record beside a vocabulary's file. Raises DataError when there is none."""
        path = _record_path(vocabulary_path)
        try:
            record = json.loads(path.read_bytes())
            if record.pop("format") != _FORMAT:
                raise ValueError("another format")
            record["pieces"] = tuple(record["pieces"])
            record["spellings"] = tuple(map(tuple, record["spellings"]))
            return cls(**record)
        except FileNotFoundError as error:
            raise DataError(
                f"there is no {path}: {vocabulary_path} was not made by `t5jax vocab extend`, so "
                "it is not known which of its ids are those of another vocabulary"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}): extend the vocabulary again") from error


def _record_path(vocabulary_path: str) -> pathlib.Path:
    return pathlib.Path(f"{vocabulary_path}{_SUFFIX}")


def extend_vocabulary(
    old: SentencePieceVocabulary, pieces: Sequence[Piece], path: str
) -> tuple[SentencePieceVocabulary, Extension]:
    """Writes the old vocabulary with more pieces to `path`, and the Extension beside it.

    User-defined pieces are found wherever they stand in a text, and keep what normalisation would
    drop (a newline); pieces of type NORMAL compete by their score (see `learn_pieces`). Raises
    DataError for a piece that the vocabulary has already, that is empty or a sentinel, or that the
    new vocabulary would never produce; ConfigError when `path` exists.
    """
    if not is_local(path) or pathlib.Path(path).exists():
        raise ConfigError(f"{path} exists already, or is no file here; name a new file")
    if split_record(old.file_bytes())[1] is not None:
        raise DataError(
            f"vocabulary {old.path!r} has added tokens beside its model's pieces, whose ids would "
            "move: add the new tokens in the same way (with transformers' add_tokens)"
        )
    old_pieces = read_pieces(old.file_bytes())
    _check_pieces(pieces, old_pieces)
    first_new = len(old_pieces) - old.sentinels_in_file
    all_pieces = [*old_pieces[:first_new], *pieces, *old_pieces[first_new:]]
    model = with_pieces(old.file_bytes(), all_pieces)
    _check_produced(processor_of(model, path), pieces, first_new)
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, model, shared=True)
    new = SentencePieceVocabulary(path=path, extra_ids=old.extra_ids)
    speller = _Speller(old)
    extension = Extension(
        old_fingerprint=old.fingerprint,
        new_fingerprint=new.fingerprint,
        old_size=old.vocab_size,
        new_size=new.vocab_size,
        first_new=first_new,
        pieces=tuple(piece.text for piece in pieces),
        spellings=tuple(speller.known(piece.text) for piece in pieces),
    )
    extension.save(path)
    return new, extension


def _check_pieces(pieces: Sequence[Piece], old_pieces: Sequence[Piece]) -> None:
    if not pieces:
        raise DataError("there are no pieces to add")
    known = {piece.text for piece in old_pieces}
    for piece in pieces:
        if piece.text in known:
            raise DataError(f"piece {piece.text!r} is in the vocabulary already, or given twice")
        if not piece.text or sentinel_index(piece.text) is not None:
            raise DataError(f"piece {piece.text!r} cannot be added: it is empty or a sentinel")
        known.add(piece.text)


def _check_produced(
    processor: sentencepiece.SentencePieceProcessor, pieces: Sequence[Piece], first_new: int
) -> None:
    """A user-defined piece that no text can give (spaces that normalisation removes) is a row
    which is never trained."""
    for k, piece in enumerate(pieces):
        if piece.type != PieceType.USER_DEFINED:
            continue
        surface = piece.text.replace("▁", " ")
        if all(first_new + k not in processor.encode(f"{a}{surface}z") for a in ("", "a", "a ")):
            raise DataError(
                f"piece {piece.text!r} is never found in a text: the vocabulary's normalisation "
                "changes it (several spaces become one), or another piece is always taken; "
                "leave it out"
            )


class _Speller:
    """How a vocabulary spells a piece, without the word mark that it puts before a text."""

    def __init__(self, vocabulary: SentencePieceVocabulary):
        self._processor = processor_of(verbatim(vocabulary.file_bytes()), vocabulary.path)
        self._unk_id = vocabulary.unk_id

    def known(self, text: str) -> tuple[int, ...]:
        """Old ids of the text, without the unknown piece."""
        return tuple(token for token in self._processor.encode(text) if token != self._unk_id)


def learn_pieces(
    old: SentencePieceVocabulary,
    documents: Iterable[str],
    count: int,
    *,
    num_chars: int = 20_000_000,
    character_coverage: float = 0.9995,
    num_threads: int = 4,
) -> list[Piece]:
    """The `count` pieces that shorten a text most for a unigram vocabulary which lacks them.

    A unigram model is trained on the text, larger until it holds enough pieces that are not in the
    old vocabulary and are taken beside its pieces; those come first that save the most tokens. A
    piece's score is its logarithmic probability in that text, but not below the lowest old one,
    from which SentencePiece derives the score of the unknown. Deterministic for the same text and
    settings.
    Raises DataError when the text holds fewer, or the old vocabulary is no unigram model.
    """
    if count < 1:
        raise ConfigError(f"{count} new pieces: ask for at least 1")
    if not is_unigram(old.file_bytes()):
        raise DataError(
            f"vocabulary {old.path!r} is no unigram model, whose pieces have probabilities; give "
            "the pieces themselves"
        )
    lines = list(training_lines(documents, num_chars))
    size, most = 2 * count + 1000, None
    while True:
        size = min(size, most or size)
        try:
            model = train_unigram(
                lines,
                vocab_size=size,
                character_coverage=character_coverage,
                byte_fallback=False,
                num_threads=num_threads,
            )
        except TooManyPieces as error:
            size = most = error.most
            continue
        found = _most_saving(old, read_pieces(model), lines)
        if len(found) >= count:
            return found[:count]
        if size == most:
            raise DataError(
                f"the text supports {len(found)} new pieces, not {count}; ask for fewer or give "
                "more text"
            )
        size *= 2


def _most_saving(
    old: SentencePieceVocabulary, candidates: Iterable[Piece], lines: Iterable[str]
) -> list[Piece]:
    """Candidates that the old vocabulary lacks and that the text uses when it has them all, by the
    tokens that each saves."""
    old_pieces = read_pieces(old.file_bytes())
    known = {piece.text for piece in old_pieces}
    lowest = min(piece.score for piece in old_pieces if piece.type == PieceType.NORMAL)
    new = [
        Piece(piece.text, max(piece.score, lowest))
        for piece in candidates
        if piece.type == PieceType.NORMAL and piece.text not in known
    ]
    processor = processor_of(with_more_pieces(old.file_bytes(), new), old.path)
    uses = np.zeros(len(old_pieces) + len(new), np.int64)
    for line in lines:
        np.add.at(uses, processor.encode_as_numpy(line), 1)
    speller = _Speller(old)
    saved = {
        piece: int(count) * max(len(speller.known(piece.text)) - 1, 1)
        for piece, count in zip(new, uses[len(old_pieces) :], strict=True)
        if count
    }
    return sorted(saved, key=lambda piece: (-saved[piece], piece.text))
