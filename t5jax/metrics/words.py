"""Words and characters of text in any script, for metrics that compare tokens.

Words follow the Unicode word boundaries (UAX #29) as far as letters, marks and numbers go: a
combining mark belongs to its letter (Hindi's vowel signs, accents), invisible joiners to the word
around them, and in scripts that are written without spaces (Chinese, Japanese's Kanji and Hiragana,
Thai, Lao, Khmer, Burmese) every character is a word. Text is composed (NFC) and lower-cased first,
so that two spellings of one accent are equal. Of ASCII text the words are the published ROUGE's.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

_WITHOUT_SPACES = (
    "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC", "HIRAGANA", "YI ",
    "NUSHU", "TANGUT", "THAI", "LAO", "KHMER", "MYANMAR", "TAI ", "NEW TAI LUE", "JAVANESE",
)  # fmt: skip
_ASCII_WORD = re.compile("[a-z0-9]+")
_ZERO_WIDTH_SPACE = "\u200b"  # where Thai or Khmer text marks its words


def unicode_words(text: str) -> list[str]:
    """The words of a text, lower-cased."""
    return _tokens(text, every_character=False)


def characters(text: str) -> list[str]:
    """The letters and numbers of a text, lower-cased, each with its combining marks."""
    return _tokens(text, every_character=True)


def letters(text: str) -> str:
    """The letters and digits alone, composed and lower-cased."""
    if text.isascii():
        return "".join(_ASCII_WORD.findall(text.lower()))
    return "".join(c for c in _normal(text) if _kind(c) in ("word", "alone"))


def share_without_spaces(texts: Iterable[str], *, least: int = 1) -> float:
    """The share of all letters, 0 to 1, that are of scripts written without spaces; of texts with
    `least` of them or more."""
    of_all = [letters(text) for text in texts]
    alone_N = [sum(_kind(c) == "alone" for c in text) for text in of_all if not text.isascii()]
    return sum(n for n in alone_N if n >= least) / max(sum(map(len, of_all)), 1)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _tokens(text: str, *, every_character: bool) -> list[str]:
    if text.isascii():
        found = _ASCII_WORD.findall(text.lower())
        return list("".join(found)) if every_character else found
    tokens: list[str] = []
    before = "break"
    for c in _normal(text):
        kind = _kind(c)
        if kind == "ignored":
            continue
        goes_on = kind == "mark" or (before == kind == "word" and not every_character)
        if kind == "break":
            before = kind
        elif goes_on and before != "break":
            tokens[-1] += c
        else:
            tokens.append(c)
            before = "word" if kind == "mark" else kind
    return tokens


@functools.cache
def _kind(character: str) -> Literal["word", "alone", "mark", "ignored", "break"]:
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category == "Cf" and character != _ZERO_WIDTH_SPACE:
        return "ignored"  # joiners, soft hyphens, marks of direction
    if category[0] not in "LN":
        return "break"
    name = unicodedata.name(character, "")
    return "alone" if name.startswith(_WITHOUT_SPACES) else "word"
