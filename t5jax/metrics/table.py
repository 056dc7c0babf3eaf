"""Results table: a line for each task and metric, as aligned text, CSV or JSON.

A metric that failed has a line with its error in place of a value.
"""

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
    the value of the majority-class baseline (NaN: its targets are not classes).

    A metric that failed has an `error` (`ZeroDivisionError: division by zero`), and no value."""

    task: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    examples: int
    majority: float = math.nan
    error: str | None = None


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
        estimate = value if isinstance(value, Estimate) else Estimate(value)
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

    The baseline has a column where a line has one. Metrics that failed follow, one a line.
    """
    lines, failed = _apart(lines)
    cells = [("task", "metric", "value", "interval", "majority", "examples")]
    for line in lines:
        interval = f"[{line.low:.2f}, {line.high:.2f}]" if _has_interval(line) else "-"
        majority = f"{line.majority:.2f}" if math.isfinite(line.majority) else "-"
        numbers = (f"{line.value:.2f}", interval, majority, str(line.examples))
        cells.append((line.task, line.metric, *numbers))
    if not any(math.isfinite(line.majority) for line in lines):
        cells = [(*row[:4], row[5]) for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = [_aligned(row, widths) for row in cells] if lines or not failed else []
    table += [f"task {x.task}: its metric {x.metric} failed: {x.error}" for x in failed]
    return "".join(f"{line}\n" for line in table)


def as_csv(lines: Iterable[Result]) -> str:
    """A header and the lines; full precision, an empty cell for NaN and infinities. There is a
    column `error` where a metric failed."""
    records = [_record(line) for line in lines]
    columns = (*COLUMNS, *(["error"] if any("error" in record for record in records) else []))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        cells = (record.get(name) for name in columns)
        writer.writerow("" if cell is None else cell for cell in cells)
    return text.getvalue()


def as_json(lines: Iterable[Result]) -> str:
    """A list of objects with the keys COLUMNS, and `error` for a metric that failed; full
    precision, null for NaN and infinities."""
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
    columns = COLUMNS if line.error is None else (*COLUMNS, "error")
    return {name: record[name] for name in columns}


def _apart(lines: Iterable[Result]) -> tuple[list[Result], list[Result]]:
    """(lines with a value, lines of metrics that failed)."""
    lines = list(lines)
    failed = [line for line in lines if line.error is not None]
    return [line for line in lines if line.error is None], failed


def _has_interval(line: Result) -> bool:
    return math.isfinite(line.low) and math.isfinite(line.high)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(left + right)
