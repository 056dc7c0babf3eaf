r"""Any text in one line, and back: line ends as JSON writes them.

`\n`, `\r`, `\u2028` stand for the characters that end a line somewhere (those of Python's
`str.splitlines`), `\\` for a backslash that could be taken for the beginning of one of these. All
other text, other backslashes too, is as it was: `\alpha` stays `\alpha`.
"""

import re

_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# A backslash is doubled before what would make an escape of it.
_TO_ESCAPE = re.compile(rf"\\(?=[\\nru{_ENDS}])|[{_ENDS}]")
_ESCAPED = re.compile(r"\\(\\|n|r|u[0-9a-f]{4})")
_SHORT = {"\n": "\\n", "\r": "\\r", "\\": "\\\\"}


def one_line(text: str) -> str:
    """The text without line ends; `several_lines` is its inverse."""
    return _TO_ESCAPE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def several_lines(line: str) -> str:
    """The text that `one_line` made a line of."""
    return _ESCAPED.sub(lambda found: _character(found[1]), line)


def _character(escape: str) -> str:
    if escape.startswith("u"):
        return chr(int(escape[1:], 16))
    return {"n": "\n", "r": "\r"}.get(escape, "\\")
