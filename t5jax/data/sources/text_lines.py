"""The lines of a file of UTF-8 text, as files come: with a byte order mark, with the line ends of
Unix, Windows or the old Mac, with or without one at the end.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from t5jax.data.records import BadRecord
from t5jax.data.sources.files import ReadPosition, open_bytes, reading
from t5jax.errors import DataError

# The longer mark first: it begins with the shorter one.
_OTHER_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32LE"),
    (b"\0\0\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
# How files begin that hold no lines of text, with what they are.
_OTHER_FORMATS = (
    (rb"BZh[1-9]1AY&SY", "bzip2: bunzip2 FILE; gzip and zstd are read"),
    (rb"\xfd7zXZ\0", "xz: unxz FILE; gzip and zstd are read"),
    (rb"\x5d\0\0.{2}", "lzma: unlzma FILE; gzip and zstd are read"),
    (rb"\x1f\x9d", "compress (.Z): gunzip FILE; gzip and zstd are read"),
    (rb"\x04\x22\x4d\x18", "lz4: unlz4 FILE; gzip and zstd are read"),
    (rb"\x1f\x8b\x08", "gzip in a compressed file: unpack it once"),
    (rb"\x28\xb5\x2f\xfd", "zstd in a compressed file: unpack it once"),
    (rb"PK\x03\x04", "a zip archive: unpack it and name the files"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and name the files"),
    (rb"(?s:.{257})ustar", "a tar archive: unpack it and name the files"),
    (rb"PAR1", "parquet: its source is Parquet"),
    (rb"ARROW1\0\0", "an Arrow file: write it as parquet or JSON lines"),
    (rb"%PDF-", "PDF: extract its text"),
)
_PIECE = 1 << 16


def numbered_lines(path: str, max_bytes: int) -> Iterator[tuple[int, str | BadRecord]]:
    """(number from 1, line without its end) of a UTF-8 file; a BadRecord in place of a line that is
    not UTF-8, holds a NUL byte or is longer than `max_bytes`. Raises DamagedFile where the file
    breaks off, DataError for a file of UTF-16 or UTF-32, and for archives and other formats."""
    progress = ReadPosition("line")
    with open_bytes(path) as stream, reading(path, progress):
        for line in _raw_lines(stream, max_bytes):
            progress.count += 1
            place = f"{path}, line {progress.count}"
            if line is None:
                reason = f"longer than max_record_bytes = {max_bytes:,}"
                yield progress.count, BadRecord(place, reason)
                continue
            if progress.count == 1:
                _refuse_other_encodings(path, line)
                _refuse_other_formats(path, line)
            yield progress.count, _decoded(line, place, first=progress.count == 1)


def _decoded(line: bytes, place: str, *, first: bool) -> str | BadRecord:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        reason = f"not valid UTF-8 (byte {error.start + 1} of the line: {error.reason})"
        return BadRecord(place, reason)
    if "\0" in text:
        what = "no text, or UTF-16 without its mark, or what a crash left of a file"
        return BadRecord(place, f"holds a NUL byte (byte {line.index(0) + 1} of the line): {what}")
    return text.rstrip("\r\n")


def _refuse_other_encodings(path: str, line: bytes) -> None:
    for mark, encoding in _OTHER_MARKS:
        if line.startswith(mark):
            raise DataError(
                f"{path} begins with the byte order mark of {encoding}, and text is read as UTF-8: "
                f"iconv -f {encoding[:6]} -t UTF-8 {path} > NEW"
            )


def _refuse_other_formats(path: str, line: bytes) -> None:
    for begin, what in _OTHER_FORMATS:
        if re.match(begin, line):
            raise DataError(f"{path} is no text but {what.replace('FILE', path)}")


def _raw_lines(stream: BinaryIO, max_bytes: int) -> Iterator[bytes | None]:
    """Lines with their ends; None for one of more than `max_bytes`. They end at "\\n", or at "\\r"
    in a file whose beginning (as far as a line may be long) has no other."""
    line = stream.readline(max_bytes + 1)
    if not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r"):
        yield from _old_mac_lines(line, stream, max_bytes)
        return
    while line:
        if len(line) > max_bytes and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(max_bytes + 1)
            yield None
        else:
            yield line
        line = stream.readline(max_bytes + 1)


def _old_mac_lines(begin: bytes, stream: BinaryIO, max_bytes: int) -> Iterator[bytes | None]:
    rest, more = b"", begin
    while more:
        *lines, rest = (rest + more).split(b"\r")
        for line in lines:
            yield None if len(line) > max_bytes else line
        rest = rest[: max_bytes + 1]  # of a longer one there is no need of more
        more = stream.read(_PIECE)
    if rest:
        yield None if len(rest) > max_bytes else rest
