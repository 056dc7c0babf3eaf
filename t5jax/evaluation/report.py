"""Evaluation report of one checkpoint: a table, results.csv and results.json, and its reader."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from t5jax.data.atomic_files import write_file, write_json_file
from t5jax.errors import DataError
from t5jax.evaluation.scores import average_lines, benchmark_averages
from t5jax.metrics import table
from t5jax.metrics.table import Result

_FILE = "results.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Metric values of tasks, at one step, on one split."""

    step: int
    split: str
    settings: Mapping[str, Any]  # all settings that the values depend on, as JSON
    lines: list[Result]
    notes: tuple[str, ...] = ()  # caveats: truncated inputs, missing targets
    # By task, where the vocabulary cannot spell all targets: `Ceiling.to_dict`.
    ceilings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def failures(self) -> dict[str, str]:
        """`task/metric` -> the error, of metrics that failed."""
        return {f"{x.task}/{x.metric}": x.error for x in self.lines if x.error is not None}

    def check(self) -> None:
        """Raises DataError naming every metric that failed, with its task and error."""
        failed = [line for line in self.lines if line.error is not None]
        if failed:
            said = "; ".join(
                f"task {x.task}: its metric {x.metric} failed: {x.error}" for x in failed
            )
            raise DataError(f"{said}. All other values, and the predictions, are kept")

    @property
    def values(self) -> dict[str, float]:
        """`task/metric` -> value; averages as `glue/average`. A metric that failed has none."""
        scored = [line for line in self.lines if line.error is None]
        values = {f"{line.task}/{line.metric}": line.value for line in scored}
        averages = benchmark_averages(self.lines)
        return values | {f"{name}/average": x.value for name, x in averages.items()}

    @property
    def majority(self) -> dict[str, float]:
        """`task/metric` -> value of the majority-class baseline, of those that have one."""
        found = {f"{line.task}/{line.metric}": line.majority for line in self.lines}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def __str__(self) -> str:
        """The table, and the notes below it."""
        whole = table.as_text([*self.lines, *average_lines(benchmark_averages(self.lines))])
        return whole + "".join(f"{note}\n" for note in self.notes)

    def write(self, directory: pathlib.Path) -> None:
        """Writes results.csv, then results.json, whose presence marks a finished evaluation."""
        directory.mkdir(parents=True, exist_ok=True)
        write_file(directory / "results.csv", table.as_csv(self.lines).encode())
        content = {
            "step": self.step,
            "split": self.split,
            "settings": self.settings,
            "results": json.loads(table.as_json(self.lines)),
            "averages": {
                name: {"value": x.value, "entries": x.entries, "missing": x.missing}
                for name, x in benchmark_averages(self.lines).items()
            },
            "notes": self.notes,
            "ceilings": self.ceilings,
        }
        if self.failures:
            content["error"] = self.failures
        write_json_file(directory / _FILE, content)


def read_evaluation_report(directory: pathlib.Path) -> EvaluationReport | None:
    """The report that a directory holds; None if there is none. Raises DataError for a results.json
    that is something else."""
    file = directory / _FILE
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
        return EvaluationReport(
            step=content["step"],
            split=content["split"],
            settings=content["settings"],
            lines=table.from_json(json.dumps(content["results"])),
            notes=tuple(content["notes"]),
            ceilings=content.get("ceilings", {}),  # none in reports of t5jax 0.1
        )
    except (ValueError, KeyError) as error:
        raise DataError(f"{file} is not the result of an evaluation: {error}") from error
