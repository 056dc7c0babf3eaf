"""SentencePiece models as T5 uses them: the file's pieces, sentinels, and added tokens."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable
from stat import S_ISDIR
from typing import ClassVar

import numpy as np

from t5jax.data.vocabularies.added_tokens import AddedToken, Additions, Splitter
from t5jax.data.vocabularies.base import (
    DEFAULT_SENTINELS,
    check_round_trips,
    check_special_ids,
    sentinel_table,
    separate_sentinels,
    without_lone_surrogates,
)
from t5jax.data.vocabularies.file_vocabulary import FileVocabulary
from t5jax.data.vocabularies.files import PUBLISHED, is_local, local_file
from t5jax.data.vocabularies.model_file import split_record, with_record
from t5jax.data.vocabularies.piece_encoder import PieceEncoder, processor_of, sentinels_of
from t5jax.data.vocabularies.sentencepiece_directory import (
    additions_beside,
    model_file_in,
    special_ids_of,
)
from t5jax.data.vocabularies.tokenizer_settings import stamps
from t5jax.errors import ConfigError, DataError

_HOW_TO_TRAIN = (
    "train one with `t5jax cache CONFIG --new-vocabulary PIECES` (or `t5jax vocab train`), or with "
    "spm_train "
    "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1"
)


@dataclasses.dataclass(kw_only=True, slots=True)
class SentencePieceVocabulary(FileVocabulary):
    """A SentencePiece model with `extra_ids` sentinels on top (T5's file: 32000 + 100 ids).

    `path` is a local file, a URL that fsspec reads (`gs://…`), the name of a published file (t5,
    mt5, umt5: see `files.local_file`), or a Hugging Face directory. A file that holds its
    sentinels, as mT5's does, needs extra_ids=0. Tokens that a directory adds to its model are part
    of the vocabulary, wherever their ids are, and then the directory says which sentinels there
    are; `file_bytes` holds them too. The file is read when it is first needed. Raises DataError
    when it is missing or damaged, has no EOS, padding or unknown piece, or when the files of a
    directory contradict each other.
    """

    kind: ClassVar[str] = "sentencepiece"
    file_name: ClassVar[str] = "vocabulary.model"

    path: str
    extra_ids: int = DEFAULT_SENTINELS

    @property
    def fingerprint(self) -> str:
        return self._file().fingerprint

    @property
    def num_sentinels(self) -> int:
        """Those on top of the file, those in it, or without any the top 100 of its pieces. Of a
        file that is still to be trained or fetched: those that it is to have."""
        if self.extra_ids and not (is_local(self.path) and os.path.exists(self.path)):
            return self.extra_ids
        return len(self._file().sentinel_ids)

    @property
    def sentinels_in_file(self) -> int:
        """How many sentinels are pieces of the file itself (mT5's: 100)."""
        return self._file().sentinels_in_file

    @property
    def prefix_after_tokens(self) -> bool:
        """Whether text behind an added token begins as a text does (not so for `legacy: false`)."""
        return self._file().prefix_after_tokens

    def content(self, number: int) -> str:
        """The token of an id as the file writes it (`<pad>`, `▁the`)."""
        return self._file().encoder.content(number)

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        model = self._file()
        try:
            return model.encode(text, sentinels)
        except RuntimeError:
            repaired = without_lone_surrogates(text)
            if repaired == text:
                raise
            return model.encode(repaired, sentinels)

    def decode(self, ids: Iterable[int]) -> str:
        model = self._file()
        ids = np.asarray(ids, np.int64)
        ids = ids[ids != model.special_ids[0]]
        return model.encoder.decode(ids)

    def _file(self) -> "_SentencePieceModel":
        if self.path in PUBLISHED and self.extra_ids != PUBLISHED[self.path].extra_ids:
            raise ConfigError(
                f"data.vocabulary.extra_ids = {self.extra_ids}: {self.path}'s models have "
                f"{PUBLISHED[self.path].extra_ids} on top of the file; set that, or write "
                f"named_vocabulary({self.path!r})"
            )
        given = local_file(self.path)
        try:
            file, stat = given, os.stat(given)  # with every text: a file is looked at once
            if S_ISDIR(stat.st_mode):
                file = _model_in(given)
                stat = os.stat(file)
        except OSError as error:
            raise DataError(
                f"vocabulary {self.path!r} cannot be read from {os.getcwd()} ({error.strerror}); "
                "give the path of a SentencePiece model (of a run that is trained, its own: "
                f"--data.vocabulary.path), or for a new run {_HOW_TO_TRAIN}"
            ) from error
        beside = stamps(os.path.dirname(file))
        return _load_model(
            file, self.extra_ids, stat.st_mtime_ns, stat.st_size, beside, file != given
        )


def _model_in(path: str) -> str:
    found = model_file_in(pathlib.Path(path))
    if found is None:
        raise DataError(
            f"vocabulary {path!r} is not a file, and a folder without a SentencePiece model"
        )
    return str(found)


@dataclasses.dataclass(frozen=True, slots=True)
class _SentencePieceModel:
    file_bytes: bytes
    encoder: PieceEncoder
    split: Splitter | None  # None: there are no tokens of its own to find
    prefix_after_tokens: bool
    vocab_size: int
    special_ids: tuple[int, int, int]  # padding, EOS, unknown
    sentinel_ids: tuple[int, ...]
    sentinels_in_file: int
    own_tokens: tuple[AddedToken, ...]
    fingerprint: str

    def encode(self, text: str, sentinels: bool) -> np.ndarray:
        if self.split is None:
            return self._segment(text, sentinels, at_start=True)
        found: list[np.ndarray] = []
        for part in self.split(text):
            if isinstance(part, AddedToken):
                found.append(np.array([part.id], np.int32))
            else:
                found.append(self._segment(part, sentinels, at_start=not found))
        return np.concatenate(found or [np.zeros(0, np.int32)])

    def _segment(self, text: str, sentinels: bool, *, at_start: bool) -> np.ndarray:
        if sentinels := sentinels and "<extra_id_" in text:
            text = separate_sentinels(text)
        as_beginning = at_start or self.prefix_after_tokens
        return self.encoder.encode(text, sentinels=sentinels, as_beginning=as_beginning)


# The modification time and size are part of the key: a model that was trained again is read again.
@functools.lru_cache(maxsize=8)
def _load_model(
    path: str, extra_ids: int, mtime_ns: int, size: int, beside: tuple, is_directory: bool
) -> _SentencePieceModel:
    if size == 0 or not os.path.isfile(path):
        raise DataError(f"vocabulary {path!r} is empty or not a file")
    bare, record = split_record(pathlib.Path(path).read_bytes())
    additions = None if record is None else Additions.from_json(record)
    if additions is None and beside:
        found = additions_beside(pathlib.Path(path).parent, processor_of(bare, path), path)
        # A plain file's `extra_ids` say how many sentinels it has, unless tokens of others are
        # numbered beside them.
        additions = found if is_directory or found.own else None
    if additions is None:
        return _plain_model(bare, path, extra_ids)
    model = _model_with_additions(bare, path, additions)
    names = {token.content: token.id for token in model.own_tokens}
    names |= {f"<extra_id_{i}>": number for i, number in enumerate(model.sentinel_ids)}
    check_round_trips(
        names, functools.partial(model.encode, sentinels=True), model.encoder.decode, path
    )
    return model


def _plain_model(bare: bytes, path: str, extra_ids: int) -> _SentencePieceModel:
    processor = processor_of(bare, path)
    special = special_ids_of(processor)
    if min(special) < 0:
        raise DataError(
            f"vocabulary {path!r} has (pad, eos, unk) = {special}, T5 needs (0, 1, 2) or others of "
            "the model's own, but each of them; where they are beside the file (tokenizer_config"
            f".json), give its folder; else {_HOW_TO_TRAIN}"
        )
    in_file = sentinels_of(bare)
    if in_file and extra_ids:
        raise DataError(
            f"vocabulary {path!r} refuses {extra_ids} sentinels on top: {len(in_file)} are in the "
            "file already; set extra_ids=0"
        )
    num_pieces = processor.get_piece_size()
    size = num_pieces + extra_ids
    check_special_ids(*special, size, path)
    top = range(size - 1, size - 1 - (extra_ids or DEFAULT_SENTINELS), -1)
    model = _SentencePieceModel(
        file_bytes=bare,
        encoder=PieceEncoder(
            bare, path, special[2], sentinels=dict(enumerate(top)) if extra_ids else in_file
        ),
        split=None,
        prefix_after_tokens=True,
        vocab_size=size,
        special_ids=special,
        sentinel_ids=sentinel_table(in_file, path) if in_file else tuple(top),
        sentinels_in_file=len(in_file),
        own_tokens=(),
        fingerprint=hashlib.sha256(bare + f"extra_ids:{extra_ids}".encode()).hexdigest(),
    )
    if extra_ids or in_file:  # not found in a model that ends words with the word mark
        first = {"<extra_id_0>": model.sentinel_ids[0]}
        encode = functools.partial(model.encode, sentinels=True)
        check_round_trips(first, encode, model.encoder.decode, path)
    return model


def _model_with_additions(bare: bytes, path: str, additions: Additions) -> _SentencePieceModel:
    special = additions.pad_id, additions.eos_id, additions.unk_id
    own, sentinels, in_file = additions.own, additions.sentinels, sentinels_of(bare)
    file_bytes = with_record(bare, additions.to_json())
    named = {token.id: token.content for token in additions.tokens if token.id in special}
    encoder = PieceEncoder(
        bare, path, special[2], sentinels=sentinels or in_file, own=own, special=named
    )
    check_special_ids(*special, encoder.vocab_size, path)
    return _SentencePieceModel(
        file_bytes=file_bytes,
        encoder=encoder,
        split=Splitter(own) if own else None,
        prefix_after_tokens=additions.prefix_after_tokens,
        vocab_size=encoder.vocab_size,
        special_ids=special,
        sentinel_ids=sentinel_table(sentinels or in_file, path),
        sentinels_in_file=len(in_file),
        own_tokens=own,
        fingerprint=hashlib.sha256(file_bytes + b"extra_ids:0").hexdigest(),
    )
