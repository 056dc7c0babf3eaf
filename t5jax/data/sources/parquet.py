"""Parquet files."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from t5jax.data.records import BadRecord, DamagedFile, Record, Row
from t5jax.data.sources.files import Files, open_raw
from t5jax.errors import DataError

_ROWS_A_BATCH = 1024


@dataclasses.dataclass(kw_only=True, slots=True)
class Parquet(Files):
    """Parquet files: all columns, or those that are named (the others are not read).

    Strings, numbers, lists and structs become Python's; dates, times and decimals become strings. A
    row whose text is not UTF-8 is a `BadRecord`. Damage is found where the file has page checksums,
    or where it no longer decodes.
    """

    VERSION: ClassVar[int] = 1

    columns: tuple[str, ...] = ()

    def _records(self, path: str) -> Iterator[Record]:
        import pyarrow
        import pyarrow.parquet

        row = 0
        with open_raw(path) as raw:
            try:
                with pyarrow.parquet.ParquetFile(raw, page_checksum_verification=True) as file:
                    self._check_columns(file.schema_arrow.names, path)
                    batches = file.iter_batches(_ROWS_A_BATCH, columns=list(self.columns) or None)
                    for batch in batches:
                        yield from _rows(batch, path, row)
                        row += batch.num_rows
            except (pyarrow.ArrowException, OSError) as error:
                raise DamagedFile(f"{path}, near row {row}: unreadable parquet: {error}") from error

    def _check_columns(self, names: list[str], path: str) -> None:
        missing = [column for column in self.columns if column not in names]
        if missing:
            raise DataError(f"{path}: no column {missing[0]!r}; there are {names[:10]}")


def _rows(batch: Any, path: str, first: int) -> Iterator[Record]:
    batch = _without_times(batch)
    try:
        columns = batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            place = f"{path}, row {first + i}"
            try:
                yield Row(batch.slice(i, 1).to_pylist()[0], place)
            except UnicodeDecodeError as error:
                yield BadRecord(place, f"not valid UTF-8: {error}")
        return
    for i, values in enumerate(columns):
        yield Row(values, f"{path}, row {first + i}")


def _without_times(batch: Any) -> Any:
    """The batch with its dates, times and decimals as strings: rows hold plain values only."""
    import pyarrow
    import pyarrow.types

    for i, field in enumerate(batch.schema):
        if pyarrow.types.is_temporal(field.type) or pyarrow.types.is_decimal(field.type):
            values = [
                None if value is None else str(value) for value in batch.column(i).to_pylist()
            ]
            batch = batch.set_column(i, field.name, pyarrow.array(values, pyarrow.string()))
    return batch
