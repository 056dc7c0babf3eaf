"""Results table: a line for each task and metric, as aligned text, CSV or JSON."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t5jax.errors import DataError
from t5jax.metrics.confidence import Estimate

COLUMNS = ("task", "metric", "value", "low", "high", "examples")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One metric value of a task, its confidence interval (NaN: none), its number of examples."""

    task: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    examples: int


def metric_results(
    task: str, values: Mapping[str, float | Estimate], examples: int
) -> list[Result]:
    """The values of a metric, or of `with_confidence`, as lines of the table."""
    lines = []
    for metric, value in values.items():
        estimate = value if isinstance(value, Estimate) else Estimate(value, math.nan, math.nan)
        lines.append(Result(task=task, metric=metric, examples=examples, **estimate._asdict()))
    return lines


def as_text(lines: Iterable[Result]) -> str:
    """Aligned columns, values with two decimals, the interval in brackets; ends with a newline."""
    cells = [("task", "metric", "value", "interval", "examples")]
    for line in lines:
        interval = f"[{line.low:.2f}, {line.high:.2f}]" if _has_interval(line) else "-"
        cells.append((line.task, line.metric, f"{line.value:.2f}", interval, str(line.examples)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(_aligned(row, widths) + "\n" for row in cells)


def as_csv(lines: Iterable[Result]) -> str:
    """A header and the lines; full precision, an empty cell for NaN and infinities."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        record = _record(line)
        writer.writerow("" if record[name] is None else record[name] for name in COLUMNS)
    return text.getvalue()


def as_json(lines: Iterable[Result]) -> str:
    """A list of objects with the keys COLUMNS; full precision, null for NaN and infinities."""
    return json.dumps([_record(line) for line in lines], indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> list[Result]:
    """Inverse of `as_json`. Raises DataError for anything else."""
    try:
        return [_result(**record) for record in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise DataError(f"not a results table: {error}") from error


def _result(*, value: float | None, low: float | None, high: float | None, **rest: Any) -> Result:
    number = lambda x: math.nan if x is None else x
    return Result(value=number(value), low=number(low), high=number(high), **rest)


def _record(line: Result) -> dict[str, str | int | float | None]:
    record = dataclasses.asdict(line)
    for name in ("value", "low", "high"):
        if not math.isfinite(record[name]):
            record[name] = None
    return {name: record[name] for name in COLUMNS}


def _has_interval(line: Result) -> bool:
    return math.isfinite(line.low) and math.isfinite(line.high)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(left + right)
