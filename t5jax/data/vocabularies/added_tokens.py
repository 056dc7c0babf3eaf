"""Tokens added to a tokeniser's own pieces, as Hugging Face's files describe them.

They are found in the text as it is written, before the model sees it; the model then encodes each
piece of text between two of them as a text of its own. What T5's own files call a text is the rest:
padding, EOS and the unknown piece are no words of a document, and a sentinel is a piece of the
model (docs/data.md).
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from t5jax.data.vocabularies.base import SENTINEL
from t5jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AddedToken:
    """One token, and how it is found: `lstrip` and `rstrip` take the white space beside it,
    `single_word` leaves it alone inside a word, `normalized` looks for it after normalisation."""

    content: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = False

    @classmethod
    def from_record(cls, content: str, number: int, record: dict[str, Any]) -> "AddedToken":
        """Of a file's `{"lstrip": …}`; a flag that is missing is False."""
        names = ("lstrip", "rstrip", "single_word", "normalized", "special")
        flags = {name: bool(record.get(name, False)) for name in names}
        return cls(content=content, id=number, **flags)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Additions:
    """What a directory says beside its SentencePiece model: the tokens that were added, with their
    ids, sentinels included; the special ids; and whether only a text's beginning is a word's
    (`legacy: false`), or the beginning of every piece of text behind an added token too."""

    tokens: tuple[AddedToken, ...]
    pad_id: int
    eos_id: int
    unk_id: int
    prefix_after_tokens: bool = True

    @property
    def sentinels(self) -> dict[int, int]:
        """Sentinel -> id."""
        found = ((SENTINEL.fullmatch(token.content), token.id) for token in self.tokens)
        return {int(match[1]): number for match, number in found if match}

    @property
    def own(self) -> tuple[AddedToken, ...]:
        """The tokens that stand for themselves: neither sentinels nor padding, EOS, unknown."""
        return tuple(
            token
            for token in self.tokens
            if not SENTINEL.fullmatch(token.content)
            and token.id not in (self.pad_id, self.eos_id, self.unk_id)
        )

    def to_json(self) -> bytes:
        """Canonical: equal additions give equal bytes."""
        record = dataclasses.asdict(self)
        record["tokens"] = sorted(record["tokens"], key=lambda token: token["id"])
        return json.dumps(record, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Additions":
        """Raises DataError for anything that `to_json` did not write."""
        try:
            record = json.loads(data)
            tokens = tuple(AddedToken(**token) for token in record.pop("tokens"))
            return cls(tokens=tokens, **record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"the vocabulary's added tokens are damaged: {error}") from error


class Splitter:
    """Cuts a text at the added tokens in it: leftmost first, of several the longest."""

    def __init__(self, tokens: Iterable[AddedToken]):
        self._tokens = {token.content: token for token in tokens}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._first = frozenset(content[0] for content in longest_first)

    def __call__(self, text: str) -> Iterator[str | AddedToken]:
        """Pieces of text (not empty) and tokens, in order."""
        start = 0
        for match in self._matches(text):
            token = self._tokens[match[0]]
            before = text[start : match.start()]
            if before := before.rstrip() if token.lstrip else before:
                yield before
            yield token
            start = match.end()
            if token.rstrip:
                start += len(text[start:]) - len(text[start:].lstrip())
        if rest := text[start:]:
            yield rest

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        if self._first.isdisjoint(text):
            return
        position = 0
        while match := self._pattern.search(text, position):
            if self._tokens[match[0]].single_word and _inside_word(text, match):
                position = match.start() + 1
                continue
            yield match
            position = match.end()


def _inside_word(text: str, match: re.Match[str]) -> bool:
    around = text[: match.start()][-1:], text[match.end() :][:1]
    return any(re.match(r"\w", character) for character in around)


def check_added_tokens(tokens: Iterable[AddedToken], where: str) -> None:
    """DataError where two added tokens have one id or one content, or one is empty."""
    by_id: dict[int, str] = {}
    contents: set[str] = set()
    for token in tokens:
        if not token.content or token.id < 0:
            raise DataError(f"{where}: the added token {token.content!r} has id {token.id}")
        if by_id.setdefault(token.id, token.content) != token.content:
            raise DataError(
                f"{where}: id {token.id} is both {by_id[token.id]!r} and {token.content!r}; the "
                "files of this tokenizer contradict each other: take them from one source"
            )
        if token.content in contents:
            raise DataError(f"{where}: the added token {token.content!r} has two ids")
        contents.add(token.content)
