"""`t5jax vocab train CONFIG`: a T5-compatible SentencePiece model from the run's own text."""

import itertools
import pathlib
import time

from t5jax.config import load
from t5jax.data.config import DataConfig, source_of
from t5jax.data.vocabularies import SentencePieceVocabulary, train_sentencepiece
from t5jax.errors import ConfigError


def run(config_file: str, flags: list[str], *, num_pieces: int, max_characters: int) -> None:
    data = load(config_file, flags).data
    path = getattr(data.vocabulary, "path", "")
    if pathlib.Path(path).is_file():
        raise ConfigError(f"data.vocabulary.path = {path} exists; delete it or name another file")
    train_vocabulary(data, num_pieces=num_pieces, max_characters=max_characters)


def train_vocabulary(
    data: DataConfig, *, num_pieces: int, max_characters: int = 20_000_000
) -> None:
    """Writes `data.vocabulary.path`, trained on the first `max_characters` of the train split.

    Raises ConfigError if the config's vocabulary is not a SentencePiece model.
    """
    if not isinstance(data.vocabulary, SentencePieceVocabulary):
        raise ConfigError(f"data.vocabulary is {data.vocabulary}: only SentencePiece is trained")
    path, source = pathlib.Path(data.vocabulary.path), source_of(data)
    start = time.monotonic()
    shards = source.shards("train")
    documents = itertools.chain.from_iterable(source.documents("train", s) for s in shards)
    path.parent.mkdir(parents=True, exist_ok=True)
    train_sentencepiece(documents, str(path), vocab_size=num_pieces, num_chars=max_characters)
    print(
        f"{path}: {num_pieces:,} pieces + {data.vocabulary.extra_ids} sentinels = "
        f"{data.vocabulary.vocab_size:,} ids, {time.monotonic() - start:.1f} s"
    )
