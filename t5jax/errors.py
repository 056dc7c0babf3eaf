"""Errors a user can cause; each message names the field or file, the value and what to do next.

And the one boundary around code that is not t5jax's own: whatever a user's function or another
library raises on data becomes one of these errors, with its place.
"""

import contextlib
import functools
import io
import os
import pathlib
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")
_MOST_CHARACTERS = 500  # of a message that another program made
TRACEBACK_HINT = "T5JAX_DEBUG=1 shows the traceback"
_OWN_FILES = str(pathlib.Path(__file__).parent) + "/"
_INSTALLED = tuple(
    {f"{sysconfig.get_path(kind)}/" for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
)


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type, out of range or without effect."""


class DataError(ValueError):
    """Data that is missing, corrupt or does not fit the run: file, place and reason."""


class CheckpointError(ValueError):
    """A checkpoint that does not exist, is damaged or does not fit the model."""


def missing_file(path: str, message: str, kind: type[ValueError] = DataError) -> ValueError:
    """An error about a path that is not there; the command that prints it looks for it elsewhere
    (`path` may be relative, and t5jax started in another folder)."""
    error = kind(message)
    error.missing = path  # pyright: ignore[reportAttributeAccessIssue]
    return error


OWN_ERRORS = (ConfigError, DataError, CheckpointError)


class foreign_code:
    """Context manager around code that is not t5jax's own: a user's function, another library.

        with foreign_code("task ratio", place="ratio.jsonl, line 2"):
            examples = task.examples(row)

    Any Exception becomes an error of type `kind`, `PLACE: TYPE in WHAT: MESSAGE`, with its cause.
    Errors of t5jax pass as they are; the place is put in front where they do not name it.
    KeyboardInterrupt and SystemExit pass unchanged. `place` may be a function, called on failure.
    """

    __slots__ = ("_kind", "_place", "_what")

    def __init__(
        self, what: str, place: str | Callable[[], str] = "", kind: type[ValueError] = DataError
    ):
        self._what, self._place, self._kind = what, place, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        if error is None or not is_failure(error):
            return
        place = self._place if isinstance(self._place, str) else self._place()
        if isinstance(error, OWN_ERRORS):
            if place and place not in str(error):
                error.args = (f"{place}: {error}", *error.args[1:])
            return
        reason = failure(error, self._what)
        raised = self._kind(f"{place}: {reason}" if place else reason)
        raised.add_note(TRACEBACK_HINT)
        raise raised from error


def user_code(
    thing: Any, what: str, place: str = "", kind: type[ValueError] = ConfigError
) -> contextlib.AbstractContextManager[None]:
    """The boundary around an object or function of a user's module: `foreign_code` naming it, as in
    `the loss my_parts.FocalLoss`. Around one of t5jax none: its unexpected error is a defect."""
    name = full_name(thing)
    if name.startswith("t5jax."):
        return contextlib.nullcontext()
    return foreign_code(f"the {what} {name}", place, kind)


def full_name(thing: Any) -> str:
    """`my_parts.FocalLoss` of a function, of a class, or of an object of one."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def foreign_items(
    items: Callable[[], Iterable[_T]],
    what: str,
    where: str,
    kind: Callable[[BaseException], type[ValueError]] = lambda error: DataError,
) -> Iterator[_T]:
    """The items of an iterable that is not t5jax's own (`items()` makes it); what its iteration
    raises becomes an error of type `kind(error)` at `where, after N records`."""
    done, nothing = 0, object()
    with foreign_code(what, where):
        iterator = iter(items())
    while True:
        try:
            item: Any = next(iterator, nothing)
        except BaseException as error:
            # Our own sources name the file themselves; a user's that raises our errors may not.
            named = isinstance(error, OWN_ERRORS) and not _line_of_user(error)
            with foreign_code(what, "" if named else f"{where}, after {done} records", kind(error)):
                raise
        if item is nothing:
            return
        yield item
        done += 1


def is_failure(error: BaseException) -> bool:
    """Whether the code failed, rather than being told to stop. A panic of Rust code, which Python
    does not count among its Exceptions, is a failure."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def failure(error: BaseException, what: str) -> str:
    """`KeyError in task ratio: 'total' (tasks.py, line 12)`: one line about an exception of code
    that is not t5jax's own; an error of t5jax's in its own words."""
    if isinstance(error, OWN_ERRORS):
        return str(error)
    message = message_of(error)
    line = _line_of_user(error)
    return (
        f"{type(error).__name__} in {what}"
        + (f": {message}" if message else "")
        + (f" ({line})" if line else "")
    )


def message_of(error: BaseException) -> str:
    """What an exception says, in one line, whatever its `__str__` does."""
    try:
        text = " ".join(str(error).split())
    except Exception as second:  # a class of the user's, whose __str__ is wrong itself
        text = f"(its message cannot be shown: {type(second).__name__})"
    text = "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text[: _MOST_CHARACTERS + 1])
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _line_of_user(error: BaseException) -> str:
    """`tasks.py, line 12`: the first line of the traceback that is neither t5jax's nor of an
    installed package; "" where there is none."""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith((_OWN_FILES, "<", *_INSTALLED)):
            return f"{pathlib.PurePath(file).name}, line {number}"
    return ""


# ---- what the operating system refuses to write


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file in an OSError of the block: Python does so where a file is opened, not where
    it is written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def write_whole(file: io.RawIOBase, data: bytes) -> None:
    """Writes all of the data to an unbuffered file, which may take less at a time."""
    left = memoryview(data)
    while len(left):
        left = left[file.write(left) or 0 :]


def refused_write(error: BaseException | None) -> tuple[int, str] | None:
    """(errno, file or "") of an error or its causes that the operating system caused; Orbax and
    TensorStore mention both in their texts alone. None where it did not."""
    number, file = None, ""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno, str(error.filename or file)
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            files = re.findall(r'"(/[^"]+)"', str(error))
            number, file = int(found[1]), (files or [""])[0]
        error = error.__cause__ or error.__context__
    return None if number is None else (number, file)
