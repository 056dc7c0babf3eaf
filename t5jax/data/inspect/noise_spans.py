"""What an objective hid, told from its inputs and targets: the text before it, span by span."""

from typing import NamedTuple

import numpy as np

from t5jax.data.objectives import Denoising, Objective, PrefixLM, SpanCorruption
from t5jax.data.vocabularies import Vocabulary

_SENTINELS = ("unique_sentinels", "shared_sentinel")


class Stretch(NamedTuple):
    """A run of the original tokens (int32), and whether the model has to predict it."""

    ids: np.ndarray
    hidden: bool


def original(
    objective: Objective,
    text: np.ndarray,
    inputs: np.ndarray,
    targets: np.ndarray,
    vocabulary: Vocabulary,
) -> tuple[Stretch, ...]:
    """The tokens `text` of a row, divided into what its inputs show and what they hide.

    `inputs` and `targets` are int [K] with EOS and padding or without, inputs without a prefix. ()
    where it cannot be told: the objective leaves no trace of it, a row was cut, or bytes of the
    text are taken for sentinels.
    """
    found = _stretches(objective, _text(inputs, vocabulary), _text(targets, vocabulary), vocabulary)
    together = np.concatenate([np.zeros(0, np.int32), *(stretch.ids for stretch in found)])
    return found if np.array_equal(together, text) else ()


def _stretches(
    objective: Objective, inputs: np.ndarray, targets: np.ndarray, vocabulary: Vocabulary
) -> tuple[Stretch, ...]:
    if isinstance(objective, PrefixLM):
        return _not_empty([Stretch(inputs, False), Stretch(targets, True)])
    if isinstance(objective, SpanCorruption):
        return _by_sentinels(inputs, targets, vocabulary)
    if not isinstance(objective, Denoising):
        return ()
    if objective.inputs_code in _SENTINELS and objective.targets_code in _SENTINELS:
        return _by_sentinels(inputs, targets, vocabulary)
    if objective.targets_code == "full_text" and len(inputs) == len(targets):
        return () if objective.inputs_code == "permute" else _in_place(inputs, targets)
    return ()


def _by_sentinels(
    inputs: np.ndarray, targets: np.ndarray, vocabulary: Vocabulary
) -> tuple[Stretch, ...]:
    """The k-th sentinel of the inputs stands for the k-th run of text in the targets."""
    hidden = [run for run in _between(targets, vocabulary) if len(run)]
    shown = _between(inputs, vocabulary)
    found = [Stretch(shown[0], False)]
    for number, run in enumerate(shown[1:]):
        if number < len(hidden):
            found.append(Stretch(hidden[number], True))
        found.append(Stretch(run, False))
    return _not_empty(found)


def _between(ids: np.ndarray, vocabulary: Vocabulary) -> list[np.ndarray]:
    places = np.flatnonzero(~vocabulary.is_text(ids))
    starts, ends = np.concatenate([[0], places + 1]), np.concatenate([places, [len(ids)]])
    return [ids[start:end] for start, end in zip(starts, ends, strict=True)]


def _in_place(inputs: np.ndarray, targets: np.ndarray) -> tuple[Stretch, ...]:
    """Where the inputs are not the text something was put in its place."""
    changed = inputs != targets
    borders = np.flatnonzero(changed[1:] != changed[:-1]) + 1
    return tuple(
        Stretch(ids, bool(hidden[0]))
        for ids, hidden in zip(np.split(targets, borders), np.split(changed, borders), strict=True)
        if len(ids)
    )


def _text(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    return ids[(ids != vocabulary.eos_id) & (ids != vocabulary.pad_id)]


def _not_empty(stretches: list[Stretch]) -> tuple[Stretch, ...]:
    return tuple(stretch for stretch in stretches if len(stretch.ids))
