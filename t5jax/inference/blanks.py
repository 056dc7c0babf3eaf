"""Texts with blanks `<extra_id_0>`, `<extra_id_1>`, … that a span corruption model fills in."""

import re

_BLANK = re.compile(r"\s*<extra_id_(\d+)>")


def has_blanks(text: str) -> bool:
    return _BLANK.search(text) is not None


def fill(text: str, output: str) -> str:
    """The text with its blanks replaced by what the output says after each sentinel.

    A blank that the output does not mention stays as it is.
    """
    pieces = re.split(r"<extra_id_(\d+)>", output)
    spans = dict(zip(pieces[1::2], pieces[2::2], strict=True))

    def span(blank: re.Match) -> str:
        found = spans.get(blank[1])
        if found is None:
            return blank[0]
        return f"{_space(blank[0], found)}{found.strip()}"

    return _BLANK.sub(span, text)


def _space(blank: str, found: str) -> str:
    """White space before the blank, unless the span continues a word or is punctuation."""
    leading = blank[: len(blank) - len(blank.lstrip())]
    return leading if not re.match(r"[,.;:!?)\]]", found.strip()) else ""
