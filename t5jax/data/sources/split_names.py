"""Renaming the splits of a source: mC4 has two splits for each language."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from t5jax.data.records import Record, Source, with_columns
from t5jax.errors import ConfigError, DataError


@dataclasses.dataclass(kw_only=True, slots=True)
class SplitNames:
    """`names` says which split of the source each split is: {"train": "de", ...}. Raises
    ConfigError where two of them are one: training would read what validation is of."""

    VERSION: ClassVar[int] = 1

    source: Source
    names: Mapping[str, str]

    def __post_init__(self) -> None:
        splits: dict[str, str] = {}
        for name, of_source in self.names.items():
            if of_source in splits:
                raise ConfigError(
                    f"names={dict(self.names)}: {splits[of_source]!r} and {name!r} are both the "
                    f"source's {of_source!r}: its rows belong to one split"
                )
            splits[of_source] = name

    def splits(self) -> tuple[str, ...]:
        """Those of `names` that the source has."""
        there = self.source.splits()
        return tuple(name for name, of_source in self.names.items() if of_source in there)

    def shards(self, split: str) -> list[str]:
        """The source's. Raises DataError for a split that is not named."""
        return self.source.shards(self._of_source(split))

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """The source's."""
        return self.source.records(self._of_source(split), shard)

    def num_records(self, split: str) -> int | None:
        """The source's, None where it does not say."""
        of_source = getattr(self.source, "num_records", lambda split: None)
        return of_source(self._of_source(split))

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """The source's."""
        of_source = getattr(self.source, "shard_fingerprint", lambda split, shard: "")
        return of_source(self._of_source(split), shard)

    def with_columns(self, columns: Sequence[str]) -> "SplitNames":
        """The same rows with these columns alone, where the source can read them alone."""
        return dataclasses.replace(self, source=with_columns(self.source, columns))

    def _of_source(self, split: str) -> str:
        if split not in self.names:
            raise DataError(f"no split {split!r}: choose one of {list(self.names)}")
        return self.names[split]
