"""ByT5's vocabulary: the bytes of UTF-8."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from t5jax.data.vocabularies.base import SENTINEL, Vocabulary, without_lone_surrogates


@dataclasses.dataclass(kw_only=True, slots=True)
class ByteVocabulary(Vocabulary):
    """ByT5's: byte b is id b + 3. Without extra ids the sentinels reuse ids 258, 257, ..."""

    kind: ClassVar[str] = "bytes"
    file_name: ClassVar[str | None] = None

    extra_ids: int = 0

    _FIRST_BYTE_ID = 3
    _END_OF_BYTES = 256 + 3

    @property
    def vocab_size(self) -> int:
        return self._END_OF_BYTES + self.extra_ids

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"bytes:{self.extra_ids}".encode()).hexdigest()

    def file_bytes(self) -> None:
        return None

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        pieces, position = [], 0
        if sentinels and "<extra_id_" in text:
            for match in SENTINEL.finditer(text):
                if int(match[1]) < self.num_sentinels:
                    pieces += [self._encode_bytes(text[position : match.start()])]
                    pieces += [np.array([self.sentinel_id(int(match[1]))], np.int32)]
                    position = match.end()
        return np.concatenate([*pieces, self._encode_bytes(text[position:])])

    def _encode_bytes(self, text: str) -> np.ndarray:
        try:
            utf8 = text.encode()
        except UnicodeEncodeError:
            utf8 = without_lone_surrogates(text).encode()
        return np.frombuffer(utf8, np.uint8).astype(np.int32) + self._FIRST_BYTE_ID

    def decode(self, ids: Iterable[int]) -> str:
        """As documented in the base class, except that bytes which are not valid UTF-8 are dropped.

        Sentinels that reuse byte ids are recognised where their byte cannot be part of a character.
        """
        text, run = [], bytearray()
        for token in map(int, ids):
            if self._FIRST_BYTE_ID <= token < self._END_OF_BYTES:
                run.append(token - self._FIRST_BYTE_ID)
            elif self._END_OF_BYTES <= token < self.vocab_size:
                text += [self._decode_bytes(run), f"<extra_id_{self.vocab_size - 1 - token}>"]
                run = bytearray()
        return "".join([*text, self._decode_bytes(run)])

    def _decode_bytes(self, utf8: bytes | bytearray) -> str:
        text, position = [], 0
        while position < len(utf8):
            try:
                return "".join([*text, utf8[position:].decode()])
            except UnicodeDecodeError as error:
                bad = position + error.start
                text += [utf8[position:bad].decode(), self._shared_sentinel(utf8[bad])]
                position = bad + 1
        return "".join(text)

    def _shared_sentinel(self, byte: int) -> str:
        index = 255 - byte
        return f"<extra_id_{index}>" if not self.extra_ids and index < self.num_sentinels else ""
