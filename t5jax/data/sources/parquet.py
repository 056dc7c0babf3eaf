"""Parquet files."""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from t5jax.data.records import BadRecord, DamagedFile, Record, Row
from t5jax.data.sources.files import Files, open_raw
from t5jax.errors import OWN_ERRORS, DataError, failure, message_of

_ROWS_A_BATCH = 1024
_FAILED = object()  # in place of a value that cannot be had


@dataclasses.dataclass(kw_only=True, slots=True)
class Parquet(Files):
    """Parquet files: all columns, or those that are named (the others are not read).

    Strings, numbers, lists and structs become Python's, a map a list of pairs; dates, times (to the
    nanosecond), decimals and UUIDs become strings. A row whose text is not UTF-8, or with a value
    that Python has no type for, is a `BadRecord`. Damage is found where the file has page
    checksums, or where it no longer decodes.
    """

    VERSION: ClassVar[int] = 1

    columns: tuple[str, ...] = ()

    def with_columns(self, columns: Sequence[str]) -> "Parquet":
        """The same rows with these columns alone; with those that were asked for, if any were."""
        return self if self.columns else dataclasses.replace(self, columns=tuple(columns))

    def _records(self, path: str) -> Iterator[Record]:
        import pyarrow
        import pyarrow.parquet

        row = 0
        with open_raw(path) as raw:
            try:
                with pyarrow.parquet.ParquetFile(raw, page_checksum_verification=True) as file:
                    self._check_columns(file.schema_arrow.names, path)
                    chosen = list(self.columns) or None
                    for batch in file.iter_batches(_ROWS_A_BATCH, columns=chosen):
                        yield from _rows(batch, path, row)
                        row += batch.num_rows
            except pyarrow.ArrowNotImplementedError as error:
                raise DataError(
                    f"{path}, near row {row}: pyarrow cannot read a column: {message_of(error)}; "
                    "name the columns that are needed (columns=)"
                ) from error
            except (pyarrow.ArrowException, OSError) as error:
                raise DamagedFile(f"{path}, near row {row}: unreadable parquet: {error}") from error
            except OWN_ERRORS:
                raise
            except Exception as error:
                raise DataError(f"{path}, near row {row}: {failure(error, 'pyarrow')}") from error

    def _check_columns(self, names: list[str], path: str) -> None:
        missing = [column for column in self.columns if column not in names]
        if missing:
            raise DataError(f"{path}: no column {missing[0]!r}; there are {names[:10]}")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice and (not self.columns or set(twice) & set(self.columns)):
            raise DataError(f"{path}: two columns are named {twice[0]!r}; rename one of them")


def _rows(batch: Any, path: str, first: int) -> Iterator[Record]:
    """The rows of a batch, of which row `first` of the file is the first."""
    problems: dict[int, str] = {}
    columns = {
        field.name: _values(column, field, problems)
        for field, column in zip(batch.schema, batch.columns, strict=True)
    }
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        place = f"{path}, row {first + i}"
        if i in problems:
            yield BadRecord(place, problems[i])
        else:
            yield Row(dict(zip(columns, values, strict=True)), place)


def _values(column: Any, field: Any, problems: dict[int, str]) -> list[Any]:
    """The values of a column as plain ones; where one cannot be had, `problems` says why by row."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    convert = _conversion(column.type)
    try:
        return convert(column)
    except Exception:  # of one value or of many: each is tried alone
        values = []
        for i in range(len(column)):
            try:
                values += convert(column.slice(i, 1))
            except Exception as error:
                values.append(_FAILED)
                problems.setdefault(i, _reason(field, error))
    return values


def _reason(field: Any, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8: {error}"
    return (
        f"column {field.name!r} of type {field.type}: a value cannot be read "
        f"({type(error).__name__}: {message_of(error)}); name the columns that are needed "
        "(columns=)"
    )


def _conversion(kind: Any) -> Any:
    """The function that makes plain values of a column of this type."""
    import pyarrow

    types = pyarrow.types
    if getattr(kind, "unit", "") == "ns":
        return _nanoseconds
    if types.is_nested(kind):
        return lambda column: [_plain(value) for value in _cut(column).to_pylist()]
    if types.is_temporal(kind) or types.is_decimal(kind) or isinstance(kind, pyarrow.UuidType):
        return lambda column: [None if x is None else str(x) for x in column.to_pylist()]
    if types.is_float16(kind):
        return lambda column: column.cast(pyarrow.float32()).to_pylist()
    return lambda column: column.to_pylist()


def _nanoseconds(column: Any) -> list[str | None]:
    """Times to the nanosecond, which Python's types do not hold: as those of microseconds, with
    three more digits where they are not 0."""
    import pyarrow

    whole = column.cast(pyarrow.int64()).to_pylist()
    micro = pyarrow.array([x if x is None else x // 1000 for x in whole], pyarrow.int64())
    times = micro.cast(_in_microseconds(column.type)).to_pylist()
    return [
        None if time is None or x is None else _with_nanoseconds(time, x % 1000)
        for time, x in zip(times, whole, strict=True)
    ]


def _with_nanoseconds(time: Any, nanoseconds: int) -> str:
    if not nanoseconds:
        return str(time)
    if isinstance(time, datetime.timedelta):
        return f"{time}{'' if time.microseconds else '.000000'}{nanoseconds:03}"
    separator = {"sep": " "} if isinstance(time, datetime.datetime) else {}
    text = time.isoformat(timespec="microseconds", **separator)
    end = text.index(".") + 7  # a time zone may follow
    return f"{text[:end]}{nanoseconds:03}{text[end:]}"


def _cut(column: Any) -> Any:
    """A nested column with microseconds for nanoseconds. Raises ArrowInvalid where that loses
    digits."""
    kind = _in_microseconds(column.type)
    return column if kind == column.type else column.cast(kind)


def _in_microseconds(kind: Any) -> Any:
    """The type with microseconds for nanoseconds, at any depth."""
    import pyarrow

    if getattr(kind, "unit", "") == "ns":
        if pyarrow.types.is_timestamp(kind):
            return pyarrow.timestamp("us", kind.tz)
        return pyarrow.time64("us") if pyarrow.types.is_time(kind) else pyarrow.duration("us")
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([_field_in_microseconds(field) for field in kind])
    if pyarrow.types.is_fixed_size_list(kind):
        return pyarrow.list_(_field_in_microseconds(kind.value_field), kind.list_size)
    if pyarrow.types.is_large_list(kind):
        return pyarrow.large_list(_field_in_microseconds(kind.value_field))
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_field_in_microseconds(kind.value_field))
    return kind


def _field_in_microseconds(field: Any) -> Any:
    return field.with_type(_in_microseconds(field.type))


def _plain(value: Any) -> Any:
    """A nested value with its dates, times, decimals and UUIDs as strings, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    plain = value is None or isinstance(value, str | bytes | bool | int | float)
    return value if plain else str(value)
