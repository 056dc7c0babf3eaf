"""Rank classification: the prediction is the option with the highest log-likelihood.

Every option of an example is scored as a target (log-likelihood in nats, summed over its tokens);
longer options are at a disadvantage, which dividing by the number of tokens takes away.
"""

from collections.abc import Sequence

import numpy as np

from t5jax.errors import DataError


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
