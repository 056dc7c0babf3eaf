"""Rank classification: the prediction is the option with the highest log-likelihood.

Every option of an example is scored as a target (log-likelihood in nats, summed over its tokens);
longer options are at a disadvantage, which dividing by the number of tokens takes away.
"""

from collections.abc import Collection, Sequence

import numpy as np

from t5jax.errors import DataError
from t5jax.metrics.classification import accuracy, f1, mean_multiclass_f1
from t5jax.metrics.sums import check_pairs


def choose(
    scores: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]] | None = None
) -> list[int]:
    """For each example the index of its best option, the first of equals.

    `scores` are log-likelihoods per option; with `lengths` (target tokens per option) each is
    divided by its length. Raises DataError for an example without options, a score that is NaN, a
    length below 1, or lists that do not fit. The result can go to any metric of class ids.
    """
    if lengths is not None and len(lengths) != len(scores):
        raise DataError(f"scores of {len(scores)} examples but lengths of {len(lengths)}")
    chosen = []
    for i, options in enumerate(scores):
        values = np.asarray(options, np.float64)
        if not len(values) or np.isnan(values).any():
            raise DataError(f"example {i} has the scores {list(options)}: wanted a number or more")
        if lengths is not None:
            sizes = np.asarray(lengths[i])
            if sizes.shape != values.shape or (sizes < 1).any():
                raise DataError(
                    f"example {i} has {len(values)} scores and the lengths {list(lengths[i])}: "
                    "wanted one of at least 1 for each"
                )
            values = values / sizes
        chosen.append(int(values.argmax()))
    return chosen


def rank_classification(
    correct: Sequence[int | Collection[int]],
    scores: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[int]] | None = None,
) -> dict[str, float]:
    """{"accuracy": ...} in percent, and F1 where all examples share the same options.

    `correct` is the index of the right option, or several where more than one is right. F1 (only
    for single indices and one number of options) is, as T5's, "f1" of option 1 when there are two
    options, and "mean_<n>class_f1", unweighted over options, when there are more. Raises DataError
    as `choose` does, and for an index without an option.
    """
    check_pairs(correct, scores)
    chosen = choose(scores, lengths)
    right = [{c} if isinstance(c, (int, np.integer)) else set(c) for c in correct]
    for i, (indices, options) in enumerate(zip(right, scores, strict=True)):
        if not indices or not indices <= set(range(len(options))):
            raise DataError(f"example {i} has {len(options)} options, correct is {correct[i]!r}")
    hits = [c if c in indices else min(indices) for indices, c in zip(right, chosen, strict=True)]
    values = accuracy(hits, chosen)
    num_options = {len(options) for options in scores}
    if len(num_options) == 1 and num_options != {1} and all(len(s) == 1 for s in right):
        n = num_options.pop()
        values |= f1(hits, chosen) if n == 2 else mean_multiclass_f1(n)(hits, chosen)
    return values
