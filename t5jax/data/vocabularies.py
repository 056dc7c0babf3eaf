"""Text to ids and back: T5's SentencePiece files, bytes, and the training of a new model.

In every vocabulary 0 is padding, 1 the end of a sequence and 2 the unknown piece, and sentinel i
(`<extra_id_i>`) is the i-th id from the top: `vocab_size - 1 - i` (facts of T5's preprocessor,
`noise_span_to_unique_sentinel`).
"""

import abc
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece

from t5jax.errors import DataError

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
DEFAULT_SENTINELS = 100  # what T5 reserves, and what is reused where none were added

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_GLUED_SENTINEL = re.compile(r"(?<=\S)(?=<extra_id_\d+>)")
_HOW_TO_TRAIN = (
    "train one with `t5jax cache CONFIG --new-vocabulary PIECES` (or `t5jax vocab train`), or with "
    "spm_train "
    "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1"
)


class Vocabulary(abc.ABC):
    """What data and acts need of a vocabulary. Ids are int32 everywhere."""

    __slots__ = ()

    extra_ids: int
    pad_id = PAD_ID
    eos_id = EOS_ID
    unk_id = UNK_ID

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, sentinels included."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) of everything that decides which id a text gets."""

    @abc.abstractmethod
    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        """int32 ids of the text, without EOS.

        A literal `<extra_id_0>` becomes the sentinel's id; with `sentinels=False` (raw documents,
        in which the objective alone may place sentinels) it is text like any other. A literal
        `<pad>` or `</s>` is always text.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids.

        Padding is dropped, EOS shows nothing and ends nothing, sentinels appear as `<extra_id_0>`,
        ids beyond the vocabulary (a model's spare rows) as the unknown piece.
        """

    @property
    def num_sentinels(self) -> int:
        """Without ids of their own the sentinels reuse the top 100 (ByT5, and baked-in files)."""
        return self.extra_ids or DEFAULT_SENTINELS

    @property
    def first_sentinel_id(self) -> int:
        """The lowest sentinel id, i.e. that of the last sentinel."""
        return self.vocab_size - self.num_sentinels

    def sentinel_id(self, index: int) -> int:
        if not 0 <= index < self.num_sentinels:
            raise DataError(
                f"sentinel {index} does not exist: the vocabulary has {self.num_sentinels}"
            )
        return self.vocab_size - 1 - index

    def is_text(self, ids: np.ndarray) -> np.ndarray:
        """bool, same shape: neither padding nor EOS nor a sentinel (the unknown piece is text).

        Where sentinels reuse ids (`ByteVocabulary()`), the bytes they share count as sentinels.
        """
        ids = np.asarray(ids)
        return (ids != PAD_ID) & (ids != EOS_ID) & (ids < self.first_sentinel_id)


@dataclasses.dataclass(kw_only=True, slots=True)
class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model with `extra_ids` sentinels on top (T5's file: 32000 + 100 ids).

    The file is read when it is first needed. Raises DataError when it is missing, damaged, or
    when it puts padding, EOS or unknown anywhere else than at 0, 1, 2.
    """

    path: str
    extra_ids: int = DEFAULT_SENTINELS

    @property
    def vocab_size(self) -> int:
        return self._model().vocab_size

    @property
    def fingerprint(self) -> str:
        return self._model().fingerprint

    def model_bytes(self) -> bytes:
        """The file as it is on disk (what a cache keeps a copy of)."""
        return self._model().file_bytes

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        model = self._model()
        processor = model.plain
        if sentinels and "<extra_id_" in text:
            # The sentinel pieces begin with the word mark, as seqio's do: without a space in front
            # they would not be found ("jel<extra_id_0>").
            text, processor = _GLUED_SENTINEL.sub(" ", text), model.with_sentinels
        try:
            return processor.encode_as_numpy(text)
        except RuntimeError:
            repaired = _without_lone_surrogates(text)
            if repaired == text:
                raise
            return processor.encode_as_numpy(repaired)

    def decode(self, ids: Iterable[int]) -> str:
        model = self._model()
        ids = np.asarray(ids, np.int64)
        ids = np.where((ids < 0) | (ids >= model.vocab_size), UNK_ID, ids)
        return model.with_sentinels.decode(ids[ids != PAD_ID].tolist())

    def _model(self) -> "_SentencePieceModel":
        try:
            stat = os.stat(self.path)
        except OSError as error:
            raise DataError(
                f"vocabulary {self.path!r} cannot be read from {os.getcwd()} ({error.strerror}); "
                "give the path of a SentencePiece model whose pad is 0, eos 1 and unk 2, or "
                f"{_HOW_TO_TRAIN}"
            ) from error
        return _load_model(self.path, self.extra_ids, stat.st_mtime_ns, stat.st_size)


@dataclasses.dataclass(frozen=True, slots=True)
class _SentencePieceModel:
    file_bytes: bytes
    plain: sentencepiece.SentencePieceProcessor
    with_sentinels: sentencepiece.SentencePieceProcessor
    vocab_size: int
    fingerprint: str


# The modification time and size are part of the key: a model that was trained again is read again.
@functools.lru_cache(maxsize=8)
def _load_model(path: str, extra_ids: int, mtime_ns: int, size: int) -> _SentencePieceModel:
    if size == 0 or not os.path.isfile(path):
        raise DataError(f"vocabulary {path!r} is empty or not a file")
    file_bytes = pathlib.Path(path).read_bytes()
    plain = _processor(file_bytes, path)
    found = (plain.pad_id(), plain.eos_id(), plain.unk_id())
    if found != (PAD_ID, EOS_ID, UNK_ID):
        raise DataError(
            f"vocabulary {path!r} has (pad, eos, unk) = {found}, T5 needs (0, 1, 2); "
            + _HOW_TO_TRAIN
        )
    added = b"".join(_user_piece(f"▁<extra_id_{i}>") for i in reversed(range(extra_ids)))
    try:
        with_sentinels = _processor(file_bytes + added, path)
    except DataError as error:
        raise DataError(
            f"vocabulary {path!r} refuses {extra_ids} sentinels on top; if they are already in the "
            f"file, set extra_ids=0 ({error.__cause__})"
        ) from error
    return _SentencePieceModel(
        file_bytes=file_bytes,
        plain=plain,
        with_sentinels=with_sentinels,
        vocab_size=with_sentinels.get_piece_size(),
        fingerprint=hashlib.sha256(file_bytes + f"extra_ids:{extra_ids}".encode()).hexdigest(),
    )


def _processor(model: bytes, path: str) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"vocabulary {path!r} is not a SentencePiece model: {error}") from error


def _user_piece(piece: str) -> bytes:
    """One more user-defined piece (type 4) in protobuf's wire format.

    Appending a repeated field's bytes to a message appends the element, so sentinels need neither
    the protobuf runtime nor its version to agree with sentencepiece's.
    """
    text = piece.encode()
    entry = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x04"
    return b"\x0a" + bytes([len(entry)]) + entry


def _without_lone_surrogates(text: str) -> str:
    """JSON may hold half a surrogate pair (`"\\ud800"`), which UTF-8 cannot; it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclasses.dataclass(kw_only=True, slots=True)
class ByteVocabulary(Vocabulary):
    """ByT5's: byte b is id b + 3. Without extra ids the sentinels reuse ids 258, 257, ..."""

    extra_ids: int = 0

    _FIRST_BYTE_ID = 3
    _END_OF_BYTES = 256 + 3

    @property
    def vocab_size(self) -> int:
        return self._END_OF_BYTES + self.extra_ids

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"bytes:{self.extra_ids}".encode()).hexdigest()

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        pieces, position = [], 0
        if sentinels and "<extra_id_" in text:
            for match in _SENTINEL.finditer(text):
                if int(match[1]) < self.num_sentinels:
                    pieces += [self._encode_bytes(text[position : match.start()])]
                    pieces += [np.array([self.sentinel_id(int(match[1]))], np.int32)]
                    position = match.end()
        return np.concatenate([*pieces, self._encode_bytes(text[position:])])

    def _encode_bytes(self, text: str) -> np.ndarray:
        try:
            utf8 = text.encode()
        except UnicodeEncodeError:
            utf8 = _without_lone_surrogates(text).encode()
        return np.frombuffer(utf8, np.uint8).astype(np.int32) + self._FIRST_BYTE_ID

    def decode(self, ids: Iterable[int]) -> str:
        """As documented in the base class, except that bytes which are not valid UTF-8 are dropped.

        Sentinels that reuse byte ids are recognised where their byte cannot be part of a character.
        """
        text, run = [], bytearray()
        for token in map(int, ids):
            if self._FIRST_BYTE_ID <= token < self._END_OF_BYTES:
                run.append(token - self._FIRST_BYTE_ID)
            elif self._END_OF_BYTES <= token < self.vocab_size:
                text += [self._decode_bytes(run), f"<extra_id_{self.vocab_size - 1 - token}>"]
                run = bytearray()
        return "".join([*text, self._decode_bytes(run)])

    def _decode_bytes(self, utf8: bytes | bytearray) -> str:
        text, position = [], 0
        while position < len(utf8):
            try:
                return "".join([*text, utf8[position:].decode()])
            except UnicodeDecodeError as error:
                bad = position + error.start
                text += [utf8[position:bad].decode(), self._shared_sentinel(utf8[bad])]
                position = bad + 1
        return "".join(text)

    def _shared_sentinel(self, byte: int) -> str:
        index = 255 - byte
        return f"<extra_id_{index}>" if not self.extra_ids and index < self.num_sentinels else ""


def train_sentencepiece(
    documents: Iterable[str],
    path: str,
    *,
    vocab_size: int,
    num_chars: int = 100_000_000,
    max_sentences: int = 2_000_000,
    character_coverage: float = 0.9995,
    num_threads: int = 4,
) -> SentencePieceVocabulary:
    """Trains a T5-compatible unigram model on the first `num_chars` characters (or `max_sentences`
    lines) of the documents and writes it to `path` (atomically).

    `vocab_size` counts the pieces without the 100 sentinels, which come on top when the file is
    used (T5's file: 32000). The same text and settings give the same file, byte for byte;
    `num_threads` is one of the settings, so leave it alone where files must agree.
    Raises DataError when the text is too small for the size or the size for the text's characters.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(documents, num_chars, max_sentences),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            normalization_rule_name="nmt_nfkc",
            character_coverage=character_coverage,
            max_sentence_length=8 * _MAX_LINE_CHARS,
            num_threads=num_threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(error, vocab_size) from error
    temporary = pathlib.Path(f"{path}.tmp-{os.getpid()}")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(model.getvalue())
    temporary.replace(path)
    return SentencePieceVocabulary(path=str(path))


_MAX_LINE_CHARS = 2000  # the trainer skips longer lines without a word, so they are cut here


def _lines(documents: Iterable[str], num_chars: int, max_sentences: int) -> Iterator[str]:
    for document in documents:
        for line in document.splitlines():
            for start in range(0, len(line), _MAX_LINE_CHARS):
                if num_chars <= 0 or max_sentences <= 0:
                    return
                piece = line[start : start + _MAX_LINE_CHARS]
                if piece.strip():
                    yield _without_lone_surrogates(piece)
                    num_chars, max_sentences = num_chars - len(piece), max_sentences - 1


def _training_error(error: RuntimeError, vocab_size: int) -> DataError:
    reason = str(error)
    if limit := re.search(r"too high .*value <= (\d+)", reason):
        return DataError(
            f"a vocabulary of {vocab_size} pieces is more than the text supports ({limit[1]} "
            "pieces at most); ask for fewer or give more text"
        )
    if needed := re.search(r"smaller than required_chars. \d+ vs (\d+)", reason):
        return DataError(
            f"vocab_size={vocab_size} does not even hold the text's characters ({needed[1]} are "
            "needed); raise vocab_size or lower character_coverage"
        )
    return DataError(
        f"training a vocabulary of {vocab_size} pieces failed, is there text? {reason}"
    )
