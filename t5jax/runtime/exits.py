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

from t5jax.errors import CheckpointError, ConfigError, DataError
from t5jax.runtime import lifeline


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

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_CANNOT_WRITE |= {errno.EIO}


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
        case OSError(errno=number) if number in _CANNOT_WRITE:
            return ExitCode.CANNOT_WRITE
        case Preempted():
            return ExitCode.PREEMPTED
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case BrokenPipeError() if not is_distributed():
            return ExitCode.OUTPUT_CLOSED
    return ExitCode.INTERNAL


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


def _error_prefix() -> str:
    if not is_distributed():
        return "error"
    import jax

    return f"error on host {jax.process_index()}"


def is_distributed() -> bool:
    """Without importing jax: what has not been imported has not been started."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
