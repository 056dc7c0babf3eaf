"""`t5jax vocab train CONFIG` and `t5jax vocab extend FILE`: a new vocabulary, and a larger one."""

import itertools
import pathlib
import re
import time
from collections.abc import Iterator

from t5jax.config import load
from t5jax.data.config import DataConfig, tasks_of
from t5jax.data.records import Rejected, counted
from t5jax.data.registry.texts import texts_of
from t5jax.data.tasks.task import Task
from t5jax.data.vocabularies import (
    DEFAULT_SENTINELS,
    SentencePieceVocabulary,
    extend_vocabulary,
    learn_pieces,
    train_sentencepiece,
)
from t5jax.data.vocabularies.files import PUBLISHED, is_local
from t5jax.data.vocabularies.model_file import Piece, PieceType
from t5jax.errors import ConfigError

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def train(
    config_file: str,
    flags: list[str],
    *,
    num_pieces: int,
    max_characters: int,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> None:
    data = load(config_file, flags).data
    path = getattr(data.vocabulary, "path", "")
    if pathlib.Path(path).is_file():
        raise ConfigError(f"data.vocabulary.path = {path} exists; delete it or name another file")
    train_vocabulary(
        data,
        num_pieces=num_pieces,
        max_characters=max_characters,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
    )


def train_vocabulary(
    data: DataConfig,
    *,
    num_pieces: int,
    max_characters: int = 20_000_000,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> None:
    """Writes `data.vocabulary.path`, trained on the first `max_characters` of the train split.

    Raises ConfigError if the config's vocabulary is not a SentencePiece model in a file here.
    """
    if not isinstance(data.vocabulary, SentencePieceVocabulary):
        raise ConfigError(f"data.vocabulary is {data.vocabulary}: only SentencePiece is trained")
    path = data.vocabulary.path
    if not is_local(path):
        raise ConfigError(
            f"data.vocabulary.path = {path} is a published file: leave it as it is, or name a file "
            "here to train"
        )
    start = time.monotonic()
    train_sentencepiece(
        _documents(data),
        path,
        vocab_size=num_pieces,
        num_chars=max_characters,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
    )
    print(
        f"{path}: {num_pieces:,} pieces + {data.vocabulary.extra_ids} sentinels = "
        f"{data.vocabulary.vocab_size:,} ids, {time.monotonic() - start:.1f} s"
    )


def extend(
    file: str,
    flags: list[str],
    *,
    output: str,
    extra_ids: int | None,
    pieces: list[str],
    pieces_file: str | None,
    config_file: str | None,
    num_pieces: int | None,
    max_characters: int,
) -> None:
    """Writes `output`, the vocabulary in `file` with more pieces: given ones, learned ones, or
    both."""
    if (config_file is None) != (num_pieces is None):
        raise ConfigError("--from CONFIG and --num-pieces N go together: which text, how many")
    if flags and config_file is None:
        raise ConfigError(f"{flags[0]} has no effect without --from CONFIG")
    if extra_ids is None:
        extra_ids = PUBLISHED[file].extra_ids if file in PUBLISHED else DEFAULT_SENTINELS
    old = SentencePieceVocabulary(path=file, extra_ids=extra_ids)
    texts = pieces + (_lines_of(pieces_file) if pieces_file else [])
    new_pieces = [Piece(_unescape(text), 0.0, PieceType.USER_DEFINED) for text in texts]
    if config_file is not None and num_pieces is not None:
        documents = _documents(load(config_file, flags).data)
        new_pieces += learn_pieces(old, documents, num_pieces, num_chars=max_characters)
    new, extension = extend_vocabulary(old, new_pieces, output)
    print(
        f"{output}: {old.vocab_size:,} ids + {len(new_pieces):,} pieces = {new.vocab_size:,} ids; "
        f"the new ones are {extension.first_new:,} to "
        f"{extension.first_new + len(new_pieces) - 1:,}: {_shown(extension.pieces)}"
    )
    rows = -(-new.vocab_size // 128) * 128
    print(
        f"a config for it has data.vocabulary.path={output!r}, model.vocab_size={rows} and a "
        "data.cache_dir of its own; `t5jax vocab grow RUN CONFIG` gives it a trained model"
    )


def _documents(data: DataConfig) -> Iterator[str]:
    """Texts of the train splits of the config's tasks, a document of each in turn."""
    for documents in itertools.zip_longest(*(_texts(task, data) for task in tasks_of(data))):
        for document in documents:
            yield from document or ()


def _texts(task: Task, data: DataConfig) -> Iterator[list[str]]:
    """The strings of each document: its text, or inputs and targets."""
    texts, rejected = texts_of(task, data), Rejected()
    for shard in texts.shards("train"):
        for document in texts.documents("train", shard, rejected):
            strings = [text for text in document.values() if isinstance(text, str)]
            if len(strings) < len(document):
                raise ConfigError(
                    f"data.mixture = {data.mixture}: task {task.name} gives ids, not texts; train "
                    "a vocabulary on a task of text"
                )
            yield strings
    if rejected.records or rejected.damaged_files:
        print(
            f"{task.name}: {counted(rejected.records, 'record')} and the rest of "
            f"{counted(rejected.damaged_files, 'file')} were left out, the first: "
            f"{rejected.places[0]}"
        )


def _lines_of(file: str) -> list[str]:
    """A piece per line, taken literally: spaces count."""
    path = pathlib.Path(file)
    if not path.is_file():
        raise ConfigError(f"--pieces-file {file}: there is no such file")
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def _unescape(text: str) -> str:
    """`\\n`, `\\t` and `\\\\` as a shell and a file with a piece a line can give them."""
    return re.sub(r"\\([nt\\])", lambda found: _ESCAPES[found[1]], text)


def _shown(pieces: tuple[str, ...]) -> str:
    shown = " ".join(map(repr, pieces[:8]))
    return f"{shown} …" if len(pieces) > 8 else shown
