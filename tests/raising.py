"""Ten kinds of exceptions that foreign code raises, and functions that raise them."""


class Odd(Exception):
    """One of a user's, whose text is of several lines."""

    def __str__(self):
        return "odd\n  text\twith \x1b[31mno end"


class Unprintable(Exception):
    """One whose text cannot be had."""

    def __str__(self):
        raise KeyError("no text")


def _decode_error() -> UnicodeDecodeError:
    return UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte")


EXCEPTIONS = {
    "ValueError": lambda: ValueError("a value"),
    "KeyError": lambda: KeyError("total"),
    "ZeroDivisionError": lambda: ZeroDivisionError("division by zero"),
    "AssertionError": lambda: AssertionError(),
    "UnicodeDecodeError": _decode_error,
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "MemoryError": lambda: MemoryError(),
    "StopIteration": lambda: StopIteration("too early"),
    "OSError": lambda: OSError(5, "Input/output error"),
    "Odd": Odd,
    "Unprintable": Unprintable,
}


def raises(name: str, *_, **__):
    """Raises the exception of a name."""
    raise EXCEPTIONS[name]()
