"""The identity of a task's texts, as JSON: settings of sources, versions, source text of functions.

A tokenised store keeps it, and is refused to a task that would make other texts. The same on every
Python version (byte code is not): as in seqio and TFDS, t5jax's sources and tasks state a version,
which is raised when their texts change. A user's function or class is identified by its source
text, without comments, layout, docstrings and annotations; or by the `VERSION` that it states.
What a function calls is not followed. Only the standard library is imported here.
"""

import ast
import dataclasses
import enum
import functools
import hashlib
import linecache
import os
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

NO_SOURCE = "no source text to compare: give it an attribute VERSION, and raise that with its texts"
# Fields of the syntax tree that do not change what code does.
_IGNORED = ("ctx", "kind", "type_comment", "returns")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BUILTIN_FUNCTIONS = (types.BuiltinFunctionType, types.MethodDescriptorType)


def identity_of(thing: Any, inside: tuple[int, ...] = ()) -> Any:
    """The type and settings of a source; the source text, defaults and closure of a function.

    Other objects are known by their type alone. `inside` are the ids of the functions and owners of
    methods that this is a part of: one may close over itself.
    """
    if thing is None or isinstance(thing, str | int | float | enum.Enum):
        return thing.name if isinstance(thing, enum.Enum) else thing
    if isinstance(thing, types.FunctionType):
        inner = (*inside, id(thing))
        return _type_of(thing) if id(thing) in inside else _of_function(thing, inner)
    if isinstance(thing, type):
        return _of_class(thing)
    if dataclasses.is_dataclass(thing):
        shown = [field.name for field in dataclasses.fields(thing) if field.repr]
        settings = {name: identity_of(getattr(thing, name), inside) for name in shown}
        return {**_of_class(type(thing), _stated_version(thing)), **settings}
    return _of_other(thing, inside)


def _of_other(thing: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(thing, functools.partial):
        return [identity_of(x, inside) for x in (thing.func, thing.args, thing.keywords)]
    if isinstance(thing, dict):
        return {str(key): identity_of(value, inside) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [identity_of(value, inside) for value in thing]
    if isinstance(thing, set | frozenset):  # its order is another one in every process
        return sorted((identity_of(value, inside) for value in thing), key=repr)
    if isinstance(thing, types.MethodType):
        owner = thing.__self__
        inner = (*inside, id(owner))  # it may hold the method
        of_owner = _type_of(owner) if id(owner) in inside else identity_of(owner, inner)
        return {"method": [identity_of(thing.__func__, inside), of_owner]}
    if isinstance(thing, _BUILTIN_FUNCTIONS):
        return {"function": thing.__qualname__}
    if isinstance(thing, os.PathLike):
        return os.fspath(thing)
    if isinstance(thing, re.Pattern):
        return {"pattern": repr(thing.pattern), "flags": thing.flags}
    if isinstance(thing, bytes | complex | range):
        return repr(thing)
    if callable(wrapped := getattr(thing, "__wrapped__", None)):  # functools.cache
        return {**_type_of(thing), "wrapped": identity_of(wrapped, inside)}
    return _type_of(thing)


def _of_function(function: types.FunctionType, inside: tuple[int, ...]) -> dict[str, Any]:
    version = _stated_version(function)
    if version is None:
        source_text = _function_source(function)
        record = (
            {"function": function.__qualname__, "note": NO_SOURCE}
            if source_text is None
            else {"source_text": source_text}
        )
    else:
        record = {"function": _name(function), "stated_version": version}
    if function.__defaults__ or function.__kwdefaults__:
        record["defaults"] = identity_of([function.__defaults__, function.__kwdefaults__], inside)
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    closure = {
        name: cell.cell_contents
        for name, cell in sorted(zip(names, cells, strict=True))
        if cell != types.CellType()
    }
    if closure:
        record["closure"] = identity_of(closure, inside)
    return record


def _of_class(cls: type, version: Any = None) -> dict[str, Any]:
    version = _stated_version(cls) if version is None else version
    if version is not None:
        return {"type": _name(cls), "stated_version": version}
    source_text = _class_source(cls)
    if source_text is not None:
        return {"type": cls.__qualname__, "source_text": source_text}
    return {"type": f"{cls.__module__}.{cls.__qualname__}"}


def _type_of(thing: Any) -> dict[str, Any]:
    version = _stated_version(thing)
    if version is not None:
        return {"type": _name(type(thing)), "stated_version": version}
    return {"type": f"{type(thing).__module__}.{type(thing).__qualname__}"}


def _stated_version(thing: Any) -> int | str | None:
    """`VERSION`, where one is stated; 1 for what is t5jax's own.

    A user's subclass of a class of t5jax has to state its own.
    """
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    version = getattr(thing, "VERSION", None)
    if isinstance(named, type) and not _is_own(named):
        owner = next((base for base in named.__mro__ if "VERSION" in vars(base)), named)
        version = None if _is_own(owner) else version
    if isinstance(version, int | str):
        return version
    return 1 if _is_own(named) else None


def _is_own(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] == "t5jax"


def _name(thing: Any) -> str:
    """Without the module: files may move."""
    return f"t5jax.{thing.__qualname__}" if _is_own(thing) else thing.__qualname__


def _function_source(function: types.FunctionType) -> str | None:
    """Hash of a function's syntax tree; None where its text cannot be read, or cannot be told from
    another lambda's on its line."""
    code = function.__code__
    nodes = _by_first_line(_text(code.co_filename, function.__globals__)).get(code.co_firstlineno)
    found = [node for node in nodes or () if getattr(node, "name", "<lambda>") == code.co_name]
    if len(found) > 1:
        found = [node for node in found if _contains(node, code)]
        # A lambda inside another one's body: the inner one is the shorter piece of text.
        found = sorted(found, key=lambda node: len(ast.dump(node)))[:1]
    return _digest(found) if found else None


def _contains(node: ast.AST, code: types.CodeType) -> bool:
    """Whether every instruction that has a place is of the text of a lambda's body."""
    body: Any = getattr(node, "body", None)
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and column is not None and end_column
    ]
    first, last = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    return bool(places) and all(first <= start and end <= last for start, end in places)


def _class_source(cls: type) -> str | None:
    """Hash of the syntax trees of a class and of its bases in the same package."""
    package = cls.__module__.partition(".")[0]
    trees: list[ast.AST] = []
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == package and package != "builtins":
            module = sys.modules.get(base.__module__)
            text = _text(getattr(module, "__file__", None) or "", vars(module) if module else {})
            trees += _by_qualname(text).get(base.__qualname__, [])
    return _digest(trees) if trees else None


def _text(path: str, module_globals: dict[str, Any]) -> str:
    if path == "<string>":  # of exec and `python -c`; Python 3.13 has lines for the second
        return ""
    linecache.checkcache(path)
    return "".join(linecache.getlines(path, module_globals))


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> ast.AST:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):  # the file is being edited, or is no Python
        return ast.Module(body=[], type_ignores=[])


@functools.lru_cache(maxsize=64)
def _by_first_line(text: str) -> dict[int, list[ast.AST]]:
    """Functions and lambdas by the line where they begin, decorators included."""
    found: dict[int, list[ast.AST]] = {}
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lines = [node.lineno, *(x.lineno for x in getattr(node, "decorator_list", ()))]
            found.setdefault(min(lines), []).append(node)
    return found


@functools.lru_cache(maxsize=64)
def _by_qualname(text: str) -> dict[str, list[ast.AST]]:
    found: dict[str, list[ast.AST]] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, _DEFINITIONS):
                name = f"{prefix}{child.name}"
                found.setdefault(name, []).append(child)
                inner = f"{name}." if isinstance(child, ast.ClassDef) else f"{name}.<locals>."
            visit(child, inner)

    visit(_parsed(text), "")
    return found


def _digest(nodes: list[ast.AST]) -> str:
    """sha256 (short) of syntax trees, apart from the name of a function at the top."""
    text = "\n".join("".join(_written(node, top=True)) for node in nodes)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _written(node: Any, *, top: bool = False) -> Iterator[str]:
    """The syntax tree in a form of our own: `ast.dump` and `ast.unparse` differ between Pythons."""
    if isinstance(node, list):
        yield "["
        for part in node:
            yield from _written(part)
            yield ","
        yield "]"
    elif isinstance(node, ast.Constant):
        yield f"{type(node.value).__name__} {node.value!r}"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in _fields(node):
            if not (top and name == "name"):
                yield f"{name}="
                yield from _written(value)
                yield " "
        yield ")"
    else:
        yield repr(node)


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Fields that are not empty, by name; a Python adds empty ones to old nodes."""
    for name, value in sorted(ast.iter_fields(node)):
        if name == "body" and isinstance(node, _DEFINITIONS):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if name == "values" and isinstance(node, ast.JoinedStr):
            value = _joined(value)
        if name == "annotation" and isinstance(node, ast.arg):
            continue
        if name not in _IGNORED and value is not None and value != []:
            yield name, value


def _joined(parts: list[ast.AST]) -> list[ast.AST]:
    """The parts of an f-string, neighbouring texts as one: Pythons cut them differently."""
    found: list[ast.AST] = []
    for part in parts:
        if isinstance(part, ast.Constant) and found and isinstance(found[-1], ast.Constant):
            found[-1] = ast.Constant(f"{found[-1].value}{part.value}")
        elif not (isinstance(part, ast.Constant) and part.value == ""):
            found.append(part)
    return found
