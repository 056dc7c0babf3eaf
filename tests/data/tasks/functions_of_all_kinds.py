"""Functions and classes of a user's module, in forms whose source text is not easily told apart.

Read by several Python versions (see test_identity.py): standard library and Python 3.11 only.
"""

import dataclasses
import functools
import re


def plain(row, label="targets"):
    """Documentation that is no part of it."""
    yield {"inputs": f"a: {row['text']!r:>{12}}", label: f"xy{1 + 1}"}


def in_a_set(row):
    return row in {"a", "b", "c"} or row["n"] in frozenset(("d", "e"))


def comprehensions(row, sep=" "):
    return [sep.join(word for word in line.split(sep) if word) for line in row["text"]]


def with_debug_text(row):
    return f"{row=} {row['a']['b']:{row['width']}.{row['precision']}f} {{literal}}"


def matched(row):
    match row:
        case {"label": 1 | 2 as label, **rest}:
            return label, rest
        case [first, *_]:
            return first
        case None:
            return None


def tried(row):
    try:
        return row["a"]
    except* ValueError as group:
        raise RuntimeError(group) from None
    finally:
        del row["a"]


async def awaited(rows):
    async with rows as opened:
        return [n async for row in opened if (n := row["n"])]


def made(prefix):
    def inner(row):
        return prefix + row["text"]

    return inner


def made_lambda(prefix):
    return lambda row: [{"inputs": f"{prefix}: {row['a']}", "targets": "x"}]


def counted(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@counted
def decorated(row):
    return row["decorated"]


@functools.lru_cache(maxsize=3)
def cached(text):
    return text.upper()


def countdown(n):
    def again(m):
        return [m, *again(m - 1)] if m else []

    return again


@dataclasses.dataclass(frozen=True)
class Prefixed:
    """A source or an `examples` of the user's own, without a version."""

    prefix: str
    pattern: object = re.compile(r"\d+", re.I)

    def __call__(self, row):
        return [{"inputs": self.prefix + row["text"], "targets": "x"}]

    def method(self, row):
        return self.prefix

    @classmethod
    def of_class(cls, row):
        return cls


class Versioned:
    """One with a version."""

    VERSION = "2.0.0"

    def __call__(self, row):
        return row


class Lines:
    """A foreign object."""


def stated(row):
    return row


stated.VERSION = 3
alone = lambda row: row["a"]
first, second = lambda row: row["a"], lambda row: row["b"]
nested = lambda row: lambda text: lambda: row[text]
over_lines = lambda row: (
    row["a"],
    lambda: row["b"],
)
äöü = ["ä", lambda row: row["ä"], "ö", lambda row: row["ö"]]

EVERYTHING = {
    "plain": plain,
    "in_a_set": in_a_set,
    "comprehensions": comprehensions,
    "with_debug_text": with_debug_text,
    "matched": matched,
    "tried": tried,
    "awaited": awaited,
    "made a": made("a"),
    "made b": made("b"),
    "made lambda": made_lambda("a"),
    "decorated": decorated,
    "cached": cached,
    "countdown": countdown(1),
    "partial": functools.partial(plain, label="other"),
    "dataclass": Prefixed("p"),
    "another prefix": Prefixed("q"),
    "method": Prefixed("p").method,
    "class method": Prefixed.of_class,
    "class": Prefixed,
    "versioned": Versioned(),
    "foreign": Lines(),
    "stated": stated,
    "alone": alone,
    "first": first,
    "second": second,
    "nested": nested,
    "nested 1": nested({}),
    "nested 2": nested({})("a"),
    "over_lines": over_lines,
    "over_lines 1": over_lines({"a": 1})[1],
    "ä": äöü[1],
    "ö": äöü[3],
    "builtin": str.lower,
    "set": frozenset({"a", "b", "c"}),
    "bytes": b"\x00",
}
