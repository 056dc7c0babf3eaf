"""Leases: what is written has one writer, also where hosts share a disk or a bucket.

A lease is a small record beside what is written (`.lease` in a folder, `.FILE.lease` beside a file)
that names the writing process and holds a count, which a thread of that process raises every
HEARTBEAT seconds. It goes when the writer ends. Where it stays the writer was killed, or its host:

- A process of this machine is looked for by its number and the time of its start: it is alive, and
  the second writer is refused, or it has ended, and the lease is taken over at once.
- A process of another host (or container) is alive when the count rises while another looks; it is
  dead when the count stays for STALE seconds. So nothing is compared between the clocks of two
  hosts. One clock dates all records, that of the store: of these seconds those that have passed by
  it already need not be waited for, but for LOOK, in which a count would rise in any case.

A writer that was taken for dead (it was stopped, or cut off from the disk) finds another's record
in the place of its own at its next heartbeat, and ends.
"""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal

from t5jax.runtime.lease_places import Place, Seen, paths_beginning, place_of

HEARTBEAT = 5.0  # seconds between two; a bucket allows one change of an object a second
# Longer than a network disk is away, or a virtual machine moved; and than mounts of buckets show a
# file as it was (a minute).
STALE = 75.0
LOOK = 2.5 * HEARTBEAT

State = Literal["alive", "ended", "unknown"]
_held: set["Lease"] = set()  # by this process
_taken_over: set[str] = set()  # processes that this one has found dead


class LeaseHeld(OSError):
    """Another process writes there (exit code 73). The message names path and process."""

    def __init__(self, target: str, holder: str):
        super().__init__(errno.EBUSY, holder, target)

    @classmethod
    def by(cls, want: "Want", holder: "Holder", seen: Seen) -> "LeaseHeld":
        alive = " (alive: --take-over has no effect)" if want.take_over else ""
        beat = f"last heartbeat {max(seen.age, 0):.0f} s ago"
        return cls(want.target, f"{holder} writes there, {beat}{alive}")


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that has a lease."""

    id: str = ""  # of the lease
    what: str = "a process"  # that it does: "t5jax train"
    host: str = ""
    machine: str = ""  # boot of the kernel and name space of process numbers
    pid: int = 0
    start: str = ""  # of the process, on that machine
    since: float = 0.0  # in seconds since 1970, by the clock of its host

    @classmethod
    def here(cls, what: str) -> "Holder":
        """This process, with a new id."""
        pid = os.getpid()
        return cls(
            id=secrets.token_hex(8),
            what=what,
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            start=_start_of(pid) or "",
            since=round(time.time(), 3),
        )

    @classmethod
    def read(cls, data: bytes) -> "Holder":
        """Of a record; one that is not whole, or of another version, names what it names."""
        try:
            content = json.loads(data)
            values: dict[str, Any] = {x.name: type(x.default)(content[x.name]) for x in _FIELDS}
        except (ValueError, KeyError, TypeError):
            return cls()
        return cls(**values)

    def record(self, count: int) -> bytes:
        """As it is kept, always as long: a heartbeat writes it over."""
        content = json.dumps({**dataclasses.asdict(self), "count": f"{count:012d}"}, indent=1)
        return f"{content}\n".encode()

    @property
    def process(self) -> str:
        return f"{self.host} {self.machine} {self.pid} {self.start}"

    def state_here(self) -> State:
        """Whether it runs, as far as this machine knows."""
        if not self.pid or (self.host, self.machine) != (socket.gethostname(), _machine()):
            return "unknown"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "ended"
        except PermissionError:
            pass  # another user's
        start = _start_of(self.pid)
        if start is None or not self.start:
            return "unknown"
        return "alive" if start == self.start else "ended"

    def __str__(self) -> str:
        if not self.pid:
            return "a process that has not named itself"
        since = f"{datetime.datetime.fromtimestamp(self.since, datetime.UTC):%Y-%m-%d %H:%M:%S}"
        return f"{self.what} (process {self.pid} on {self.host}, since {since} UTC)"


_FIELDS = dataclasses.fields(Holder)


def _machine() -> str:
    """What process numbers are unique in; "" where the system does not say. Pods of one name have
    the same host name, and their first processes the same number."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a process of this machine was started; "ended" of one that is left for its parent to
    see, None where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if state in "ZX" else fields[18]


class Lease:
    """A lease that this process has: `release` ends it, and the end of the process its heartbeats.
    `on_lost` is called with the new holder, in another thread, where another has taken it over."""

    def __init__(self, place: Place, holder: Holder, token: str, on_lost: Callable[[Holder], None]):
        self._place, self._holder, self._token, self._on_lost = place, holder, token, on_lost
        self._count, self._lock, self._ended = 0, threading.Lock(), threading.Event()
        _held.add(self)
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def release(self) -> None:
        """Deletes the record, if it is still this lease's. Where that fails it stays, as a kill
        would leave it."""
        self._ended.set()
        _held.discard(self)
        if os.getpid() != self._holder.pid:
            return  # a child that was forked
        with self._lock, contextlib.suppress(OSError):
            self._place.delete(self._token)

    def _beat(self) -> None:
        failed_since, warned = None, False
        while not self._ended.wait(HEARTBEAT):
            try:
                if not self._renew():
                    return
                failed_since, warned = None, False
            except OSError as error:  # the disk or the network is away: it may come back
                failed_since = failed_since or time.monotonic()
                if not warned and time.monotonic() - failed_since > STALE / 2:
                    warned = True
                    print(f"warning: the lease cannot be renewed: {error}", file=sys.stderr)

    def _renew(self) -> bool:
        """Raises the count; False where the lease has ended, or is another's by now."""
        with self._lock:
            if self._ended.is_set():
                return False
            self._count += 1
            record = self._holder.record(self._count)
            token = self._place.rewrite(self._token, record)
            seen = self._place.read() if token is None else None
            if token is None and seen is None:  # somebody has deleted it
                try:
                    token = self._place.create(record)
                except FileNotFoundError:  # with its folder
                    return False
                seen = self._place.read() if token is None else None
            if token is not None:
                self._token = token
                return True
        if seen is not None:
            self._on_lost(Holder.read(seen.data))
        return False


def release_all() -> None:
    """For a process that ends without unwinding its stack."""
    for lease in list(_held):
        lease.release()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Want:
    """What a process wants to write, and how it takes the lease for it."""

    target: str  # for messages
    what: str  # the work: "t5jax train"
    shared: bool = False  # with others that share it, while nobody has it alone
    take_over: bool = False  # whoever has it is dead, but for a living process of this machine
    patient: bool = False  # waits until whoever has it has ended
    say: Callable[[str], None]
    on_lost: Callable[[Holder], None]

    def looking_at(self, holder: Holder, seen: Seen, patience: float) -> str:
        """The line about a process that may be dead."""
        return (
            f"{self.target}: {holder} writes there, last heartbeat {max(seen.age, 0):.0f} s ago: "
            f"looking for up to {patience:.0f} s whether it is alive (--take-over says that it is "
            "dead)"
        )


def taking(want: Want, path: str) -> Generator[None, None, Lease]:
    """Takes the lease at `path`; yields where it must wait before it looks again.

    Raises LeaseHeld where a process that is alive has it, OSError where it cannot be written.
    """
    holder = Holder.here(want.what)
    place = place_of(f"{path}-part-{holder.id}" if want.shared else path)
    while True:
        if not want.shared:
            yield from _until_free([path], want)
        token = place.create(holder.record(0))
        if token is not None:
            break
    lease = Lease(place, holder, token, want.on_lost)
    try:
        # Of one that takes it alone and one that shares it at the same time one sees the other.
        yield from _until_free([path] if want.shared else paths_beginning(f"{path}-part-"), want)
    except BaseException:
        lease.release()
        raise
    return lease


def _until_free(paths: Sequence[str], want: Want) -> Iterator[None]:
    looks = [_look(place_of(path), want) for path in paths]
    while looks := [look for look in looks if next(look, "free") is None]:
        yield


def _look(place: Place, want: Want) -> Iterator[None]:
    """Ends when the place has no record, or had one of a dead process, which is deleted. Raises
    LeaseHeld for one that is alive, at the second look: a process that was killed takes a moment to
    end."""
    first: Seen | None = None
    begin = patience = 0.0
    waits = False
    while (seen := place.read()) is not None:
        holder = Holder.read(seen.data)
        state = "ended" if holder.process in _taken_over else holder.state_here()
        if first is None or Holder.read(first.data).id != holder.id:
            first, begin = seen, time.monotonic()
            patience = max(LOOK, min(STALE, STALE - seen.age))
            if state == "unknown" and not want.take_over:
                want.say(want.looking_at(holder, seen, patience))
        elif state == "alive" or (seen.data != first.data and not want.take_over):
            if not want.patient:
                raise LeaseHeld.by(want, holder, seen)
            if not waits:
                waits = True
                want.say(f"{want.target}: {holder} writes there: waiting for its end")
            first, begin, patience = seen, time.monotonic(), STALE
        dead = ""
        if state == "ended":
            dead = "it has ended"
        elif state == "unknown" and want.take_over:
            dead = "dead, as --take-over says"
        elif state == "unknown" and time.monotonic() - begin >= patience:
            dead = f"no heartbeat for {max(seen.age, patience):.0f} s"
        if dead and place.delete(seen.token):
            _taken_over.update({holder.process} if holder.start else ())
            want.say(f"{want.target}: taken over from {holder}: {dead}")
            return
        yield
