"""What decides the texts of a task, as JSON: settings of sources, and the code of functions.

A token store keeps it, and is refused to a task that would make other texts. Functions which a
function calls are not looked into.
"""

import dataclasses
import functools
import hashlib
import types
from typing import Any


def describe(thing: Any, inside: tuple[int, ...] = ()) -> Any:
    """A source's type and settings, a function's code, defaults and what it closes over.

    `inside` are the identities of the functions that this is a part of: one may close over itself.
    """
    if isinstance(thing, functools.partial):
        return [describe(x, inside) for x in (thing.func, thing.args, thing.keywords)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        shown = [field.name for field in dataclasses.fields(thing) if field.repr]
        fields = {name: describe(getattr(thing, name), inside) for name in shown}
        return {"type": _type_name(thing), **fields}
    if isinstance(thing, dict):
        return {str(key): describe(value, inside) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value, inside) for value in thing]
    if isinstance(thing, str | int | float | None):
        return thing
    if isinstance(thing, types.FunctionType) and id(thing) not in inside:
        return _of_function(thing, (*inside, id(thing)))
    return {"type": _type_name(thing)}


def _of_function(function: types.FunctionType, inside: tuple[int, ...]) -> dict[str, Any]:
    record: dict[str, Any] = {"code": _fingerprint(function.__code__)}
    if function.__defaults__ or function.__kwdefaults__:
        record["defaults"] = describe([function.__defaults__, function.__kwdefaults__], inside)
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    if cells:
        record["closure"] = describe(cells, inside)
    return record


def _type_name(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _fingerprint(code: types.CodeType) -> str:
    """sha256 (short) of a function's instructions, names and constants, inner functions too."""
    digest = hashlib.sha256(code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            digest.update(_fingerprint(constant).encode())
        elif isinstance(constant, frozenset):  # its order is another one in every process
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode())
    return digest.hexdigest()[:16]
