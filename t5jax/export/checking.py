"""What was written against the run that it was made of: other code paths, the same answers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.data.vocabularies import EOS_ID
from t5jax.decoding import DecodingConfig, Generator
from t5jax.export.functions import Functions
from t5jax.export.stablehlo import OfIds

ROWS = (2, 5)  # an export must take any number
_PER_TOKEN = {"float32": 1e-4, "bfloat16": 3e-2}  # by which log-likelihoods may differ, in nats


class Different(Exception):
    """The export answers other than the run."""


def stored_inputs(functions: Functions, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets), int32 [max(ROWS), length]: random ids with EOS, of different lengths."""
    rng = np.random.default_rng(seed)

    def ids(length: int) -> np.ndarray:
        rows = rng.integers(EOS_ID + 2, functions.num_ids, (max(ROWS), length), dtype=np.int32)
        for number, row in enumerate(rows):
            used = max(1, length * (number + 1) // max(ROWS))
            row[used - 1], row[used:] = EOS_ID, 0
        return rows

    return ids(functions.inputs_length), ids(functions.targets_length)


def compare(
    exported: Mapping[str, OfIds], generator: Generator, functions: Functions
) -> dict[str, Any]:
    """Largest differences of log-likelihoods in nats, and how many outputs are the same tokens.

    Rounding may decide between outputs that are equally likely, so an output may be another one if
    its score is as good. Raises Different for everything else.
    """
    inputs, targets = stored_inputs(functions)
    decoding = functions.decoding
    live = generator.generate([row[row > 0] for row in inputs], decoding)
    live_scores = generator.score(
        [row[row > 0] for row in inputs], [row[row > 0] for row in targets]
    )
    same, worst, worst_token = 0, 0.0, 0.0
    for rows in ROWS:
        found = exported["predict"](inputs[:rows])
        for number in range(rows):
            for place, one in enumerate(live[number]):
                ids = found["tokens"][number, place]
                same += np.array_equal(ids[(ids != 0) & (ids != EOS_ID)], one.ids)
                worst = max(worst, abs(float(found["scores"][number, place]) - one.score))
        scores = exported["score"](inputs[:rows], targets[:rows])["scores"]
        for ours, theirs in zip(scores, live_scores, strict=False):
            difference = np.abs(ours[: len(theirs.tokens)] - theirs.tokens)
            worst_token = max(worst_token, float(difference.max()))
    _refuse(worst, worst_token, functions.model.dtype, decoding)
    return {
        "batch_sizes": list(ROWS),
        "num_outputs": sum(ROWS) * decoding.num_outputs,
        "num_same_outputs": same,
        "largest_difference_of_an_outputs_score": worst,
        "largest_difference_of_a_tokens_score": worst_token,
    }


def _refuse(worst: float, worst_token: float, dtype: str, decoding: DecodingConfig) -> None:
    limit = _PER_TOKEN[dtype]
    if worst_token > limit or worst > limit * decoding.max_length:
        raise Different(
            f"the export answers other than the run: scores of tokens differ by {worst_token:.2g} "
            f"nats, of outputs by {worst:.2g}"
        )
