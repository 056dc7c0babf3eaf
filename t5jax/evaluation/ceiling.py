"""What a metric can reach at most, where a vocabulary cannot spell all targets of a task.

A model answers in ids. A target that holds characters without a piece, or that decodes to another
text than it was (Unicode normalisation, white space), is never its answer; so the metrics are also
taken of the targets themselves, encoded and decoded.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5jax.data.store.spelling import (
    NO_TARGET,
    SpellingCounter,
    SpellingCounts,
    unspelled_targets,
)
from t5jax.data.vocabularies import Vocabulary
from t5jax.evaluation.examples import TaskExamples

EXACT_MATCH = "exact match"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Of a task: how many of its `targets` hold characters that the vocabulary cannot spell
    (`unknown`) or come back in another form (`changed`), and what metrics can reach by name, with
    "exact match" for any that compares whole outputs."""

    task: str
    targets: int
    unknown: int
    changed: int
    values: Mapping[str, float]

    def __str__(self) -> str:
        """`TASK: exact match can reach at most 41.2: 588 of 1,000 targets cannot be spelled …`."""
        said = unspelled_targets(self.unknown, self.changed, self.targets)
        first, *others = [f"{name} {value:.1f}" for name, value in self.values.items()] or [""]
        if not first:
            return f"{self.task}: {said}"
        name, _, value = first.rpartition(" ")
        more = "".join(f", {other}" for other in others)
        return f"{self.task}: {name} can reach at most {value}{more}: {said}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the task."""
        fields = dataclasses.asdict(self)
        del fields["task"]
        return fields


def find_ceiling(
    task: TaskExamples, vocabulary: Vocabulary, *, ranked: bool = False
) -> Ceiling | None:
    """The ceiling that a vocabulary puts on the metrics of a task; None where it can say every
    target, and where the answers are `ranked` choices, which nobody has to spell.

    The values are those of t5jax's own metrics; one of others may take hours, and is not called.
    """
    if ranked or not task.has_targets or not task.metrics:
        return None
    counts, spelled = SpellingCounts(), []
    counter = SpellingCounter(vocabulary)
    for example in task.examples:
        if example.targets == NO_TARGET:
            spelled.append(NO_TARGET)
            continue
        ids = vocabulary.encode(example.targets)
        spelled.append(vocabulary.decode(ids))
        counts.add(counter.of_text(example.targets, ids))
    if not counts.unknown_texts and not counts.changed_texts:
        return None
    values = _values(task, spelled)
    if values.get(EXACT_MATCH) == 100.0:  # the task's postprocessing takes both forms for one
        values = {}
        if not counts.unknown_texts:
            return None
    return Ceiling(
        task=task.task,
        targets=counts.texts,
        unknown=counts.unknown_texts,
        changed=counts.changed_texts,
        values=values,
    )


def _values(task: TaskExamples, spelled: list[str]) -> dict[str, float]:
    """Metric values of the targets as the vocabulary spells them; none where the task's own code
    fails on them, which the scores of the predictions will say."""
    try:
        targets, answers = task.postprocessed_targets(), task.postprocessed_predictions(spelled)
        same = sum(bool(x == y) for x, y in zip(targets, answers, strict=True))
        values = {EXACT_MATCH: 100.0 * same / len(targets)}
        for metric in task.metrics:
            if str(getattr(metric, "__module__", "")).startswith("t5jax.metrics"):
                found = metric(targets, answers)
                values |= {name: float(value) for name, value in found.items()}
    except Exception:  # foreign code: whatever it raises
        return {}
    return values
