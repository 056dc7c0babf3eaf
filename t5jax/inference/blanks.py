"""Filling the blanks `<extra_id_0>` … of a text with the output of a span corruption model."""

import re

_BLANK = re.compile(r"\s*<extra_id_(\d+)>")


def has_blanks(text: str) -> bool:
    return _BLANK.search(text) is not None


def fill_blanks(text: str, output: str) -> str:
    """The text with each blank replaced by the span that follows its sentinel in the output.

    A blank without a span in the output stays as it is.
    """
    pieces = re.split(r"<extra_id_(\d+)>", output)
    spans = dict(zip(pieces[1::2], pieces[2::2], strict=True))

    def replacement(blank: re.Match) -> str:
        span = spans.get(blank[1])
        if span is None:
            return blank[0]
        return f"{_leading_space(blank[0], span)}{span.strip()}"

    return _BLANK.sub(replacement, text)


def _leading_space(blank: str, span: str) -> str:
    """White space before the blank, unless the span begins with punctuation."""
    leading = blank[: len(blank) - len(blank.lstrip())]
    return leading if not re.match(r"[,.;:!?)\]]", span.strip()) else ""
