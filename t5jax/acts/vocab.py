"""`t5jax vocab train CONFIG`: a T5-compatible SentencePiece model from the run's own text."""

import itertools
import pathlib
import time

from t5jax.config import load
from t5jax.data.config import source_of
from t5jax.data.vocabularies import SentencePieceVocabulary, train_sentencepiece
from t5jax.errors import ConfigError


def run(config_file: str, flags: list[str], *, num_pieces: int, max_characters: int) -> None:
    data = load(config_file, flags).data
    if not isinstance(data.vocabulary, SentencePieceVocabulary):
        raise ConfigError(f"data.vocabulary is {data.vocabulary}: only SentencePiece is trained")
    path = pathlib.Path(data.vocabulary.path)
    if path.exists():
        raise ConfigError(f"data.vocabulary.path = {path} exists; delete it or name another file")
    source, start = source_of(data), time.monotonic()
    shards = source.shards("train")
    documents = itertools.chain.from_iterable(source.documents("train", s) for s in shards)
    path.parent.mkdir(parents=True, exist_ok=True)
    train_sentencepiece(
        documents, str(path), vocab_size=num_pieces, num_chars=max_characters
    )
    vocabulary = SentencePieceVocabulary(path=str(path), extra_ids=data.vocabulary.extra_ids)
    print(
        f"{path}: {num_pieces:,} pieces + {vocabulary.extra_ids} sentinels = "
        f"{vocabulary.vocab_size:,} ids, {time.monotonic() - start:.1f} s"
    )
