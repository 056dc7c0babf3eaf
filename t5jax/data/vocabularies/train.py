"""Training a T5-compatible SentencePiece model from text."""

import io
import pathlib
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from t5jax.data.atomic_files import write_file
from t5jax.data.vocabularies.base import UNK_ID, without_lone_surrogates
from t5jax.data.vocabularies.files import is_local
from t5jax.data.vocabularies.sentencepiece import SentencePieceVocabulary
from t5jax.errors import ConfigError, DataError
from t5jax.types import EOS_ID, PAD_ID


def train_sentencepiece(
    documents: Iterable[str],
    path: str,
    *,
    vocab_size: int,
    num_chars: int = 100_000_000,
    max_sentences: int = 2_000_000,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
    num_threads: int = 4,
) -> SentencePieceVocabulary:
    """Trains a T5-compatible unigram model on the first `num_chars` characters (or `max_sentences`
    lines) of the documents and writes it to `path` (atomically).

    `vocab_size` counts the pieces without the 100 sentinels, which come on top when the file is
    used (T5's file: 32000). `character_coverage` is the share of the text's characters that get
    pieces; the rest is unknown, or with `byte_fallback` spelled by 256 pieces of one byte each.
    The settings are recorded in the file itself (SentencePiece's trainer_spec). The same text and
    settings give the same file, byte for byte; `num_threads` is one of the settings, so leave it
    alone where files must agree.
    Raises ConfigError for a setting out of range, DataError when the text is too small for the size
    or the size for the text's characters.
    """
    if not is_local(str(path)):
        raise ConfigError(f"data.vocabulary.path = {path!r}: a new vocabulary needs a file here")
    lines = training_lines(documents, num_chars, max_sentences)
    model = train_unigram(
        lines,
        vocab_size=vocab_size,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
        num_threads=num_threads,
    )
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, model, shared=True)
    return SentencePieceVocabulary(path=str(path))


def train_unigram(
    lines: Iterable[str],
    *,
    vocab_size: int,
    character_coverage: float,
    byte_fallback: bool,
    num_threads: int,
) -> bytes:
    """The trained model's bytes; see `train_sentencepiece`."""
    if not 0.98 <= character_coverage <= 1.0:  # the range of the trainer
        raise ConfigError(f"character_coverage = {character_coverage}: give a share from 0.98 to 1")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            normalization_rule_name="nmt_nfkc",
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            max_sentence_length=8 * _MAX_LINE_CHARS,
            num_threads=num_threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(error, vocab_size) from error
    return model.getvalue()


_MAX_LINE_CHARS = 2000  # the trainer skips longer lines without a word, so they are cut here


def training_lines(
    documents: Iterable[str], num_chars: int, max_sentences: int = 2_000_000
) -> Iterator[str]:
    """Lines of the documents that the trainer takes, as many as the limits allow."""
    for document in documents:
        for line in document.splitlines():
            for start in range(0, len(line), _MAX_LINE_CHARS):
                if num_chars <= 0 or max_sentences <= 0:
                    return
                piece = line[start : start + _MAX_LINE_CHARS]
                if piece.strip():
                    yield without_lone_surrogates(piece)
                    num_chars, max_sentences = num_chars - len(piece), max_sentences - 1


class TooManyPieces(DataError):
    """More pieces than the text supports; `most` is how many it does."""

    def __init__(self, message: str, most: int):
        super().__init__(message)
        self.most = most


def _training_error(error: RuntimeError, vocab_size: int) -> DataError:
    reason = str(error)
    if limit := re.search(r"too high .*value <= (\d+)", reason):
        return TooManyPieces(
            f"a vocabulary of {vocab_size} pieces is more than the text supports ({limit[1]} "
            "pieces at most); ask for fewer or give more text",
            int(limit[1]),
        )
    if needed := re.search(r"smaller than required_chars. \d+ vs (\d+)", reason):
        return DataError(
            f"vocab_size={vocab_size} does not even hold the text's characters ({needed[1]} are "
            "needed); raise vocab_size or lower character_coverage"
        )
    return DataError(
        f"training a vocabulary of {vocab_size} pieces failed, is there text? {reason}"
    )
