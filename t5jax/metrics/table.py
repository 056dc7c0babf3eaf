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

COLUMNS = ("task", "metric", "value", "low", "high", "examples", "majority")
_NUMBERS = ("value", "low", "high", "majority")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One metric value of a task, its confidence interval (NaN: none), its number of examples, and
    the value of the majority-class baseline (NaN: its targets are not classes)."""

    task: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    examples: int
    majority: float = math.nan


def metric_results(
    task: str,
    values: Mapping[str, float | Estimate],
    examples: int,
    majority: Mapping[str, float] | None = None,
) -> list[Result]:
    """The values of a metric, or of `with_confidence`, as lines of the table; `majority` has the
    values of the majority-class baseline, by metric."""
    lines, baseline = [], majority or {}
    for metric, value in values.items():
        estimate = value if isinstance(value, Estimate) else Estimate(value, math.nan, math.nan)
        lines.append(
            Result(
                task=task,
                metric=metric,
                examples=examples,
                majority=baseline.get(metric, math.nan),
                **estimate._asdict(),
            )
        )
    return lines


def as_text(lines: Iterable[Result]) -> str:
    """Aligned columns, values with two decimals, the interval in brackets; ends with a newline.

    The baseline has a column where a line has one.
    """
    lines = list(lines)
    cells = [("task", "metric", "value", "interval", "majority", "examples")]
    for line in lines:
        interval = f"[{line.low:.2f}, {line.high:.2f}]" if _has_interval(line) else "-"
        majority = f"{line.majority:.2f}" if math.isfinite(line.majority) else "-"
        numbers = (f"{line.value:.2f}", interval, majority, str(line.examples))
        cells.append((line.task, line.metric, *numbers))
    if not any(math.isfinite(line.majority) for line in lines):
        cells = [(*row[:4], row[5]) for row in cells]
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


def _result(**record: Any) -> Result:
    # Files of before have no majority.
    numbers: dict[str, Any] = {
        name: math.nan if record[name] is None else record[name]
        for name in _NUMBERS
        if name in record
    }
    return Result(**record | numbers)


def _record(line: Result) -> dict[str, str | int | float | None]:
    record = dataclasses.asdict(line)
    for name in _NUMBERS:
        if not math.isfinite(record[name]):
            record[name] = None
    return {name: record[name] for name in COLUMNS}


def _has_interval(line: Result) -> bool:
    return math.isfinite(line.low) and math.isfinite(line.high)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(left + right)
