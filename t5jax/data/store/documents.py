"""Documents to tokenise: the protocol of what a tokenised store or streaming reads of a task."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from t5jax.data.records import Rejected
from t5jax.data.vocabularies import Vocabulary

# One document or example: each feature's text, or its ids (int32, no EOS) where a task tokenises
# itself.
Document = Mapping[str, str | np.ndarray]


class DocumentSource(Protocol):
    """Documents of a task in shards. Must be picklable: every process of a build gets a copy.

    One whose documents are others in every epoch, and so are never stored, also has
    `of_epoch(epoch) -> DocumentSource`.
    """

    @property
    def features(self) -> tuple[str, ...]:
        """("text",) or ("inputs", "targets")."""
        ...

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist."""
        ...

    def identity(self) -> dict[str, Any]:
        """Whatever decides what the documents are, as JSON."""
        ...

    def shards(self, split: str) -> list[str]:
        """Names of the split's shards, in their order."""
        ...

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """Changes when the shard does (size and time, a checksum): it is then made again."""
        ...

    def documents(self, split: str, shard: str, rejected: Rejected) -> Iterator[Document]:
        """The documents of one shard, the same ones in the same order every time; what is left
        out is counted in `rejected`."""
        ...


def encoded_documents(
    texts: DocumentSource, split: str, rejected: Rejected, vocabulary: Vocabulary
) -> Iterator[dict[str, np.ndarray]]:
    """`encode_document` of all documents of a split, shard after shard."""
    for shard in texts.shards(split):
        for document in texts.documents(split, shard, rejected):
            yield encode_document(document, vocabulary)


def encode_document(document: Document, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """int32 ids of each feature. A literal `<extra_id_0>` is text in a document, and a sentinel in
    the inputs and targets of a task, which its author wrote."""
    return {
        name: vocabulary.encode(text, sentinels=name != "text") if isinstance(text, str) else text
        for name, text in document.items()
    }
