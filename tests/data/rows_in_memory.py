"""A source of rows from memory, as tasks of a test read them."""

import dataclasses

from t5jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Rows:
    """Split -> shards -> records."""

    content: dict[str, list[list]] = dataclasses.field(repr=False)

    def splits(self):
        return tuple(self.content)

    def shards(self, split):
        if split not in self.content:
            raise DataError(f"no split {split!r}")
        return [f"{split}-{number}" for number in range(len(self.content[split]))]

    def records(self, split, shard):
        yield from self.content[split][int(shard.rpartition("-")[2])]
