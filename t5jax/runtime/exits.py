"""Exit codes, and ending a process of a distributed run without a hang.

With several processes an ordinary exception would hang all hosts for minutes: Python's exit waits
for the others at jax's shutdown barrier, and they wait for this one inside a collective. So a
process that fails prints the error and ends with `os._exit`; its peers learn it from the lifeline
and end too.
"""

import enum
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable

from t5jax.errors import CheckpointError, ConfigError, DataError, refused_write
from t5jax.paths import seen_from
from t5jax.runtime import lifeline
from t5jax.runtime.lease import release_all


class ExitCode(enum.IntEnum):
    """Launchers restart a run after 70, 75 and 143 (and signals), never after the others."""

    DONE = 0
    CONFIG = 64
    DATA = 65  # bad data, or too many bad steps
    NO_CHECKPOINT = 66
    INTERNAL = 70  # a fault of the program, or of a peer
    CANNOT_WRITE = 73
    WATCHDOG = 75
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    PREEMPTED = 143


class Preempted(Exception):
    """The run was preempted (SIGTERM) and has saved the state after `step`."""

    def __init__(self, step: int):
        super().__init__(f"preempted: the state after step {step} is saved; start again to resume")
        self.step = step


class TooManyBadSteps(ValueError):
    """More steps in a row without a finite loss or gradient than `train.max_bad_steps` allows."""


DEBUG = "T5JAX_DEBUG"  # of the environment: every error is printed with its traceback

# errno -> what to do.
_CANNOT_WRITE = {
    errno.ENOSPC: "the disk is full: make room (df -h {folder} shows how much there is) or choose "
    "another disk, then start again",
    errno.EDQUOT: "the quota on this disk is used up: make room or have it raised, then start "
    "again",
    errno.EFBIG: "this process may not write a file so large (ulimit -f): raise the limit, then "
    "start again",
    errno.EROFS: "the disk is mounted to be read only: choose another",
    errno.EACCES: "the permission is missing: choose another folder, or have it given",
    errno.EPERM: "the permission is missing: choose another folder, or have it given",
    errno.ENOTDIR: "a folder is needed there: move it away, or choose another path",
    errno.EEXIST: "it is there already: move it away, or choose another path",
    errno.EISDIR: "a file is to be written there, and it is a folder: choose another path",
    errno.ELOOP: "symbolic links lead in a circle: choose another path",
    errno.ENAMETOOLONG: "the name is too long for this disk: choose a shorter one",
    errno.ENXIO: "make it (gcloud storage buckets create), or name another",
    errno.EBUSY: "wait for it or end it, or choose another path; where you know that it is dead, "
    "--take-over",
    errno.EIO: "the disk or the network failed: check it, then start again",
}


def run_guarded(main: Callable[[], int | None]) -> int:
    """Runs a command, prints the error that ends it, and returns its exit code (`exit_code`).

    User errors print one message, internal errors (and with T5JAX_DEBUG=1 all) the traceback too.
    After a failure with `jax.distributed` started this does not return: it flushes and ends with
    `os._exit`. After success or an agreed preemption, which all hosts reach together, it shuts jax
    down in order.
    """
    try:
        code = main() or ExitCode.DONE
    except BaseException as error:
        code = _print_error(error)
    if not is_distributed():
        return code
    if code not in (ExitCode.DONE, ExitCode.PREEMPTED):
        exit_now(code)
    import jax

    lifeline.announce_exit(ExitCode.DONE)
    try:
        jax.distributed.shutdown()
    except Exception as error:
        # Our own work is complete and saved, but a peer did not arrive: the launcher must know.
        print(f"{_error_prefix()}: a peer did not reach the end: {error}", file=sys.stderr)
        exit_now(ExitCode.INTERNAL)
    return code


def exit_now(code: int) -> None:
    """Ends the process now, without exit handlers (jax's would wait for the peers)."""
    lifeline.announce_exit(code)
    lifeline.run_with_timeout(5.0, _flush)
    lifeline.run_with_timeout(2.0, release_all)
    os._exit(code)


def _flush() -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()


def exit_code(error: BaseException) -> int:
    """The exit code for an exception that ended a command."""
    match error:
        case SystemExit(code=None):
            return ExitCode.DONE
        case SystemExit(code=int(code)):
            return code
        case SystemExit() | ConfigError():
            return ExitCode.CONFIG
        case DataError() | TooManyBadSteps():
            return ExitCode.DATA
        case CheckpointError():
            return ExitCode.NO_CHECKPOINT
        case Exception() if _refused(error) in _CANNOT_WRITE:
            return ExitCode.CANNOT_WRITE
        case Preempted():
            return ExitCode.PREEMPTED
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case BrokenPipeError() if not is_distributed():
            return ExitCode.OUTPUT_CLOSED
    return ExitCode.INTERNAL


def _refused(error: Exception) -> int | None:
    """The errno of a refused write: of an OSError, or as TensorStore mentions it in its text."""
    is_of_system = isinstance(error, OSError) or "os_error_code='" in str(error)
    found = refused_write(error) if is_of_system else None
    return found and found[0]


def _print_error(error: BaseException) -> int:
    code = exit_code(error)
    if code == ExitCode.OUTPUT_CLOSED:
        # `t5jax tasks | head` wants no more; without this Python would complain when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    shown = code == ExitCode.INTERNAL or bool(os.environ.get(DEBUG))
    if shown and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, SystemExit):
        message = error.code if isinstance(error.code, str) else ""
    elif isinstance(error, KeyboardInterrupt):
        message = "interrupted"
    elif code == ExitCode.CANNOT_WRITE:
        message = _refusal(error)
    else:
        message = str(error) or type(error).__name__
        if not shown and (notes := getattr(error, "__notes__", [])):
            message += f" ({'; '.join(notes)})"
    if code == ExitCode.INTERNAL and is_distributed():
        message += "\n(if another host ended first, what it said is the reason)"
    if message:
        kind = "" if isinstance(error, Preempted) else f"{_error_prefix()}: "
        print(f"{kind}{message}", file=sys.stderr, flush=True)
    return code


def _refusal(error: BaseException) -> str:
    """`FILE: No space left on device: the disk is full: …` of an error that the operating system
    caused."""
    number, file = refused_write(error) or (errno.EIO, "")
    reason = getattr(error, "strerror", None) or os.strerror(number)
    folder = os.path.dirname(file) or "."
    advice = _CANNOT_WRITE[number].format(folder=folder)
    return f"{file}: {reason}; {advice}{seen_from(file)}" if file else f"{reason}; {advice}"


def _error_prefix() -> str:
    if not is_distributed():
        return "error"
    import jax

    return f"error on host {jax.process_index()}"


def is_distributed() -> bool:
    """Without importing jax: what has not been imported has not been started."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
