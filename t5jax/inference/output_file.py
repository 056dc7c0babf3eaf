"""Output file of a batch job: JSON lines that an interrupted job resumes from.

One in a bucket is written in a temporary folder of this machine, from the object that is there, and
uploaded once a minute and at the end.

FILE.job.json beside FILE holds the job's checkpoints and settings: lines of two jobs are never
mixed. A line holds the columns of its row, so that a resumed job compares every line with the
input, which may have changed; an incomplete last line is cut off.
"""

import collections
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.buckets import RunFiles, in_bucket, make_folder
from t5jax.data.atomic_files import json_bytes, json_line, write_json_file
from t5jax.data.records import Row
from t5jax.errors import ConfigError, DataError, write_whole, writing
from t5jax.paths import refuse_file_in_the_way, written_path


def shard_path(path: str, shard: tuple[int, int] | None) -> str:
    """`out.jsonl` of shard 1 of 4: `out-00001-of-00004.jsonl`."""
    if shard is None:
        return path
    folder, slash, name = path.rpartition("/")
    whole = pathlib.Path(name)
    return f"{folder}{slash}{whole.stem}-{shard[0]:05d}-of-{shard[1]:05d}{whole.suffix}"


class OutputFile:
    """The file of a job whose records are a row's columns and some of `result_keys`."""

    def __init__(
        self,
        path: str,
        job: Mapping[str, Any],
        result_keys: frozenset[str],
        *,
        overwrite: bool = False,
    ):
        """Raises ConfigError where the path holds another job's output, or another file;
        NotADirectoryError for a file in the way of its folder, BucketError for a bucket that cannot
        be read or written to."""
        path = written_path(path, "--output")
        self._files: RunFiles | None = None
        self._name = path
        self.path, self._result_keys = pathlib.Path(path), result_keys
        if in_bucket(path):
            folder, _, name = path.rpartition("/")
            make_folder(path)  # before hours of work, not after them
            self._files = RunFiles(folder, appended=name)
            self.path = self._files.folder / name
            for one in (name, f"{name}.job.json"):
                self._files.fetch(one)
        self._job_file = self.path.with_name(f"{self.path.name}.job.json")
        refuse_file_in_the_way(self.path.parent)
        if not self.path.parent.is_dir():
            raise ConfigError(f"--output {path}: there is no folder {self.path.parent}")
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            self._check_same_job(json.loads(json_bytes(dict(job))))
        else:
            write_json_file(self._job_file, dict(job))
        # Unbuffered: what a full disk refuses must not be tried again when the process ends.
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (open as long as the job)

    def resume(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        """(number of rows that have a record, the remaining rows).

        The remaining rows begin at a multiple of `window`, so that they are batched as without the
        interruption. Raises DataError where a line does not match its row.
        """
        done, end = 0, 0
        last_window: collections.deque[tuple[int, Row]] = collections.deque(maxlen=window)
        for number, (begin, line) in enumerate(self._complete_lines()):
            row = next(rows, None)
            if row is None:
                raise DataError(
                    f"{self._name} has more lines than the input has rows ({number}): it is of "
                    "another input; choose another --output, or --overwrite"
                )
            self._check_line(line, row, number)
            last_window.append((begin, row))
            done, end = number + 1, begin + len(line)
        next_row = next(rows, None)
        if next_row is None:
            self._cut(end)
            return done, iter(())
        repeated = [row for _, row in last_window][len(last_window) - done % window :]
        if repeated:
            end = last_window[-len(repeated)][0]
        self._cut(end)
        return done - len(repeated), itertools.chain(repeated, [next_row], rows)

    def write(self, records: list[dict[str, Any]]) -> None:
        """Appends the records of a window, and syncs them to disk."""
        with writing(self.path):
            write_whole(self._file, b"".join(json_line(record) for record in records))
            os.fsync(self._file.fileno())
        if self._files is not None:
            self._files.upload_in_time()

    def close(self) -> None:
        self._file.close()
        if self._files is not None:
            self._files.upload()

    def _cut(self, end: int) -> None:
        os.truncate(self.path, end)
        if self._files is not None:  # what is appended later goes behind this
            self._files.upload()

    def _complete_lines(self) -> Iterator[tuple[int, bytes]]:
        """(offset in the file, line with its newline), without an incomplete last line."""
        offset = 0
        with open(self.path, "rb") as file:
            while (line := file.readline()).endswith(b"\n"):
                yield offset, line
                offset += len(line)

    def _check_line(self, line: bytes, row: Row, number: int) -> None:
        try:
            record = json.loads(line)
            columns = {name: x for name, x in record.items() if name not in self._result_keys}
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"{self._name}, line {number + 1}: not a JSON object: {error}"
            ) from None
        # As text, because NaN is not equal to itself.
        if json.dumps(columns) != json.dumps(json.loads(json.dumps(row))):
            raise DataError(
                f"{self._name}, line {number + 1} does not match {row.place}: the input is another "
                "one, or has changed; choose another --output, or --overwrite"
            )

    def _check_same_job(self, job: dict[str, Any]) -> None:
        if not self._job_file.exists():
            raise ConfigError(
                f"--output {self._name}: this file is no job's output ({self._job_file.name} is "
                "not beside it); choose another, or --overwrite"
            )
        before = json.loads(self._job_file.read_bytes())
        if "act" in before:  # its name in version 0.1
            before["command"] = before.pop("act")
        differences = [
            f"{name} was {before.get(name)!r}, is {job.get(name)!r}"
            for name in sorted(job.keys() | before.keys())
            if job.get(name) != before.get(name) and name not in ("inputs", "checkpoints")
        ]
        if differences:
            raise ConfigError(
                f"--output {self._name} holds lines of another job: "
                f"{'; '.join(differences)}; choose another file, or --overwrite"
            )
