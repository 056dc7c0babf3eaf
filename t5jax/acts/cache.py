"""`t5jax cache CONFIG`: tokenises the run's data once, into the store that training reads."""

import pathlib
import sys
import time

from t5jax.acts.vocab import train_vocabulary
from t5jax.config import load
from t5jax.data.cache import build_cache, cache_directory
from t5jax.data.config import objective_of, source_of
from t5jax.errors import DataError


def run(
    config_file: str,
    flags: list[str],
    *,
    splits: list[str],
    num_processes: int,
    overwrite: bool,
    new_vocabulary: int | None = None,
) -> None:
    """`new_vocabulary` pieces are trained first, if the config's vocabulary is not there yet."""
    data = load(config_file, flags).data
    if new_vocabulary and not pathlib.Path(getattr(data.vocabulary, "path", "")).is_file():
        train_vocabulary(data, num_pieces=new_vocabulary)
    source, objective = source_of(data), objective_of(data)
    known = source.splits()
    for split in splits or known:
        if split not in known:
            raise DataError(f"{data.mixture} has no split {split!r}; it has {', '.join(known)}")
        directory = cache_directory(data.cache_dir, data.mixture, split)
        start = time.monotonic()
        info = build_cache(
            source,
            split,
            directory,
            vocabulary=data.vocabulary,
            objective=objective,
            num_processes=num_processes,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
            overwrite=overwrite,
        )
        print(
            f"{directory}: {info.documents:,} documents, {info.tokens:,} tokens, "
            f"{info.utf8_bytes / max(info.tokens, 1):.2f} bytes a token, "
            f"{time.monotonic() - start:.1f} s"
        )
