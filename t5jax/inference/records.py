"""What an output line says of a row, beside the row's own columns."""

import math
from collections.abc import Callable
from typing import Any

from t5jax.inference.blanks import fill, has_blanks
from t5jax.inference.text_model import Prediction, TextScore, best

# Every key that a line may have beside the columns of its row.
PREDICTED = frozenset(("output", "score", "step", "outputs", "scores", "filled"))
PREDICTED |= {"input_truncated", "output_truncated"}
SCORED = frozenset(("score", "score_per_token", "num_tokens", "step", "tokens", "token_scores"))
SCORED |= {"input_truncated"}


def predicted(text: str, prediction: Prediction, step: int | list[int], num_outputs: int) -> dict:
    """What a record says beside the columns of its row."""
    output, score = best(prediction)
    found = {"output": output, "score": _number(score), "step": step}
    if num_outputs > 1:
        found["outputs"] = [one.text for one in prediction.outputs]
        found["scores"] = [_number(one.score) for one in prediction.outputs]
    if has_blanks(text):
        found["filled"] = fill(text, output)
    if prediction.input_truncated:
        found["input_truncated"] = True
    if not all(one.ended for one in prediction.outputs):
        found["output_truncated"] = True
    return found


def shown(record: dict[str, Any]) -> str:
    """For a reader: the outputs, a line each, or the text with its blanks filled."""
    return record.get("filled") or "\n".join(record.get("outputs", [record["output"]]))


def scored(
    score: TextScore, step: int | list[int], pieces: Callable[[int], str] | None
) -> dict[str, Any]:
    """What a record says beside the columns of its row; tokens with `pieces`."""
    found: dict[str, Any] = {
        "score": _number(score.total),
        "score_per_token": _number(score.total / len(score.ids)),
        "num_tokens": len(score.ids),
        "step": step,
    }
    if pieces is not None:
        found["tokens"] = [pieces(token) for token in score.ids.tolist()]
        found["token_scores"] = [_number(x) for x in score.tokens.tolist()]
    if score.input_truncated:
        found["input_truncated"] = True
    return found


def _number(value: float) -> float | None:
    """As it goes into JSON: five decimals are what float32 can say of a log-likelihood."""
    return None if math.isnan(value) else round(float(value), 5)
