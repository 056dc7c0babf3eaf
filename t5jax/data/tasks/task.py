"""Text-to-text tasks: a source of rows, and how a row becomes inputs and targets.

A `TextTask` reads plain text and makes examples of its tokens with an objective, afresh
in every epoch. An `ExampleTask` has an input and a target string per example, fixed. A `Mixture`
draws from tasks at rates. All are data and plain functions: no TensorFlow, no state.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from t5jax.data.config import DataConfig
from t5jax.data.objectives import Objective, SpanCorruption
from t5jax.data.records import Row, Source

# `inputs` and `targets` are strings; whatever else a metric needs (answers, idx, choices) is beside
# them, under names of its own.
Example = Mapping[str, Any]
Metric = Callable[[Any, Any], Mapping[str, float]]  # (targets, predictions) -> {name: value}
Postprocess = Callable[..., Any]  # (text, *, example, is_target) -> what the metrics compare


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TextTask:
    """Unlabelled text with a self-supervised objective. Tasks of one `corpus` share its tokens.

    `prefix` is put in front of every row's inputs (UL2's mode tokens), and counts. Raise `version`
    when the texts change and no setting does: a store of other texts is then refused.
    """

    name: str
    description: str
    corpus: str  # names the tokenised store; tasks over the same text name the same
    source: Callable[[DataConfig], Source]
    objective: Objective = dataclasses.field(default_factory=SpanCorruption)
    prefix: str = ""
    column: str | None = "text"  # of the text in a row; None: data.text_column says
    settings: tuple[str, ...] = ()  # fields of DataConfig that the source reads
    required: tuple[str, ...] = ()  # those of them that have no usable default
    splits: tuple[str, ...] = ("train", "validation")
    version: int | str = 1

    def text(self, row: Row, data: DataConfig) -> str:
        """The text of a row. Raises BadColumn when it has none."""
        return row.text(self.column or data.text_column)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExampleTask:
    """Supervised examples: an input and a target string each.

    `examples(row)` gives the training examples of a row (none, one or several), `eval_examples`
    those of evaluation where they differ (None: the same). They raise `BadColumn` (through
    `Row.text`) for a row that lacks a column. `postprocess(text, example=..., is_target=...)` turns
    a decoded text into what `metrics` compare, as seqio's `postprocess_fn` does; `score_metrics`
    are given the log-likelihoods of the targets in place of predictions.
    `choices(example)` are the answers among which rank classification chooses. Raise `version`
    when the texts change and neither settings nor functions show it: a store is then refused.
    `unlabelled` is the target of a row without a label where a model would take it for an answer
    (STS-B's -1.0): such a row is refused in a training split, and not scored.
    """

    name: str
    description: str
    source: Callable[[DataConfig], Source]
    examples: Callable[[Row], Iterable[Example]]
    eval_examples: Callable[[Row], Iterable[Example]] | None = None
    postprocess: Postprocess | None = None
    metrics: tuple[Metric, ...] = ()
    score_metrics: tuple[Metric, ...] = ()
    choices: Callable[[Example], list[str]] | None = None
    num_examples: int | None = None  # of the published training split, for proportional mixing
    settings: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()  # of a row that `examples` reads; (): all. Others stay unread
    splits: tuple[str, ...] = ("train", "validation")
    train_splits: tuple[str, ...] = ("train",)  # those that use `examples`, not `eval_examples`
    unlabelled: str | None = None
    version: int | str = 1

    @property
    def objective(self) -> None:
        """Examples have none."""

    @property
    def prefix(self) -> str:
        """Examples have theirs in their inputs."""
        return ""


# How a feature's EOS comes: behind what was trimmed to leave it room, before trimming (so that a
# trimmed example has none), or not at all. seqio's append_eos_after_trim, append_eos, neither.
EosRule = Literal["after_trim", "before_trim", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SeqioTask:
    """A task registered with seqio: its own source and preprocessors make its texts.

    With an `objective` it is plain text, as a `TextTask`; otherwise it has inputs and targets, as
    an `ExampleTask`, or targets alone (text of a language model): `eos` has what there is.
    `not_cacheable` says why no tokenised store can stand for it: it is then made by seqio while
    training reads (data.cache_dir = None). `needs_lengths`: steps before the store are given the
    run's lengths, so that a store is one of these lengths.
    """

    name: str
    description: str
    modules: tuple[str, ...]  # what another process imports to find the task again
    splits: tuple[str, ...]
    objective: Objective | None
    eos: Mapping[str, EosRule]
    not_cacheable: str | None = None
    needs_lengths: bool = False
    settings: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """Whatever its preprocessors put there is in the texts."""
        return ""


Task = TextTask | ExampleTask | SeqioTask
