"""Documents to tokenise: the protocol of what a tokenised store or streaming reads of a task."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from t5jax.data.records import BadRecord, BadRecordPolicy, Rejected
from t5jax.data.store.spelling import SpellingCounter
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import is_failure

# One document or example: each feature's text, or its ids (int32, no EOS) where a task tokenises
# itself.
Document = Mapping[str, str | np.ndarray]


class DocumentSource(Protocol):
    """Documents of a task in shards. Must be picklable: every process of a build gets a copy.

    One whose documents are others in every epoch, and so are never stored, also has
    `of_epoch(epoch) -> DocumentSource`; one with a `policy` leaves out documents that the
    vocabulary fails on, too. A document may know its `place`.
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
    texts: DocumentSource, split: str, rejected: Rejected, vocabulary: Vocabulary,
    spelling: SpellingCounter | None = None,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """The ids of all documents of a split, shard after shard, counted by `spelling`."""
    for shard in texts.shards(split):
        for document, ids in encoded_shard(texts, split, shard, rejected, vocabulary):
            if spelling is not None:
                spelling.add(document, ids)
            yield ids


def encoded_shard(
    texts: DocumentSource, split: str, shard: str, rejected: Rejected, vocabulary: Vocabulary
) -> Iterator[tuple[Document, dict[str, np.ndarray]]]:
    """The documents of a shard with their ids. Raises DataError, with the place, for one that the
    vocabulary fails on; the texts' policy may leave it out instead."""
    policy, failed, number = policy_of(texts), [], 0
    for number, document in enumerate(texts.documents(split, shard, rejected), 1):
        encoded = encode_document(document, vocabulary, f"{shard}: document {number - 1}")
        if not isinstance(encoded, BadRecord):
            yield document, encoded
            continue
        leave_out(encoded, policy, rejected)
        failed.append(f"{encoded.place}: {encoded.reason}")
    policy.check_share(len(failed), number, failed)


def policy_of(texts: DocumentSource) -> BadRecordPolicy:
    """The policy of the texts for what cannot be used; without one nothing is left out."""
    return getattr(texts, "policy", None) or BadRecordPolicy()


def leave_out(record: BadRecord, policy: BadRecordPolicy, rejected: Rejected) -> None:
    """Counts a document that the vocabulary fails on; raises it under the policy "error"."""
    if policy.policy == "error":
        raise record.error()
    rejected.add(record.place, record.reason)


def encode_document(
    document: Document, vocabulary: Vocabulary, place: str
) -> dict[str, np.ndarray] | BadRecord:
    """int32 ids of each feature, or why the vocabulary fails on it. A literal `<extra_id_0>` is
    text in a document, and a sentinel in the inputs and targets of a task, which its author
    wrote. `place` is for documents that do not know theirs."""
    try:
        return {
            name: vocabulary.encode(text, sentinels=name != "text")
            if isinstance(text, str)
            else text
            for name, text in document.items()
        }
    except BaseException as error:
        if not is_failure(error):
            raise
        where = getattr(document, "place", "") or place
        return BadRecord.from_failure(where, error, f"the vocabulary {vocabulary.kind}")
