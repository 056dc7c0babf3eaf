"""An evaluation as lines: JSON records, and a table of losses."""

import math
from typing import Any

from t5jax.evaluation.report import EvaluationReport

Losses = dict[str, dict[str, float]]  # by task


def values_by_name(losses: Losses, report: EvaluationReport | None) -> dict[str, float]:
    """Losses and metrics by `task/name`."""
    values = report.values if report is not None else {}
    return values | {f"{task}/{k}": v for task, found in losses.items() for k, v in found.items()}


def json_records(
    step: int, split: str, losses: Losses, report: EvaluationReport | None
) -> list[dict[str, Any]]:
    """A record for the losses of each task, and one for all metrics."""
    where = {"step": step, "split": split}
    records = [{**where, "task": name, **metrics} for name, metrics in losses.items()]
    if report is not None:
        values = {k: None if math.isnan(x) else x for k, x in report.values.items()}
        found = {
            "metrics": values,
            "majority": report.majority,
            "notes": report.notes,
            "ceilings": report.ceilings,
        }
        error = {"error": report.failures} if report.failures else {}
        records.append({**where, **found, **error})
    return records


def loss_lines(metrics: dict[str, float]) -> list[str]:
    """A line for each loss of a task, with what it is."""
    return [
        f"  {metric:16s} {value:12,.4f}  {_NOTES.get(metric, '')}".rstrip()
        for metric, value in metrics.items()
    ]


_NOTES = {
    "loss": "nats per target token",
    "accuracy": "share of target tokens, EOS included, that are the likeliest given those before",
    "text_loss": "nats per text token (sentinels and EOS left out)",
    "unigram_entropy": "nats: entropy of these rows' text tokens, by their own frequencies",
    "unigram_model": "nats: frequencies of the training split",
    "bigram_model": "nats: given the token before, from the training split",
}
