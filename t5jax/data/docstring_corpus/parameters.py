"""Parameters and return values that documentation strings describe: name, type, description.

NumPy's, Google's and Sphinx's ways to write them are read: `x : int, optional` above an indented
description, `x (int): description`, and `:param int x: description`.
"""

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

_NUMPY = re.compile(r"(?P<name>[\w*][\w, *.]*) : (?P<type>\S.*)\Z")
_GOOGLE = re.compile(r"(?P<name>[\w*]+) \((?P<type>[^()]{1,60})\): +(?P<text>\S.*)\Z")
_SPHINX = re.compile(r":param +(?P<type>\w+) +(?P<name>\w+): *(?P<text>.*)\Z")


class Parameter(NamedTuple):
    """One entry, its type as it is written there, its description on one line, markup still in
    it."""

    name: str
    type: str
    description: str


def documented_parameters(docstring: str) -> Iterator[Parameter]:
    """The entries that have a type and a description, in order; one name or several (`a, b`)."""
    lines = inspect.cleandoc(docstring).splitlines()
    for number, line in enumerate(lines):
        text = line.strip()
        found = _GOOGLE.match(text) or _SPHINX.match(text) or _NUMPY.match(text)
        if found is None:
            continue
        own = [found["text"]] if "text" in found.groupdict() else []
        description = " ".join([*own, *_indented_below(lines, number)])
        if description:
            yield Parameter(found["name"], found["type"], description)


def _indented_below(lines: list[str], number: int) -> Iterator[str]:
    """The lines below one that are indented deeper, up to a blank one."""
    indent = _indent(lines[number])
    for line in lines[number + 1 :]:
        if not line.strip() or _indent(line) <= indent:
            return
        yield line.strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
