"""A vocabulary whose ids are those of a file, which is read when it is first needed."""

import abc
from typing import Protocol

from t5jax.data.vocabularies.added_tokens import AddedToken
from t5jax.data.vocabularies.base import Vocabulary
from t5jax.paths import expand


class VocabularyFile(Protocol):
    """What a file says of its vocabulary."""

    @property
    def file_bytes(self) -> bytes: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def special_ids(self) -> tuple[int, int, int]:
        """Of padding, EOS and the unknown piece."""
        ...

    @property
    def sentinel_ids(self) -> tuple[int, ...]: ...
    @property
    def own_tokens(self) -> tuple[AddedToken, ...]: ...


class FileVocabulary(Vocabulary):
    """A vocabulary by the path of its file, which may have changed since it was read."""

    __slots__ = ()

    path: str

    def __post_init__(self) -> None:
        self.path = expand(self.path, "data.vocabulary.path")

    @abc.abstractmethod
    def _file(self) -> VocabularyFile:
        """The file as it is now. Raises DataError when it cannot be read."""

    @property
    def vocab_size(self) -> int:
        return self._file().vocab_size

    @property
    def pad_id(self) -> int:
        return self._file().special_ids[0]

    @property
    def eos_id(self) -> int:
        return self._file().special_ids[1]

    @property
    def unk_id(self) -> int:
        return self._file().special_ids[2]

    @property
    def num_sentinels(self) -> int:
        """Those of the file."""
        return len(self._file().sentinel_ids)

    @property
    def sentinel_ids(self) -> tuple[int, ...]:
        return self._file().sentinel_ids

    @property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """Tokens that were added to the model and stand for themselves (`{`, `<sep>`)."""
        return self._file().own_tokens

    def file_bytes(self) -> bytes:
        return self._file().file_bytes
