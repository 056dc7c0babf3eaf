"""SentencePiece models as T5 uses them: the file's pieces, and sentinels on top."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import sentencepiece

from t5jax.data.vocabularies.base import (
    DEFAULT_SENTINELS,
    SENTINEL,
    UNK_ID,
    Vocabulary,
    check_sentinels_on_top,
    separate_sentinels,
    without_lone_surrogates,
)
from t5jax.data.vocabularies.files import PUBLISHED, local_file
from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    read_pieces,
    with_more_pieces,
    with_pieces,
)
from t5jax.errors import ConfigError, DataError
from t5jax.home import expand_home
from t5jax.types import EOS_ID, PAD_ID

_HOW_TO_TRAIN = (
    "train one with `t5jax cache CONFIG --new-vocabulary PIECES` (or `t5jax vocab train`), or with "
    "spm_train "
    "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1"
)


@dataclasses.dataclass(kw_only=True, slots=True)
class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model with `extra_ids` sentinels on top (T5's file: 32000 + 100 ids).

    `path` is a local file, a URL that fsspec reads (`gs://…`), or the name of a published file:
    t5, mt5, umt5 (see `files.local_file`). A file that holds its sentinels, as mT5's does, needs
    extra_ids=0. The file is read when it is first needed. Raises DataError when it is missing,
    damaged, or when it puts padding, EOS, unknown or sentinels anywhere else than T5 does.
    """

    kind: ClassVar[str] = "sentencepiece"
    file_name: ClassVar[str] = "vocabulary.model"

    path: str
    extra_ids: int = DEFAULT_SENTINELS

    def __post_init__(self) -> None:
        self.path = expand_home(self.path)

    @property
    def vocab_size(self) -> int:
        return self._model().vocab_size

    @property
    def fingerprint(self) -> str:
        return self._model().fingerprint

    @property
    def num_sentinels(self) -> int:
        """Those on top of the file, those in it, or without any the top 100 of its pieces."""
        return self.extra_ids or self._model().sentinels_in_file or DEFAULT_SENTINELS

    @property
    def sentinels_in_file(self) -> int:
        """How many sentinels are pieces of the file itself (mT5's: 100)."""
        return self._model().sentinels_in_file

    def file_bytes(self) -> bytes:
        return self._model().file_bytes

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        model = self._model()
        processor = model.plain
        if sentinels and "<extra_id_" in text:
            text, processor = separate_sentinels(text), model.with_sentinels
        try:
            return processor.encode_as_numpy(text)
        except RuntimeError:
            repaired = without_lone_surrogates(text)
            if repaired == text:
                raise
            return processor.encode_as_numpy(repaired)

    def decode(self, ids: Iterable[int]) -> str:
        model = self._model()
        ids = np.asarray(ids, np.int64)
        ids = np.where((ids < 0) | (ids >= model.vocab_size), UNK_ID, ids)
        return model.with_sentinels.decode(ids[ids != PAD_ID].tolist())

    def _model(self) -> "_SentencePieceModel":
        if self.path in PUBLISHED and self.extra_ids != PUBLISHED[self.path].extra_ids:
            raise ConfigError(
                f"data.vocabulary.extra_ids = {self.extra_ids}: {self.path}'s models have "
                f"{PUBLISHED[self.path].extra_ids} on top of the file; set that, or write "
                f"named_vocabulary({self.path!r})"
            )
        local = local_file(self.path)
        try:
            stat = os.stat(local)
        except OSError as error:
            raise DataError(
                f"vocabulary {self.path!r} cannot be read from {os.getcwd()} ({error.strerror}); "
                "give the path of a SentencePiece model whose pad is 0, eos 1 and unk 2 (of a run "
                "that is trained, its own: --data.vocabulary.path), or for a new run "
                f"{_HOW_TO_TRAIN}"
            ) from error
        return _load_model(local, self.extra_ids, stat.st_mtime_ns, stat.st_size)


@dataclasses.dataclass(frozen=True, slots=True)
class _SentencePieceModel:
    file_bytes: bytes
    plain: sentencepiece.SentencePieceProcessor
    with_sentinels: sentencepiece.SentencePieceProcessor
    vocab_size: int
    sentinels_in_file: int
    fingerprint: str


# The modification time and size are part of the key: a model that was trained again is read again.
@functools.lru_cache(maxsize=8)
def _load_model(path: str, extra_ids: int, mtime_ns: int, size: int) -> _SentencePieceModel:
    if size == 0 or not os.path.isfile(path):
        raise DataError(f"vocabulary {path!r} is empty or not a file")
    file_bytes = pathlib.Path(path).read_bytes()
    plain = processor_of(file_bytes, path)
    found = (plain.pad_id(), plain.eos_id(), plain.unk_id())
    if found != (PAD_ID, EOS_ID, UNK_ID):
        raise DataError(
            f"vocabulary {path!r} has (pad, eos, unk) = {found}, T5 needs (0, 1, 2); "
            + _HOW_TO_TRAIN
        )
    in_file = _sentinels_of(file_bytes)
    if in_file and extra_ids:
        raise DataError(
            f"vocabulary {path!r} refuses {extra_ids} sentinels on top: {len(in_file)} are in the "
            "file already; set extra_ids=0"
        )
    if in_file:
        check_sentinels_on_top(in_file, plain.get_piece_size(), path)
        with_sentinels, plain = plain, processor_of(_sentinels_unused(file_bytes), path)
    else:
        on_top = [Piece(f"▁<extra_id_{i}>", 0.0, PieceType.USER_DEFINED) for i in range(extra_ids)]
        with_sentinels = processor_of(with_more_pieces(file_bytes, reversed(on_top)), path)
    return _SentencePieceModel(
        file_bytes=file_bytes,
        plain=plain,
        with_sentinels=with_sentinels,
        vocab_size=with_sentinels.get_piece_size(),
        sentinels_in_file=len(in_file),
        fingerprint=hashlib.sha256(file_bytes + f"extra_ids:{extra_ids}".encode()).hexdigest(),
    )


def processor_of(model: bytes, path: str) -> sentencepiece.SentencePieceProcessor:
    """The model, loaded. Raises DataError that names `path` when the bytes are none."""
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"vocabulary {path!r} is not a SentencePiece model: {error}") from error


def sentinel_index(piece: str) -> int | None:
    """i if the piece is sentinel i, with or without the word mark in front."""
    found = SENTINEL.fullmatch(piece.removeprefix("▁"))
    return int(found[1]) if found else None


def _sentinels_of(model: bytes) -> dict[int, int]:
    """Sentinel -> id, of those that are pieces of the file."""
    if b"<extra_id_" not in model:
        return {}
    indices = map(sentinel_index, (piece.text for piece in read_pieces(model)))
    return {index: token for token, index in enumerate(indices) if index is not None}


def _sentinels_unused(model: bytes) -> bytes:
    """Spells `<extra_id_0>` in documents like any other text."""
    pieces = read_pieces(model)
    return with_pieces(
        model,
        [
            p if sentinel_index(p.text) is None else Piece(p.text, p.score, PieceType.UNUSED)
            for p in pieces
        ],
    )
