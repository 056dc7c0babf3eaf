"""JSON lines that an interrupted job goes on with.

Beside FILE lies FILE.job.json, which says what made its lines (checkpoint, settings): lines of two
jobs are never mixed. A line holds the columns of its row, so going on compares every line with the
input, whatever has happened to that; a line that a kill tore apart is cut off.
"""

import collections
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data.atomic_files import as_json, json_line, write_json
from t5jax.data.records import Row
from t5jax.errors import ConfigError, DataError


def shard_path(path: str, shard: tuple[int, int] | None) -> str:
    """`out.jsonl` of shard 1 of 4: `out-00001-of-00004.jsonl`."""
    if shard is None:
        return path
    whole = pathlib.Path(path)
    return str(whole.with_name(f"{whole.stem}-{shard[0]:05d}-of-{shard[1]:05d}{whole.suffix}"))


class OutputFile:
    """The output of a job whose records are a row's columns and some of `added`."""

    def __init__(
        self, path: str, job: Mapping[str, Any], added: frozenset[str], *, overwrite: bool = False
    ):
        """Raises ConfigError where another job's output, or another file, lies there."""
        if "://" in path:
            raise ConfigError(f"--output {path}: lines are appended, which needs a local disk")
        self.path, self._added = pathlib.Path(path), added
        self._about = self.path.with_name(f"{self.path.name}.job.json")
        if not self.path.parent.is_dir():
            raise ConfigError(f"--output {path}: there is no folder {self.path.parent}")
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            self._check_same(json.loads(as_json(dict(job))))
        else:
            write_json(self._about, dict(job))
        self._file = open(self.path, "ab")  # noqa: SIM115 (open as long as the job)

    def go_on(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        """(number of rows that are answered, the rows to answer).

        What is left begins a window of `window` rows, so that it is batched as if there had been no
        interruption. Raises DataError where a line is not about its row.
        """
        done, end = 0, 0
        again: collections.deque[tuple[int, Row]] = collections.deque(maxlen=window)
        for number, (begin, line) in enumerate(self._whole_lines()):
            row = next(rows, None)
            if row is None:
                raise DataError(
                    f"{self.path} has more lines than the input has rows ({number}): it is of "
                    "another input; choose another --output, or --overwrite"
                )
            self._check_about(line, row, number)
            again.append((begin, row))
            done, end = number + 1, begin + len(line)
        first_left = next(rows, None)
        if first_left is None:
            self._cut(end)
            return done, iter(())
        left = [row for _, row in again][len(again) - done % window :]
        if left:
            end = again[-len(left)][0]
        self._cut(end)
        return done - len(left), itertools.chain(left, [first_left], rows)

    def write(self, records: list[dict[str, Any]]) -> None:
        """Appends the records of a window; they are on the disk when this returns."""
        self._file.write(b"".join(json_line(record) for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _whole_lines(self) -> Iterator[tuple[int, bytes]]:
        """(place in the file, line with its end), but for a last one without an end."""
        place = 0
        with open(self.path, "rb") as file:
            while (line := file.readline()).endswith(b"\n"):
                yield place, line
                place += len(line)

    def _check_about(self, line: bytes, row: Row, number: int) -> None:
        try:
            record = json.loads(line)
            columns = {name: x for name, x in record.items() if name not in self._added}
        except (ValueError, AttributeError) as error:
            raise DataError(f"{self.path}, line {number + 1}: not a JSON object: {error}") from None
        # As text: what is not a number is not equal to itself.
        if json.dumps(columns) != json.dumps(json.loads(json.dumps(row))):
            raise DataError(
                f"{self.path}, line {number + 1} is not about {row.place}: the input is another "
                "one, or has changed; choose another --output, or --overwrite"
            )

    def _check_same(self, job: dict[str, Any]) -> None:
        if not self._about.exists():
            raise ConfigError(
                f"--output {self.path}: this file is no job's output ({self._about.name} is not "
                "beside it); choose another, or --overwrite"
            )
        before = json.loads(self._about.read_bytes())
        differences = [
            f"{name} was {before.get(name)!r}, is {job.get(name)!r}"
            for name in sorted(job.keys() | before.keys())
            if job.get(name) != before.get(name) and name not in ("inputs", "checkpoints")
        ]
        if differences:
            raise ConfigError(
                f"--output {self.path} holds lines that were made differently: "
                f"{'; '.join(differences)}; choose another file, or --overwrite"
            )

    def _cut(self, end: int) -> None:
        os.truncate(self.path, end)
