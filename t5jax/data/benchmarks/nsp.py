"""Next sentence prediction (Devlin et al. 2018) from plain documents.

`nsp: <sentence> <sentence>` -> `next` or `not_next`, as T5's `next_sentence_prediction`: pairs of
neighbouring sentences of a line, two pairs at a time either as they are or with their second
sentences exchanged. T5 shuffles a buffer; here the pairs of a block of documents are permuted by
the block's number and the choice is a hash, so a shard always gives the same examples.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from t5jax.data.benchmarks.classification import ClassOfText, FixedChoices, label_text
from t5jax.data.config import DataConfig
from t5jax.data.records import BadColumn, BadRecord, Record, Row, Source
from t5jax.data.rng import Permutation, derive_seed, integers_below
from t5jax.data.sources import JsonLines, TextFiles, Tfds
from t5jax.data.tasks.task import Example, ExampleTask
from t5jax.errors import ConfigError
from t5jax.metrics.classification import accuracy

RELATIONS = ("not_next", "next")
_DRAWS = 1 << 32
_SENTENCE = re.compile(r"[^.!?]*(?:[.!?]+|$)")


def neighbouring_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Sentences that follow each other in a line; a line without two has none.

    A sentence ends at a run of full stops, question and exclamation marks.
    """
    for line in text.split("\n"):
        sentences = [found.strip() for found in _SENTENCE.findall(line)]
        yield from itertools.pairwise(sentence for sentence in sentences if sentence)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SentencePairs:
    """A source of documents as a source of sentence pairs: columns first, second, label.

    `block` documents are read at a time and their pairs mixed; the share of true neighbours is
    `neighbours`. A block's last pair, when their number is odd, stays as it is.
    """

    VERSION: ClassVar[int] = 1

    documents: Source
    column: str = "text"
    seed: int = 0
    block: int = 256
    neighbours: float = 0.5

    def __post_init__(self) -> None:
        if self.block < 1 or not 0.0 <= self.neighbours <= 1.0:
            raise ConfigError(
                f"block={self.block}, neighbours={self.neighbours}: give a block of 1 or more "
                "documents and a share from 0 to 1"
            )

    def splits(self) -> tuple[str, ...]:
        return self.documents.splits()

    def shards(self, split: str) -> list[str]:
        return self.documents.shards(split)

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """What the documents' source says of the shard, and the settings here."""
        of_shard = getattr(self.documents, "shard_fingerprint", None)
        settings = f"{self.column}, {self.seed}, {self.block}, {self.neighbours}"
        return f"{of_shard(split, shard) if of_shard else ''}, sentence pairs {settings}"

    def records(self, split: str, shard: str) -> Iterator[Record]:
        records = self.documents.records(split, shard)
        for number in itertools.count():
            chunk = list(itertools.islice(records, self.block))
            if not chunk:
                return
            pairs: list[Row] = []
            for record in chunk:
                try:
                    pairs += [] if isinstance(record, BadRecord) else self._pairs(record)
                except BadColumn as error:
                    record = BadRecord(record.place, str(error))
                if isinstance(record, BadRecord):
                    yield record
            yield from self._mixed(pairs, derive_seed(self.seed, f"{split}/{number}"))

    def _pairs(self, document: Row) -> list[Row]:
        return [
            Row({"first": first, "second": second, "label": 1}, document.place)
            for first, second in neighbouring_pairs(document.text(self.column))
        ]

    def _mixed(self, pairs: list[Row], seed: int) -> Iterator[Row]:
        if not pairs:
            return
        order = Permutation(len(pairs), seed, 0)(np.arange(len(pairs)))
        draws = integers_below(_DRAWS, derive_seed(seed, "exchange"), np.arange(len(pairs) // 2))
        for number, draw in enumerate(draws):
            one, other = pairs[order[2 * number]], pairs[order[2 * number + 1]]
            if draw < self.neighbours * _DRAWS:
                yield from (one, other)
            else:
                yield Row({**one, "second": other["second"], "label": 0}, one.place)
                yield Row({**other, "second": one["second"], "label": 0}, other.place)
        if len(pairs) % 2:
            yield pairs[order[-1]]


def nsp_examples(row: Row) -> Iterator[Example]:
    """`nsp: <first> <second>` -> next / not_next."""
    yield {
        "inputs": f"nsp: {row.text('first')} {row.text('second')}",
        "targets": label_text(row, RELATIONS),
    }


def next_sentence_prediction(
    name: str,
    description: str,
    documents: Callable[[DataConfig], Source],
    *,
    settings: tuple[str, ...],
    required: tuple[str, ...] = (),
) -> ExampleTask:
    """A next sentence prediction task over any source of documents with a column `text`."""
    return ExampleTask(
        name=name,
        description=description,
        source=_PairsOf(documents),
        examples=nsp_examples,
        postprocess=ClassOfText(RELATIONS),
        metrics=(accuracy,),
        choices=FixedChoices(RELATIONS),
        settings=settings,
        required=required,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _PairsOf:
    documents: Callable[[DataConfig], Source]

    def __call__(self, data: DataConfig) -> Source:
        return SentencePairs(documents=self.documents(data))


def _c4(data: DataConfig) -> Source:
    return Tfds(name="c4/en", data_dir=data.tfds_data_dir)


def _json_lines(data: DataConfig) -> Source:
    return JsonLines(train_files=data.train_files, validation_files=data.validation_files)


def _text_files(data: DataConfig) -> Source:
    return TextFiles(train_files=data.train_files, validation_files=data.validation_files)


_FILES = ("train_files", "validation_files")

TASKS: tuple[ExampleTask, ...] = (
    next_sentence_prediction(
        "c4_next_sentence_prediction",
        "C4 (en) as TFDS prepared it, do two sentences follow each other?",
        _c4,
        settings=("tfds_data_dir",),
    ),
    next_sentence_prediction(
        "jsonl_next_sentence_prediction",
        "your JSON lines (column text), do two sentences follow each other?",
        _json_lines,
        settings=_FILES,
        required=("train_files",),
    ),
    next_sentence_prediction(
        "text_next_sentence_prediction",
        "your text files, do two sentences follow each other?",
        _text_files,
        settings=_FILES,
        required=("train_files",),
    ),
)
