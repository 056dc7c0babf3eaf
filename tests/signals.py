"""Signal dispositions: a test sets those that it needs, whoever started the suite."""

import contextlib
import signal
from collections.abc import Iterator

ASKED_TO_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def defaults_for_children() -> Iterator[None]:
    """Programs started inside are ended by SIGINT, SIGTERM and SIGHUP unless they handle them.

    `nohup` and a shell's background jobs start the suite with some of them ignored, and a program
    inherits what is ignored (bash cannot even trap it then), but not what is handled. So a handler
    that does nothing leaves the suite itself as deaf as it was.
    """
    ignored = [number for number in ASKED_TO_LEAVE if signal.getsignal(number) is signal.SIG_IGN]
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_TO_LEAVE)
    for number in ignored:
        signal.signal(number, _do_nothing)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _do_nothing(*_) -> None:
    pass
