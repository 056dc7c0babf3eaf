"""zstd streams: Python 3.14's `compression.zstd`, and its backport before that.

It raises EOFError where the last frame is not complete, as `gzip` does for a member. Measured
against it: `zstandard`'s reader takes a truncated file for a shorter one; pyarrow's refuses it, but
also every window above 128 MB ("requires too much memory"; it has no setting), trailing zeros of
gzip files (which `gzip` pads tapes with), and raises the same OSError for damage as for a disk.
"""

import io
import sys
from typing import Any, BinaryIO, cast

if sys.version_info >= (3, 14):
    from compression import zstd as library
else:
    from backports import zstd as library

_MAGIC = b"\x28\xb5\x2f\xfd"
_MAGIC_OF_SKIPPABLE = (
    b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f; pzstd begins with such a frame
)
ZstdError = library.ZstdError  # for damage; without a checksum in the frame not all is noticed

# Archives are packed with `--long=31`, a window of 2 GB; libzstd refuses more than 128 MB unasked.
_WINDOW_LOG = library.DecompressionParameter.window_log_max
_BLOCK = 1 << 17  # the most that a block of a frame holds: what is decompressed in one piece


class _Pieces(library.ZstdFile):
    """What one read of the file gives, however little: what comes before a cut is not lost."""

    def readinto(self, buffer: Any) -> int:
        return self.readinto1(buffer)


def is_zstd(magic: bytes) -> bool:
    """Whether a file that begins with these 4 bytes is zstd's (RFC 8878, section 3.1)."""
    skippable = magic[:1] and magic[0] >> 4 == 5 and magic[1:4] == _MAGIC_OF_SKIPPABLE
    return magic[:4] == _MAGIC or bool(skippable)


def open_zstd(raw: Any) -> BinaryIO:
    """The decompressed bytes of all frames of a file. Raises EOFError when the last one is
    incomplete, ZstdError for damage."""
    file = _Pieces(raw, options={_WINDOW_LOG: _WINDOW_LOG.bounds()[1]})
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, file), _BLOCK))
