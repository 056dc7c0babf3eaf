"""Records of a batch job's output: the keys that predictions and scores add to a row's columns."""

import math
from collections.abc import Callable
from typing import Any

from t5jax.data.vocabularies.one_line import one_line
from t5jax.inference.blanks import fill_blanks, has_blanks
from t5jax.inference.text_model import Prediction, TextScore, best_output

# Every key that a record may have beside the columns of its row.
PREDICTION_KEYS = frozenset(("output", "score", "step", "outputs", "scores", "filled"))
PREDICTION_KEYS |= {"input_truncated", "output_truncated"}
SCORE_KEYS = frozenset(("score", "score_per_token", "num_tokens", "step", "tokens", "token_scores"))
SCORE_KEYS |= {"input_truncated"}


def prediction_record(
    text: str, prediction: Prediction, step: int | list[int], num_outputs: int
) -> dict[str, Any]:
    """The keys of `t5jax predict` for one input text."""
    output, score = best_output(prediction)
    record = {"output": output, "score": _number(score), "step": step}
    if num_outputs > 1:
        record["outputs"] = [output.text for output in prediction.outputs]
        record["scores"] = [_number(output.score) for output in prediction.outputs]
    if has_blanks(text):
        record["filled"] = fill_blanks(text, output)
    if prediction.input_truncated:
        record["input_truncated"] = True
    if not all(output.ended for output in prediction.outputs):
        record["output_truncated"] = True
    return record


def printed_texts(record: dict[str, Any]) -> list[str]:
    """What is shown of a prediction: its outputs, or the text with its blanks filled."""
    return [record["filled"]] if record.get("filled") else record.get("outputs", [record["output"]])


def format_prediction(record: dict[str, Any]) -> str:
    """As plain text, a line each: line ends within them are escaped (`one_line`)."""
    return "\n".join(map(one_line, printed_texts(record)))


def format_prediction_raw(record: dict[str, Any]) -> str:
    """As plain text, with the line ends that the model wrote."""
    return "\n".join(printed_texts(record))


def score_record(
    score: TextScore, step: int | list[int], token_text: Callable[[int], str] | None
) -> dict[str, Any]:
    """The keys of `t5jax score` for one target; those of its tokens where `token_text` is given."""
    record: dict[str, Any] = {
        "score": _number(score.total),
        "score_per_token": _number(score.total / len(score.ids)),
        "num_tokens": len(score.ids),
        "step": step,
    }
    if token_text is not None:
        record["tokens"] = [token_text(token) for token in score.ids.tolist()]
        record["token_scores"] = [_number(x) for x in score.tokens.tolist()]
    if score.input_truncated:
        record["input_truncated"] = True
    return record


def _number(value: float) -> float | None:
    """As JSON: five decimals, the precision of a float32 log-likelihood; NaN is null."""
    return None if math.isnan(value) else round(float(value), 5)
