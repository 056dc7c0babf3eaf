"""TFRecord files of `tf.train.Example`, read without TensorFlow.

A record is its length (8 bytes), the length's checksum, the data, the data's checksum; the data is
a protocol buffer of three message types, read here by its wire format.
"""

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

from t5jax.data.records import MAX_RECORD_BYTES, BadRecord, DamagedFile, Record, Row
from t5jax.data.sources.crc32c import masked_crc32c
from t5jax.data.sources.files import (
    Files,
    ReadPosition,
    check_max_record_bytes,
    open_bytes,
    reading,
)

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of tf.train.Feature


@dataclasses.dataclass(kw_only=True, slots=True)
class TfRecord(Files):
    """TFRecord files of `tf.train.Example` (gzip or zstd or not); features are the columns.

    A feature of one value is that value, any other number of them a list; those in `lists` are
    always lists. Bytes are decoded as UTF-8 except in `bytes_columns`. A record whose checksum,
    text or Example is bad, or that is longer than `max_record_bytes`, is a `BadRecord`; with a
    length's checksum the place of the next record is lost: `DamagedFile`.
    """

    VERSION: ClassVar[int] = 1

    lists: tuple[str, ...] = ()
    bytes_columns: tuple[str, ...] = ()
    max_record_bytes: int = MAX_RECORD_BYTES

    def __post_init__(self) -> None:
        Files.__post_init__(self)  # slots make a second class, which super() does not know
        check_max_record_bytes(self.max_record_bytes)

    def _records(self, path: str) -> Iterator[Record]:
        for place, data in framed_records(path, self.max_record_bytes):
            if isinstance(data, BadRecord):
                yield data
            else:
                yield example_row(data, place, self.lists, self.bytes_columns)


def framed_records(path: str, max_bytes: int) -> Iterator[tuple[str, bytes | BadRecord]]:
    """(place, data) of the records of a TFRecord file; a BadRecord in place of data with a wrong
    checksum or of more than `max_bytes`. Raises DamagedFile where the file breaks off."""
    progress = ReadPosition("record")
    with open_bytes(path) as stream, reading(path, progress):
        while header := stream.read(_HEADER.size):
            place = f"{path}, record {progress.count}"
            if len(header) < _HEADER.size:
                raise DamagedFile(f"{place}: the file ends within it; fetch it again")
            size, size_checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != size_checksum:
                raise DamagedFile(
                    f"{place}: the checksum of its length is wrong: not a TFRecord file, or damaged"
                )
            checked = _checked_data(stream, size, max_bytes)
            if checked is None:
                raise DamagedFile(f"{place}: the file ends within it; fetch it again")
            yield place, BadRecord(place, checked) if isinstance(checked, str) else checked
            progress.count += 1


def _checked_data(stream: Any, size: int, max_bytes: int) -> bytes | str | None:
    """The data of a record, or what is wrong with it; None when the file ends within it."""
    if size > max_bytes:
        left = size + _CHECKSUM.size
        while left and (skipped := len(stream.read(min(left, 1 << 20)))):
            left -= skipped
        reason = f"{size:,} bytes, longer than max_record_bytes = {max_bytes:,}"
        return None if left else reason
    data, checksum = stream.read(size), stream.read(_CHECKSUM.size)
    if len(data) < size or len(checksum) < _CHECKSUM.size:
        return None
    if masked_crc32c(data) != _CHECKSUM.unpack(checksum)[0]:
        return "its checksum is wrong: the data is damaged"
    return data


def example_row(
    data: bytes, place: str, lists: tuple[str, ...], bytes_columns: tuple[str, ...]
) -> Record:
    """A serialised Example as a row; a BadRecord when it is none or its text is not UTF-8."""
    columns: dict[str, Any] = {}
    try:
        for name, values in example_features(data).items():
            if name not in bytes_columns and values and isinstance(values[0], bytes):
                values = [value.decode("utf-8") for value in values]
            columns[name] = values[0] if len(values) == 1 and name not in lists else values
    except UnicodeDecodeError as error:
        return BadRecord(place, f"a feature is not valid UTF-8: {error}; see bytes_columns")
    except (ValueError, IndexError, struct.error) as error:
        return BadRecord(place, f"not a tf.train.Example: {error}")
    return Row(columns, place)


def example_features(data: bytes) -> dict[str, list]:
    """Features of a serialised `tf.train.Example`: lists of bytes, float or int by name.

    Raises ValueError, IndexError or struct.error when the bytes are no Example.
    """
    features: dict[str, list] = {}
    for number, _, first, last in _fields(data, 0, len(data)):
        if number == 1:  # Example.features
            for inner, _, start, end in _fields(data, first, last):
                if inner == 1:  # Features.feature, a map
                    name, values = _map_entry(data, start, end)
                    features[name] = values
    return features


def _map_entry(data: bytes, first: int, last: int) -> tuple[str, list]:
    name, values = b"", []
    for number, wire_type, start, end in _fields(data, first, last):
        if wire_type != _LENGTH_DELIMITED:
            raise ValueError(f"wire type {wire_type} in the map of features")
        if number == 1:
            name = data[start:end]
        elif number == 2:
            values = _feature_values(data, start, end)
    return name.decode("utf-8"), values


def _feature_values(data: bytes, first: int, last: int) -> list:
    values: list = []
    for kind, wire_type, first_item, last_item in _fields(data, first, last):
        if wire_type != _LENGTH_DELIMITED or kind not in (_BYTES_LIST, _FLOAT_LIST, _INT64_LIST):
            raise ValueError(f"field {kind} of wire type {wire_type} in a Feature")
        for number, item_type, start, end in _fields(data, first_item, last_item):
            if number != 1:
                raise ValueError(f"field {number} in a list of values")
            if kind == _BYTES_LIST and item_type == _LENGTH_DELIMITED:
                values.append(data[start:end])
            else:
                values += _numbers(kind, item_type, data[start:end])
    return values


def _numbers(kind: int, wire_type: int, data: bytes) -> list:
    """Values of one field of a FloatList or Int64List, packed or not."""
    if kind == _FLOAT_LIST and wire_type in (_FIXED32, _LENGTH_DELIMITED):
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    if kind == _INT64_LIST and wire_type in (_VARINT, _LENGTH_DELIMITED):
        values, position = [], 0
        while position < len(data):
            value, position = _varint(data, position)
            values.append(value - (1 << 64) if value >> 63 else value)
        return values
    raise ValueError(f"wire type {wire_type} in a list of kind {kind}")


def _fields(data: bytes, position: int, end: int) -> list[tuple[int, int, int, int]]:
    """(number, wire type, start, end) of the fields of a message that lies in [position, end)."""
    fields = []
    while position < end:
        tag, position = _varint(data, position)
        wire_type = tag & 7
        start = position
        if wire_type == _LENGTH_DELIMITED:
            size, start = _varint(data, position)
            position = start + size
        elif wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type in (_FIXED32, _FIXED64):
            position += 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > end:
            raise ValueError("a field ends after its message")
        fields.append((tag >> 3, wire_type, start, position))
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 integer and the position after it."""
    byte = data[position]
    position += 1
    if byte < 0x80:  # nearly all tags, and the lengths of names
        return byte, position
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")
