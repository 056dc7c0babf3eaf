"""zstd as a stream that knows whether it was whole.

`zstandard`'s own stream reader returns an empty read at the end of its input, in the middle of a
frame or not, so a truncated file passes for a shorter one. This one raises EOFError there.
"""

import io
from typing import Any, BinaryIO, cast

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 17


class ZstdError(ValueError):
    """A frame that does not decompress."""


class ZstdReader(io.RawIOBase):
    """Decompressed bytes of all frames of a file. Raises EOFError when the last one is incomplete,
    ZstdError for damage that zstd notices: without a checksum in the frame (the `zstd` command
    writes one) it cannot notice all."""

    def __init__(self, raw: Any):
        import zstandard

        self._raw = raw
        self._zstandard = zstandard
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._in_frame = False
        self._compressed = b""
        self._ready = memoryview(b"")

    @classmethod
    def buffered(cls, raw: Any) -> BinaryIO:
        """A binary stream with `readline` over the decompressed bytes."""
        return cast(BinaryIO, io.BufferedReader(cls(raw), _CHUNK))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next decompressed bytes; 0 at the end of a whole file."""
        while not self._ready:
            self._compressed = self._compressed or self._raw.read(_CHUNK)
            if not self._compressed:
                if self._in_frame:
                    raise EOFError("the last zstd frame is not complete")
                return 0
            self._decompress()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _decompress(self) -> None:
        try:
            self._ready = memoryview(self._frame.decompress(self._compressed))
        except self._zstandard.ZstdError as error:
            raise ZstdError(str(error)) from error
        self._in_frame = not self._frame.eof
        self._compressed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = self._zstandard.ZstdDecompressor().decompressobj()
