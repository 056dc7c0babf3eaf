"""Any text in one line, and back."""

import itertools
import random

import pytest

from t5jax.data.vocabularies.one_line import one_line, several_lines

SIGNS = ["\\", "n", "r", "u", "u000a", "2028", "\n", "\r", "\u2028", "\u2029", "\x85", "\v", "\f"]
SIGNS += ["\x1c", "\x1d", "\x1e", "a", " ", '"', "\t", "語", "x0a", "\\\\", "\\u"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\nb\u2028", r"a\r\nb\u2028"),
        (r"\alpha and C:\temp", r"\alpha and C:\temp"),
        (r"\nu", r"\\nu"),
        ("\\\n", r"\\\n"),
        ("\\\\x", "\\\\\\x"),
        ("ends with \\", "ends with \\"),
        ('a "quote"\tand a tab', 'a "quote"\tand a tab'),
    ],
)
def test_what_is_written(text, line):
    assert one_line(text) == line
    assert several_lines(line) == text


def test_every_text_is_one_line_and_comes_back():
    draw = random.Random(5)
    short = ["".join(parts) for parts in itertools.product(SIGNS, repeat=3)]
    long = ["".join(draw.choices(SIGNS, k=draw.randint(4, 40))) for _ in range(4000)]
    lines = set()
    for text in {*short, *long}:
        line = one_line(text)
        assert line.splitlines() in ([line], [])
        assert several_lines(line) == text
        lines.add(line)
    assert len(lines) == len({*short, *long})  # no two texts are one line
