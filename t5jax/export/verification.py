"""Verification of an export: its outputs equal those of the run, which other code computes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.decoding import DecodingConfig, Generator
from t5jax.export.functions import ExportFunctions
from t5jax.export.stablehlo import IdsFunction

ROWS = (2, 5)  # batch sizes that are verified
_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of log-likelihoods, in nats per token


class ExportMismatch(Exception):
    """The outputs of the export differ from those of the run."""


def verification_inputs(functions: ExportFunctions, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets), int32 [max(ROWS), length]: random ids with EOS, of different lengths."""
    rng = np.random.default_rng(seed)
    model = functions.model
    special = (model.pad_id, model.eos_id, model.decoder_start_id)
    usable = np.setdiff1d(np.arange(functions.num_ids, dtype=np.int32), special)[1:]

    def ids(length: int) -> np.ndarray:
        rows = rng.choice(usable, (max(ROWS), length))
        for number, row in enumerate(rows):
            used = max(1, length * (number + 1) // max(ROWS))
            row[used - 1], row[used:] = model.eos_id, model.pad_id
        return rows

    return ids(functions.inputs_length), ids(functions.targets_length)


def verify_export(
    exported: Mapping[str, IdsFunction], generator: Generator, functions: ExportFunctions
) -> dict[str, Any]:
    """Largest differences of log-likelihoods in nats, and how many outputs are the same tokens.

    Rounding may decide between outputs that are equally likely, so an output may be another one if
    its score is as good. Raises ExportMismatch for any other difference.
    """
    inputs, targets = verification_inputs(functions)
    decoding, pad_id, eos_id = functions.decoding, functions.model.pad_id, functions.model.eos_id
    without_padding = lambda rows: [row[row != pad_id] for row in rows]
    expected = generator.generate(without_padding(inputs), decoding)
    expected_scores = generator.score(without_padding(inputs), without_padding(targets))
    num_same, output_difference, token_difference = 0, 0.0, 0.0
    for rows in ROWS:
        found = exported["predict"](inputs[:rows])
        for row in range(rows):
            for k, output in enumerate(expected[row]):
                ids = found["tokens"][row, k]
                num_same += np.array_equal(ids[(ids != pad_id) & (ids != eos_id)], output.ids)
                difference = abs(float(found["scores"][row, k]) - output.score)
                output_difference = max(output_difference, difference)
        scores = exported["score"](inputs[:rows], targets[:rows])["scores"]
        for found_scores, score in zip(scores, expected_scores, strict=False):
            difference = np.abs(found_scores[: len(score.tokens)] - score.tokens)
            token_difference = max(token_difference, float(difference.max()))
    _check_differences(output_difference, token_difference, functions.model.dtype, decoding)
    return {
        "batch_sizes": list(ROWS),
        "num_outputs": sum(ROWS) * decoding.num_outputs,
        "num_same_outputs": num_same,
        "max_output_score_difference": output_difference,
        "max_token_score_difference": token_difference,
    }


def _check_differences(output: float, token: float, dtype: str, decoding: DecodingConfig) -> None:
    limit = _TOLERANCE[dtype]
    if token > limit or output > limit * decoding.max_length:
        raise ExportMismatch(
            f"the outputs of the export differ from those of the run: scores of tokens by "
            f"{token:.2g} nats, of outputs by {output:.2g}"
        )
