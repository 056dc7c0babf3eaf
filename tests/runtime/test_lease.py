"""One writer at a time: refused by name, taken over when dead, on a disk and in a bucket."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from t5jax import buckets
from t5jax.runtime import ExitCode, LeaseHeld, lease, owned, ownership, run_guarded
from t5jax.runtime.lease import Holder
from t5jax.runtime.lease_places import paths_beginning, place_of
from tests.cloud_storage import cloud_storage as cloud_storage

WHAT = "t5jax train"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Heartbeats of milliseconds."""
    monkeypatch.setattr(lease, "HEARTBEAT", 0.03)
    monkeypatch.setattr(lease, "LOOK", 0.3)
    monkeypatch.setattr(lease, "STALE", 0.9)
    monkeypatch.setattr(ownership, "_SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(lease, "_taken_over", set())


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path) -> str:
    """A folder that is written."""
    if request.param == "disk":
        return str(tmp_path)
    return f"{request.getfixturevalue('cloud_storage')}/{tmp_path.name}"


def names_in(folder: str) -> list[str]:
    if not buckets.in_bucket(folder):
        return sorted(os.listdir(folder))
    return sorted(name.rpartition("/")[2] for name in buckets.file_system().find(folder))


@dataclasses.dataclass
class Elsewhere:
    """The lease of a process on another host, which beats when it is told to."""

    folder: str
    name: str = ".lease"

    def __post_init__(self):
        self.place = place_of(f"{self.folder}/{self.name}")
        here = Holder.here("t5jax cache")
        self.holder = dataclasses.replace(here, host="pod-1", machine="another", pid=1)
        self.count = 0
        self.token = self.place.create(self.holder.record(0))
        assert self.token is not None

    def beat(self) -> None:
        if self.token is None:  # lost
            return
        self.count += 1
        self.token = self.place.rewrite(self.token, self.holder.record(self.count))

    @contextlib.contextmanager
    def beating(self):
        ended = threading.Event()

        def beats():
            while not ended.wait(0.02):
                self.beat()

        thread = threading.Thread(target=beats)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def seconds_to_own(folder: str, **options) -> float:
    begin = time.monotonic()
    with owned(folder, WHAT, **options):
        return time.monotonic() - begin


def refused(folder: str, **options) -> str:
    with pytest.raises(LeaseHeld) as caught, owned(folder, WHAT, **options):
        raise AssertionError("two write")
    assert caught.value.filename == folder
    return caught.value.strerror


def said_lines(capsys) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    print("\n".join(lines))
    return lines


def test_the_second_is_refused_by_name_and_the_lease_goes_with_the_first(folder, capsys):
    def second() -> None:
        with owned(folder, "t5jax score"):
            pass

    with owned(folder, WHAT):
        assert names_in(folder) == [".lease"]
        assert run_guarded(second) == ExitCode.CANNOT_WRITE
        (line,) = said_lines(capsys)
        where = f"{WHAT} (process {os.getpid()} on {os.uname().nodename}, since 20"
        assert line.startswith(f"error: {folder}: {where}")
        assert re.search(
            r" UTC\) writes there, last heartbeat [01] s ago; wait for it or end", line
        )
        assert "--take-over" in line
        assert "(alive: --take-over has no effect)" in refused(folder, take_over=True)
    with pytest.raises(KeyError), owned(folder, WHAT):
        raise KeyError
    assert names_in(folder) == []
    second()
    assert capsys.readouterr().err == ""


def test_beside_what_is_written(folder):
    file = f"{folder}/new/out.jsonl"
    with owned(file, WHAT, beside=True), owned(f"{folder}/new/other", WHAT, beside=True):
        assert names_in(f"{folder}/new") == [".other.lease", ".out.jsonl.lease"]
        refused(file, beside=True)


WRITER = """
import sys, time
from t5jax.runtime import owned
with owned(sys.argv[1], "t5jax train"):
    print("has it", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path, capsys):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "has it\n"
        assert f"(process {process.pid} on " in refused(str(tmp_path))
    finally:
        process.send_signal(signal.SIGKILL)
    # Its parent, this process, has not asked for its end yet.
    assert seconds_to_own(str(tmp_path)) < lease.LOOK
    (line,) = said_lines(capsys)
    assert line.startswith(f"{tmp_path}: taken over from {WHAT} (process {process.pid} on ")
    assert line.endswith(": it has ended")
    process.wait()
    assert names_in(str(tmp_path)) == []


def test_a_process_elsewhere_is_alive_when_its_heart_beats(folder, capsys):
    with Elsewhere(folder).beating():
        assert "t5jax cache (process 1 on pod-1, since" in refused(folder)
    (line,) = said_lines(capsys)
    assert line.startswith(f"{folder}: t5jax cache (process 1 on pod-1, since")
    assert re.search(r"looking for up to [01] s whether it is alive \(--take-over says", line)


def test_a_process_elsewhere_is_dead_when_it_does_not(folder, capsys):
    Elsewhere(folder)
    # The store's clock may count whole seconds.
    assert lease.LOOK <= seconds_to_own(folder) < 3 * lease.STALE
    looking, taken = capsys.readouterr().err.splitlines()
    assert "looking for up to" in looking
    assert taken.startswith(f"{folder}: taken over from t5jax cache (process 1 on pod-1, since")
    assert re.search(r": no heartbeat for \d s$", taken)
    assert names_in(folder) == []


@pytest.mark.parametrize(("seconds", "wait"), [(-1000, 0.3), (1000, 0.9)])
def test_one_that_was_silent_before_is_looked_at_shortly(tmp_path, seconds, wait):
    """By the clock of the disk; if that goes wrong, as long as any."""
    Elsewhere(str(tmp_path))
    then = time.time() + seconds
    os.utime(tmp_path / ".lease", (then, then))
    assert wait <= seconds_to_own(str(tmp_path)) < wait + 0.5


def test_take_over_waits_for_nothing(folder, capsys):
    elsewhere = Elsewhere(folder)
    with elsewhere.beating(), owned(folder, WHAT, take_over=True):
        time.sleep(0.1)
        assert elsewhere.token is None, "it has found out"
    (line,) = said_lines(capsys)
    assert line.endswith(": dead, as --take-over says")


def test_who_is_taken_over_ends(folder, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(ownership, "exit_now", ended.append)
    with owned(folder, WHAT):
        place = place_of(f"{folder}/.lease")
        while not ended:
            seen = place.read()
            if place.delete(seen.token):
                with contextlib.suppress(AssertionError):  # it was quicker, and made it again
                    Elsewhere(folder)
            time.sleep(0.1)
    assert ended == [ExitCode.CANNOT_WRITE]
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder}: taken over by t5jax cache (process 1 on pod-1, since")
    assert names_in(folder) == [".lease"], "the other's stays"


def test_heartbeats(tmp_path):
    with owned(tmp_path, WHAT):
        first = (tmp_path / ".lease").read_bytes()
        time.sleep(0.2)
        second = (tmp_path / ".lease").read_bytes()
        assert second != first
        assert len(second) == len(first)
        (tmp_path / ".lease").unlink()
        time.sleep(0.2)
        assert (tmp_path / ".lease").read_bytes() != second, "made again"
        shutil.rmtree(tmp_path)
        time.sleep(0.2)
        assert not tmp_path.exists()
        assert "lease" not in [thread.name for thread in threading.enumerate()]
    assert not tmp_path.exists()


def test_a_store_that_is_away_for_a_while_is_said_once(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(5, "Input/output error", "/disk")

    with owned(tmp_path, WHAT), monkeypatch.context() as patch:
        patch.setattr(type(place_of(str(tmp_path))), "rewrite", fail)
        time.sleep(0.7)
    (line,) = said_lines(capsys)
    assert line.startswith("warning: the lease cannot be renewed: [Errno 5] Input/output error")


@pytest.mark.parametrize("record", [b"", b"{", b'{"id": 7}', b"\xff"])
def test_a_record_that_is_not_whole(tmp_path, record, capsys):
    (tmp_path / ".lease").write_bytes(record)
    seconds_to_own(str(tmp_path))
    assert "a process that has not named itself: no heartbeat" in capsys.readouterr().err


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_at_once_one_writes(folder, dead):
    if dead:
        Elsewhere(folder)
    inside, had, barrier = [], [], threading.Barrier(6)

    def write():
        barrier.wait()
        with contextlib.suppress(LeaseHeld), owned(folder, WHAT):
            inside.append(1)
            had.append(len(inside))
            time.sleep(0.4)
            inside.pop()

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert had == [1]
    assert names_in(folder) == []


def test_parts_share_what_nobody_has_alone(folder, capsys):
    with owned(folder, "part 0", shared=True), owned(folder, "part 1", shared=True):
        assert " (process" in (said := refused(folder))
        assert said.startswith(("part 0", "part 1"))
    with owned(folder, "whole"):
        assert "whole (process" in refused(folder, shared=True)
    assert names_in(folder) == []
    assert capsys.readouterr().err == ""
    for number in range(3):  # killed elsewhere; all are looked at together
        Elsewhere(folder, f".lease-part-{number}")
    assert seconds_to_own(folder) < 2 * lease.STALE
    assert names_in(folder) == []
    assert paths_beginning(f"{folder}/.lease-part-") == []


def test_who_can_wait_waits_until_the_other_has_ended(folder, capsys):
    first = owned(folder, "t5jax train")
    first.__enter__()
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 5:
            first.__exit__(None, None, None)

    with owned(folder, "t5jax evaluate", wait=wait):
        assert len(waited) == 5
    (line,) = said_lines(capsys)
    assert line.endswith("writes there: waiting for its end")


def test_whether_a_process_of_this_machine_runs(monkeypatch):
    here = Holder.here(WHAT)
    assert Holder.read(here.record(3)) == here
    assert here.state_here() == "alive"
    changes = {"start": "1", "pid": 2**22 + 1}  # another process of that number; none
    for name, value in changes.items():
        assert dataclasses.replace(here, **{name: value}).state_here() == "ended"
    for name in ("host", "machine"):  # a pod has the name of its predecessor, and its numbers
        assert dataclasses.replace(here, **{name: "other"}).state_here() == "unknown"
    monkeypatch.setattr(lease, "_start_of", lambda pid: None)
    assert here.state_here() == "unknown"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for target, beside in ((tmp_path / "file", False), (tmp_path / "file" / "out", True)):
        with pytest.raises(OSError) as caught, owned(target, WHAT, beside=beside):
            pass
        assert not isinstance(caught.value, LeaseHeld)
    with pytest.raises(FileNotFoundError), owned(tmp_path / "missing", WHAT):
        pass
    assert os.listdir(tmp_path) == ["file"]
