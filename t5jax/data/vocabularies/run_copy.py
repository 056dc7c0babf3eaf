"""A run's own copy of its vocabulary file, so that its workdir is self-contained."""

import os
import pathlib

from t5jax.data.atomic_files import write_file
from t5jax.data.vocabularies.base import Vocabulary
from t5jax.data.vocabularies.kinds import vocabulary_from_dict


def save_vocabulary(
    vocabulary: Vocabulary,
    directory: str | os.PathLike[str],
    known_as: str | os.PathLike[str] | None = None,
) -> Vocabulary:
    """Writes the vocabulary's file into `directory`, where it is not there already; one without a
    file needs none. Returns the vocabulary of that file, to be found in `known_as` (default:
    `directory`)."""
    data = vocabulary.file_bytes()
    if data is not None and vocabulary.file_name is not None:
        file = pathlib.Path(directory) / vocabulary.file_name
        if not (file.is_file() and file.read_bytes() == data):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, data)
    return vocabulary_from_dict(vocabulary.to_dict(), known_as or directory)


def saved_vocabulary(
    vocabulary: Vocabulary, directory: str | os.PathLike[str], fingerprint: str
) -> Vocabulary:
    """The copy in `directory`, if there is one with this fingerprint; else the vocabulary given."""
    if vocabulary.file_name is None:
        return vocabulary
    if not (pathlib.Path(directory) / vocabulary.file_name).is_file():
        return vocabulary
    record = {"kind": vocabulary.kind, "extra_ids": vocabulary.extra_ids}
    copy = vocabulary_from_dict(record, directory)
    return copy if copy.fingerprint == fingerprint else vocabulary
