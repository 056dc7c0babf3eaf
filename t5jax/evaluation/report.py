"""What an evaluation of one checkpoint found, as a table, as files, and read from them again."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from t5jax.data.atomic_files import write_file, write_json
from t5jax.errors import DataError
from t5jax.evaluation.scores import average_lines, averages
from t5jax.metrics import table
from t5jax.metrics.table import Result

_FILE = "results.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Values of tasks, of one step and split."""

    step: int
    split: str
    settings: Mapping[str, Any]  # whatever decides the values, as JSON
    lines: list[Result]
    notes: tuple[str, ...] = ()  # what a reader must know of the values

    @property
    def values(self) -> dict[str, float]:
        """`task/metric` -> value; averages as `glue/average`."""
        found = {f"{line.task}/{line.metric}": line.value for line in self.lines}
        return found | {f"{name}/average": x.value for name, x in averages(self.lines).items()}

    def __str__(self) -> str:
        """The table, and the notes below it."""
        whole = table.as_text([*self.lines, *average_lines(averages(self.lines))])
        return whole + "".join(f"{note}\n" for note in self.notes)

    def write(self, directory: pathlib.Path) -> None:
        """results.csv and results.json; who finds the latter finds everything finished."""
        directory.mkdir(parents=True, exist_ok=True)
        write_file(directory / "results.csv", table.as_csv(self.lines).encode())
        found = averages(self.lines)
        whole = {
            "step": self.step,
            "split": self.split,
            "settings": self.settings,
            "results": json.loads(table.as_json(self.lines)),
            "averages": {
                name: {"value": x.value, "entries": x.entries, "missing": x.missing}
                for name, x in found.items()
            },
            "notes": self.notes,
        }
        write_json(directory / _FILE, whole)


def read_report(directory: pathlib.Path) -> Report | None:
    """What `Report.write` has written; None if it has not. Raises DataError for another file."""
    file = directory / _FILE
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text())
        return Report(
            step=found["step"],
            split=found["split"],
            settings=found["settings"],
            lines=table.from_json(json.dumps(found["results"])),
            notes=tuple(found["notes"]),
        )
    except (ValueError, KeyError) as error:
        raise DataError(f"{file} is not the result of an evaluation: {error}") from error
