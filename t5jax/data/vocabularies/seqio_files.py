"""Vocabulary files that seqio tasks name by a URL, read from local copies of them.

Published tasks name `gs://t5-data/vocabs/…`. seqio then reads what T5JAX_VOCABULARY says stands for
a URL, or a copy fetched earlier (`files.local_file`), or the run's own vocabulary file where the
run says so (`take_for`); else the URL, as before.
"""

import functools
from typing import Any

from t5jax.data.vocabularies.files import is_local, known_copy

_taken: dict[str, str] = {}  # URL -> the run's own file


def take_for(url: str, file: str) -> None:
    """From now on seqio reads `file` where a vocabulary names `url`."""
    _taken[url] = file


def copies_taken() -> tuple[tuple[str, str], ...]:
    """All (URL, file) of `take_for`, for another process."""
    return tuple(sorted(_taken.items()))


def local_copy(url: str) -> str | None:
    """The file that is read for a URL; None where there is no copy. Raises ConfigError for a file
    of T5JAX_VOCABULARY that is not there."""
    return known_copy(url) or _taken.get(url)


def read_local_copies(seqio: Any) -> None:
    """Makes the loader of the `seqio` module read local copies; a second call changes nothing."""
    library = seqio.vocabularies
    load = library._load_model
    if hasattr(load, "reads_local_copies"):
        return

    @functools.wraps(load)
    def load_copy(path: str, *args: Any, **settings: Any) -> Any:
        copy = None if is_local(path) else local_copy(path)
        return load(copy or path, *args, **settings)

    load_copy.reads_local_copies = True  # pyright: ignore[reportAttributeAccessIssue]
    library._load_model = load_copy
