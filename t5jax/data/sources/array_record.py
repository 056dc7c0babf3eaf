"""ArrayRecord files, read through the `array_record` package (which TFDS brings)."""

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

from t5jax.data.records import BadRecord, DamagedFile, Record, Row
from t5jax.data.sources.files import Files
from t5jax.data.sources.tfrecord import example_row
from t5jax.errors import ConfigError, DataError

CONTENTS = ("example", "json", "text")
_RECORDS_AT_ONCE = 256


@dataclasses.dataclass(kw_only=True, slots=True)
class ArrayRecord(Files):
    """Local ArrayRecord files whose records are `content`: a `tf.train.Example`, a JSON object, or
    UTF-8 text (column `text`).

    `lists` and `bytes_columns` are those of `TfRecord`, for Examples. A record that is not what
    `content` says is a `BadRecord`; damage that the format's checksums find is a `DamagedFile`.
    """

    VERSION: ClassVar[int] = 1

    content: str = "example"
    lists: tuple[str, ...] = ()
    bytes_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Files.__post_init__(self)  # slots make a second class, which super() does not know
        if self.content not in CONTENTS:
            raise ConfigError(f"content={self.content!r}: choose one of {', '.join(CONTENTS)}")
        if self.content != "example" and (self.lists or self.bytes_columns):
            raise ConfigError(
                f"lists and bytes_columns are of Examples; content is {self.content!r}"
            )

    def _records(self, path: str) -> Iterator[Record]:
        for place, data in array_records(path):
            yield self._row(data, place)

    def _row(self, data: bytes, place: str) -> Record:
        if self.content == "example":
            return example_row(data, place, self.lists, self.bytes_columns)
        try:
            text = data.decode("utf-8")
            columns = json.loads(text) if self.content == "json" else {"text": text}
        except UnicodeDecodeError as error:
            return BadRecord(place, f"not valid UTF-8: {error}")
        except (ValueError, RecursionError) as error:
            return BadRecord(place, f"not valid JSON: {error}")
        if not isinstance(columns, dict):
            return BadRecord(place, "a JSON object is expected")
        return Row(columns, place)


def array_records(path: str) -> Iterator[tuple[str, bytes]]:
    """(place, data) of the records of an ArrayRecord file.

    Raises DataError for a file that is not local or not there, DamagedFile for one that is cut
    short or whose checksums are wrong.
    """
    reader = _open_reader(path)
    done = 0
    try:
        count = reader.num_records()
        while done < count:
            block = reader.read(done, min(done + _RECORDS_AT_ONCE, count))
            for data in block:
                yield f"{path}, record {done}", data
                done += 1
    except (RuntimeError, ValueError, IndexError) as error:
        raise DamagedFile(f"{path}, after record {done}: unreadable: {error}") from error
    finally:
        reader.close()


def _open_reader(path: str) -> Any:
    if "://" in path:
        raise DataError(f"{path}: ArrayRecord files are read from local disks; copy or mount them")
    if not pathlib.Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        module = importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise ConfigError(
            f"{path}: ArrayRecord files need the package array_record: `pip install array_record`"
        ) from error
    # Whole blocks are read in order: threads that read ahead would only take cores from others.
    reader = module.ArrayRecordReader(path, "max_parallelism:0")
    # A file without its footer (cut short, or of another format) has 0 records and says no more.
    if not reader.ok():
        raise DamagedFile(f"{path}: cut short, or not an ArrayRecord file; fetch it again")
    return reader
