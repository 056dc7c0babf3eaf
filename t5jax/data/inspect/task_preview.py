"""A task looked at before a run: its first examples as the model would see them, measured.

Read from the source, not from a store, and made into rows by what makes those of training; only the
order is that of the source. Nothing is printed here.

Shapes: N examples or documents, R rows, V ids of the vocabulary.
"""

import copy
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.inspect.catalog import Entry, entry
from t5jax.data.inspect.noise_spans import Stretch, original
from t5jax.data.objectives import Objective
from t5jax.data.pipeline.converters import encoder_decoder
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.opening import make_rows
from t5jax.data.pipeline.rows import Rows
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.records import Rejected
from t5jax.data.registry import builtin
from t5jax.data.registry.names import Definitions, check_name
from t5jax.data.registry.resolve import TRAIN, ResolvedMixture, resolve_definitions
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.documents import encoded_documents
from t5jax.data.store.reader import TokenStream
from t5jax.data.store.spelling import SpellingCounter, SpellingCounts, refuse_unspellable
from t5jax.data.tasks.task import SeqioTask, Task
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError
from t5jax.types import Batch

_SPLITS = ("train", "validation", "test")  # which one is shown where none is named
QUANTILES = (50, 90, 95, 99, 100)  # in percent


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of every example (or document, or row), before anything is cut: int64 [N].

    `limit` is what the config leaves them, `truncated` the share that is longer (None: they are
    joined or made to fit, so nothing is cut).
    """

    tokens: np.ndarray
    limit: int | None = None
    truncated: float | None = None

    def quantiles(self) -> dict[int, int]:
        """The least length that is not exceeded by 50, 90, 95, 99, 100 percent."""
        found = np.percentile(self.tokens, QUANTILES, method="inverted_cdf")
        return dict(zip(QUANTILES, map(int, found), strict=True))

    def histogram(self, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
        """(counts [K], edges [K + 1]) of at most `num_bins` bins of a round width.

        A long tail goes into the last bin, whose edge is the longest length + 1.
        """
        longest = int(self.tokens.max())
        shown = min(longest, max(self.quantiles()[99], self.limit or 0))
        width = _round_width(shown + 1, num_bins)
        edges = np.arange(0, shown + 1 + width, width)
        if longest >= edges[-1]:
            edges[-1] = longest + 1
        return np.histogram(self.tokens, bins=edges)[0], edges


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One example, or one row of plain text: int32 ids with EOS, and the text they stand for.

    `original` is the text before the objective, with what it hid; () where that cannot be told.
    """

    inputs: np.ndarray
    targets: np.ndarray
    inputs_text: str
    targets_text: str
    original: tuple[Stretch, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskPreview:
    """The first `num_scanned` examples (documents, of plain text) of a split.

    `lengths` by what they are of: `documents` (plain text), `inputs`, `targets`. `fill` is the
    share of the rows' positions that are not padding, by feature. `rows` are rows `row_ids`, spread
    over all, int32 [R, …] as `converters.encoder_decoder` gives them. `id_counts`, int64 [V], are
    over the texts before the objective; `sentinel_counts`, by the sentinel's number, over the rows'
    inputs. `raw_length` is the text of a row before the objective.
    """

    about: Entry
    source: str  # where the rows come from, with its settings; "" where the description says it
    splits: tuple[str, ...]
    split: str
    vocabulary: Vocabulary
    objective: Objective | None
    inputs_length: int
    targets_length: int
    num_scanned: int
    complete: bool  # the split has no more
    rejected: Rejected
    spelling: Mapping[str, SpellingCounts]  # by feature: what the vocabulary cannot spell
    max_unknown_share: float
    examples: tuple[Shown, ...]
    lengths: dict[str, Lengths]
    fill: dict[str, float]
    num_rows: int
    raw_length: int | None
    packed: bool
    row_ids: tuple[int, ...]
    rows: Batch
    id_counts: np.ndarray
    sentinel_counts: np.ndarray

    @property
    def unknown_rate(self) -> float:
        """The share of the texts' tokens that are the unknown piece."""
        return float(self.id_counts[self.vocabulary.unk_id] / max(self.id_counts.sum(), 1))

    def check_spelling(self) -> None:
        """Raises DataError when the vocabulary cannot spell what the config lets pass."""
        where = f"split {self.split!r} of {self.about.name}"
        refuse_unspellable(self.spelling, self.max_unknown_share, where, self.vocabulary)

    def numbers(self) -> dict[str, Any]:
        """Everything measured, as JSON can write it; without rows and counts of ids."""
        return {
            "split": self.split,
            "splits": list(self.splits),
            "num_scanned": self.num_scanned,
            "complete": self.complete,
            "left_out": dataclasses.asdict(self.rejected),
            "inputs_length": self.inputs_length,
            "targets_length": self.targets_length,
            "lengths": {
                name: {"quantiles": of.quantiles(), "limit": of.limit, "truncated": of.truncated}
                for name, of in self.lengths.items()
            },
            "non_padding": self.fill,
            "num_rows": self.num_rows,
            "packed": self.packed,
            "unknown_rate": self.unknown_rate,
            "spelling": {name: counts.to_dict() for name, counts in self.spelling.items()},
            "examples": [
                {"inputs": shown.inputs_text, "targets": shown.targets_text}
                for shown in self.examples
            ],
        }


def preview(
    task: Task,
    data: DataConfig,
    *,
    split: str | None = None,
    num_examples: int = 3,
    num_rows: int = 6,
    scan: int = 2000,
) -> TaskPreview:
    """Looks at the first `scan` examples of a split of a task, with the config's vocabulary,
    lengths, objective and policy for bad records. Without a `split`: train, or what there is.

    Raises ConfigError for a setting that the task needs or that does not fit it, DataError for an
    unknown split and for records that the policy does not let pass.
    """
    data = settings_for(task, data)
    data.check()
    check_name(data)
    mixture = resolve_definitions(Definitions(task.name, (task,), None, {}), data, None)
    (resolved,) = mixture.tasks
    texts = task_documents(task, data)
    splits, rejected = texts.splits(), Rejected()
    usual = [name for name in _SPLITS if name in splits]
    split = split or (*usual, *splits, TRAIN)[0]
    if split not in splits:
        raise DataError(f"task {task.name} has no split {split!r}: choose one of {list(splits)}")
    speller = SpellingCounter(data.vocabulary)
    documents = encoded_documents(texts, split, rejected, data.vocabulary, speller)
    taken = list(itertools.islice(documents, scan))
    spelling = copy.deepcopy(speller.counts)
    complete = next(documents, None) is None
    streams = {
        name: TokenStream.of_documents([document[name] for document in taken])
        for name in texts.features
    }
    if not sum(stream.num_tokens for stream in streams.values()):
        raise DataError(f"split {split!r} of {task.name} has no text in its first {scan} examples")
    look = _look_at_text if resolved.objective is not None else _look_at_examples
    return TaskPreview(
        about=entry(task, data),
        source="" if isinstance(task, SeqioTask) else str(task.source(data)),
        splits=tuple(splits),
        split=split,
        vocabulary=data.vocabulary,
        objective=resolved.objective,
        inputs_length=data.inputs_length,
        targets_length=mixture.row_format.targets_length,
        num_scanned=len(taken),
        complete=complete,
        rejected=rejected,
        spelling=spelling,
        max_unknown_share=data.max_unknown_share,
        id_counts=_id_counts(streams, data.vocabulary),
        **look(mixture, streams, num_examples, num_rows),
    )


def settings_for(task: Task, data: DataConfig) -> DataConfig:
    """The data section of a run, perhaps of a mixture, for this task alone: what other tasks read
    and this one does not is left out, as if it had not been set."""
    readable = {name for one in builtin.TABLE.values() for name in getattr(one, "settings", ())}
    ignored = readable.difference(task.settings)
    if task.objective is None:
        ignored |= {"objective", "max_text_tokens"}
    else:
        ignored |= {"pack"}
    if registry.find_builtin(task.name) is not None:
        ignored |= {"modules"}
    defaults = {f.name: f.default for f in dataclasses.fields(data) if f.name in ignored}
    return dataclasses.replace(data, mixture=task.name, **defaults)


def _look_at_text(
    mixture: ResolvedMixture, streams: dict[str, TokenStream], num_examples: int, num_rows: int
) -> dict[str, Any]:
    """Documents joined and cut into rows, of which the objective makes inputs and targets."""
    (task,), data = mixture.tasks, mixture.data
    rows = make_rows(task, streams, mixture, shuffle=False)
    assert isinstance(rows, TextRows)
    assert task.objective is not None
    features = rows.read(np.arange(rows.num_rows))
    pad_id = data.vocabulary.pad_id
    counts = {"inputs": features.inputs != pad_id, "targets": features.targets != pad_id}
    full = slice(None, -1 if rows.num_rows > 1 else None)  # the last row has what is left
    lengths = {"documents": Lengths(tokens=np.diff(streams["text"].offsets()))}
    limits = {"inputs": data.inputs_length, "targets": features.targets.shape[1]}
    for name, is_token in counts.items():
        if is_token.any():
            lengths[name] = Lengths(tokens=is_token.sum(axis=1)[full], limit=limits[name])
    shown = [
        _shown(features.inputs[row], features.targets[row], data.vocabulary)
        for row in range(min(num_examples, rows.num_rows))
    ]
    prefix = len(task.prefix_ids)
    return {
        "examples": tuple(
            dataclasses.replace(
                one,
                original=original(
                    task.objective,
                    _raw_text(rows, row, streams["text"]),
                    one.inputs[prefix:],
                    one.targets,
                    data.vocabulary,
                ),
            )
            for row, one in enumerate(shown)
        ),
        "lengths": lengths,
        "fill": {
            name: float(is_token.mean()) for name, is_token in counts.items() if is_token.any()
        },
        "num_rows": rows.num_rows,
        "raw_length": rows.raw,
        "packed": rows.packs,
        **_rows_shown(rows, num_rows),
        "sentinel_counts": _sentinel_counts(features.inputs, data.vocabulary),
    }


def _raw_text(rows: TextRows, row: int, stream: TokenStream) -> np.ndarray:
    """int32: the tokens of a row before the objective."""
    pieces = [
        stream.read_rows(np.array([start]), length)[0]
        for _, start, length, _ in rows.stretches(row)
        if length
    ]
    return np.concatenate([np.zeros(0, np.int32), *pieces])


def _look_at_examples(
    mixture: ResolvedMixture, streams: dict[str, TokenStream], num_examples: int, num_rows: int
) -> dict[str, Any]:
    """Examples trimmed to their lengths, one in a row or packed."""
    (task,), data = mixture.tasks, mixture.data
    unpacked = dataclasses.replace(mixture, data=dataclasses.replace(data, pack=False))
    single = make_rows(task, streams, unpacked, shuffle=False)
    assert isinstance(single, ExampleRows)
    rows = make_rows(task, streams, mixture, shuffle=False) if data.pack else single
    assert isinstance(rows, ExampleRows)
    limits = {"inputs": data.inputs_length, "targets": mixture.row_format.targets_length}
    features = single.read(np.arange(single.num_rows))
    ends = {name: rule != "none" for name, rule in single.identity()["eos"].items()}
    return {
        "examples": tuple(
            _shown(features.inputs[n], features.targets[n], data.vocabulary)
            for n in range(min(num_examples, single.num_examples))
        ),
        "lengths": {
            name: Lengths(
                tokens=single.lengths(name) + ends[name],
                limit=limits[name],
                truncated=single.num_trimmed[name] / single.num_examples,
            )
            for name in single.features
        },
        "fill": rows.fill,
        "num_rows": rows.num_rows,
        "raw_length": None,
        "packed": rows.packs,
        **_rows_shown(rows, num_rows),
        "sentinel_counts": _sentinel_counts(features.inputs, data.vocabulary),
    }


def _rows_shown(rows: Rows, num_rows: int) -> dict[str, Any]:
    """Some rows from the first to the last: packing puts the longest examples in front."""
    ids = np.unique(np.linspace(0, rows.num_rows - 1, num_rows).astype(np.int64))
    return {"row_ids": tuple(ids.tolist()), "rows": encoder_decoder(rows.read(ids))}


def _shown(inputs: np.ndarray, targets: np.ndarray, vocabulary: Vocabulary) -> Shown:
    pad_id, eos_id = vocabulary.pad_id, vocabulary.eos_id
    inputs, targets = inputs[inputs != pad_id], targets[targets != pad_id]
    return Shown(
        inputs=inputs,
        targets=targets,
        inputs_text=vocabulary.decode(inputs[inputs != eos_id]),
        targets_text=vocabulary.decode(targets[targets != eos_id]),
    )


def _id_counts(streams: dict[str, TokenStream], vocabulary: Vocabulary) -> np.ndarray:
    counts = np.zeros(vocabulary.vocab_size, np.int64)
    for stream in streams.values():
        if stream.num_tokens:
            tokens = stream.read_rows(np.zeros(1, np.int64), stream.num_tokens)[0]
            found = np.bincount(tokens, minlength=len(counts))
            if len(found) > len(counts):
                raise DataError(
                    f"id {len(found) - 1} is not in the vocabulary, which has {len(counts)}: the "
                    "task and data.vocabulary must have the same one"
                )
            counts += found
    return counts


def _sentinel_counts(inputs: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [sentinels]: how often each stands in the inputs."""
    counts = np.bincount(inputs.ravel(), minlength=vocabulary.vocab_size)
    return counts[list(vocabulary.sentinel_ids)]


def _round_width(total: int, num_bins: int) -> int:
    """The least of 1, 2, 5, 10, 20, … of which `num_bins` cover the total."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale * num_bins >= total:
                return step * scale
        scale *= 10
