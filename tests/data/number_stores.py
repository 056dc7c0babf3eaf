"""Texts whose tokens are numbers, so that every token can be told from every other."""

import dataclasses

import numpy as np

from t5jax.data.store.reader import TokenStream
from t5jax.data.vocabularies import ByteVocabulary

FIRST_SENTINEL = 60_000
EOS = 1


class Numbers(ByteVocabulary):
    """Texts are numbers with spaces between them; ids are the numbers."""

    vocab_size = FIRST_SENTINEL + 100
    num_sentinels = 100

    def encode(self, text, *, sentinels=True):
        return np.array(text.split(), np.int32)

    def decode(self, ids):
        return " ".join(str(token) for token in ids)


VOCABULARY = Numbers()


def numbered(lengths, first=3):
    """int32 ids of documents of the given lengths: first, first + 1, ... through all of them."""
    ends = np.cumsum(lengths)
    return [
        np.arange(first + end - n, first + end, dtype=np.int32)
        for n, end in zip(lengths, ends.tolist(), strict=True)
    ]


def stream_of(shards):
    """A `TokenStream` of several shards in memory, each a list of documents (int32 ids)."""
    tokens = [np.concatenate([np.zeros(0, np.int32), *shard]).astype(np.uint16) for shard in shards]
    ends = [np.cumsum([len(d) for d in shard], dtype=np.uint64) for shard in shards]
    sizes = [len(x) for x in tokens]
    return TokenStream(np.dtype(np.uint16), sizes, tokens.__getitem__, ends.__getitem__)


@dataclasses.dataclass
class MemoryTexts:
    """Texts of a store or of a live task, from memory: shard -> documents, ids by feature."""

    content: dict[str, list[dict[str, np.ndarray]]]
    features: tuple[str, ...] = ("text",)
    name: str = "memory"

    def identity(self):
        return {"name": self.name, "features": list(self.features)}

    def shards(self, split):
        return list(self.content)

    def shard_fingerprint(self, split, shard):
        return ""

    def documents(self, split, shard, rejected):
        for document in self.content[shard]:
            yield {name: document[name] for name in self.features}


def texts_of_shards(shards):
    """`MemoryTexts` of plain documents."""
    return MemoryTexts(
        {f"part-{i}": [{"text": d} for d in shard] for i, shard in enumerate(shards)}
    )


def examples_of_shards(shards):
    """`MemoryTexts` of (inputs, targets) pairs."""
    content = {
        f"part-{i}": [{"inputs": x, "targets": y} for x, y in shard]
        for i, shard in enumerate(shards)
    }
    return MemoryTexts(content, ("inputs", "targets"))


def random_examples(count, longest_inputs, longest_targets, *, seed=0, first=3):
    """(inputs, targets) of random lengths, some of them 0; no number twice."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, [longest_inputs + 1, longest_targets + 1], (count, 2))
    flat = numbered(lengths.ravel().tolist(), first)
    return list(zip(flat[::2], flat[1::2], strict=True))


def text_tokens(*arrays):
    """All tokens that are neither padding, EOS nor sentinels."""
    ids = np.concatenate([np.asarray(x).ravel() for x in arrays])
    return ids[(ids > EOS) & (ids < FIRST_SENTINEL)]


def recovered(inputs, targets):
    """The text of a row: inputs with each sentinel replaced by what follows it in the targets."""
    hidden, text, current = {}, [], []
    for token in targets.tolist():
        if token >= FIRST_SENTINEL:
            hidden[token] = current = []
        elif token > EOS:
            current.append(token)
    for token in inputs.tolist():
        if token > EOS:
            text += hidden[token] if token >= FIRST_SENTINEL else [token]
    return text


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key], err_msg=key)
