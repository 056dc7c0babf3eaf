"""One writer of a folder or file over all hosts of a run: host 0 takes the lease, all agree."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator

from t5jax.buckets import in_bucket
from t5jax.runtime import lifeline
from t5jax.runtime.agreement import of_first_host
from t5jax.runtime.exits import ExitCode, exit_now, is_distributed
from t5jax.runtime.lease import Holder, Lease, LeaseHeld, Want, taking

_SECONDS_BETWEEN_LOOKS = 1.0  # all hosts wait so long for host 0, and then hear of it
LEASE = ".lease"  # begins the names of the files in a folder that is written


@contextlib.contextmanager
def owned(
    target: str | os.PathLike[str],
    what: str,
    *,
    beside: bool = False,
    shared: bool = False,
    take_over: bool = False,
    wait: Callable[[float], None] | None = None,
) -> Iterator[None]:
    """Inside, `target` (a folder, or with `beside` a file or a folder that others may replace) is
    written by this run alone, or by those that have it `shared`; called by every host alike.

    `what` names the work to others. A dead process's lease is taken over with a line on standard
    error; whether one of another host is dead takes up to 75 s to see, which is said, too. A
    process whose lease is taken over ends with exit code 73.

    Args:
      take_over: whoever has the lease is dead, but for a living process of this machine.
      wait: is called with seconds while another has it, until that one ends; there is no error.

    Raises on all hosts LeaseHeld, naming target and holder, where another process is writing there;
    OSError where host 0 cannot.
    """
    target = os.fspath(target).rstrip("/") or "/"
    place = target if in_bucket(target) else os.path.abspath(target)  # wherever others chdir to
    path = f"{place}/{LEASE}"
    if beside:
        folder, name = os.path.split(place)
        path = f"{folder}/.{name}{LEASE}"

    want = Want(
        target=target,
        what=what,
        shared=shared,
        take_over=take_over,
        patient=wait is not None,
        say=_say,
        on_lost=lambda holder: _end(target, holder),
    )

    def looks() -> Generator[None, None, Lease]:
        if beside and not in_bucket(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return (yield from taking(want, path))

    lease = _take(looks(), wait or time.sleep)
    try:
        yield
    finally:
        if lease is not None:
            lease.release()


def is_lease_file(name: str) -> bool:
    """Whether a file of a folder is a lease, or one that a killed process left beside it."""
    return name.startswith(LEASE)


def _take(looks: Generator[None, None, Lease], wait: Callable[[float], None]) -> Lease | None:
    """The lease, on host 0; None on the others, when host 0 has it."""
    while True:
        lease = error = None
        state: list = ["waits"]
        if _is_first_host():
            try:
                next(looks)
            except StopIteration as end:
                lease, state = end.value, ["has it"]
            except OSError as found:
                error = found
                kind = "held" if isinstance(found, LeaseHeld) else "fails"
                file = str(found.filename or "")
                state = [kind, found.errno or errno.EIO, found.strerror, file]
        state = of_first_host(state) if is_distributed() else state
        if state[0] == "has it":
            return lease
        if state[0] != "waits":
            raise error or _error_of(*state)
        wait(_SECONDS_BETWEEN_LOOKS)


def _error_of(kind: str, number: int, reason: str, path: str) -> OSError:
    """The error of host 0, on another."""
    return LeaseHeld(path, reason) if kind == "held" else OSError(number, reason, path)


def _is_first_host() -> bool:
    if not is_distributed():
        return True
    import jax

    return jax.process_index() == 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(target: str, holder: Holder) -> None:
    """What another writes now this process must not write any more."""
    line = f"error: {target}: taken over by {holder}: this process ends"
    lifeline.run_with_timeout(2.0, lambda: _say(line))
    exit_now(ExitCode.CANNOT_WRITE)
