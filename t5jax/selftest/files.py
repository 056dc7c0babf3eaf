"""Workdir and data of a run: whether every host sees them, how fast they are written and read."""

import contextlib
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from t5jax.buckets import bucket_errors, file_system, in_bucket
from t5jax.config import RunConfig
from t5jax.data.sources.files import file_fingerprint, open_raw
from t5jax.data.sources.patterns import expand_patterns
from t5jax.data.store.directories import read_file, remove_file, store_path
from t5jax.errors import ConfigError, DataError
from t5jax.paths import expand, scheme_of
from t5jax.runtime import ExitCode, check_shared_directory, of_first_host, probe_file
from t5jax.selftest.check import Check, HostFailed, Outcome, failed, on_every_host

_BYTES = 32 << 20  # written by a host, and read by the next
_MOST_WRITERS = 16  # hosts
_SLOW_BYTES_PER_SECOND = 20e6  # of a host: 50 s for a GB
_MOST_FINGERPRINTS = 32  # of files: a remote store is asked for each
_VISIBLE_SECONDS = 10.0
_CHUNK = 1 << 20


def check_workdir(workdir: str | None) -> list[Check]:
    """What host 0 writes there every host reads; then all write, each reads what the next one
    wrote, and the slowest says how fast."""
    name = "workdir"
    if workdir is None:
        value = "give --workdir, or a config that has one"
        return [Check(name=name, outcome=Outcome.LEFT_OUT, value=value)]
    try:
        problem = _not_shared(workdir)
        if problem is not None:
            return [failed(name, *problem)]
        visible = Check(name=name, value=f"{workdir}: what host 0 writes all {_hosts()} read")
        return [visible, _check_speed(workdir)]
    except HostFailed as error:
        return [failed(name, error.code, str(error))]


def check_data(config: RunConfig | None, data: str | None) -> list[Check]:
    """Every host sees the files of host 0: those of a path or pattern, else of the config."""
    sets = _file_sets(config, data)
    if not sets:
        value = "give --data PATH, or a config that names files or a store"
        return [Check(name="data", outcome=Outcome.LEFT_OUT, value=value)]
    return [_check_files(name, patterns) for name, patterns in sets.items()]


def _hosts() -> str:
    count = jax.process_count()
    return f"{count} host{'s' * (count > 1)}"


def _not_shared(workdir: str) -> tuple[int, str] | None:
    """(exit code, reason), the same on every host, where a run would be refused."""

    def reason() -> list[Any] | None:
        # It waits for the others in the same places whether it finds something or not.
        try:
            check_shared_directory(workdir)
        except ConfigError as error:
            return [int(ExitCode.CONFIG), str(error)]
        except OSError as error:
            where = f"{error.filename or workdir}: {error.strerror or error}"
            return [int(ExitCode.CANNOT_WRITE), f"host 0 cannot write: {where}"]
        return None

    found = of_first_host(reason())
    return None if found is None else (found[0], found[1])


def _check_speed(workdir: str) -> Check:
    writers = min(jax.process_count(), _MOST_WRITERS)
    nonce = of_first_host(secrets.token_hex(8))
    path = lambda host: probe_file(workdir, f"{nonce}_{host}")
    host = jax.process_index()
    content = np.random.default_rng(host).bytes(_BYTES)
    checksums = on_every_host(lambda: zlib.crc32(content))

    def read() -> float | None:
        if host >= writers:
            return None
        other = (host + 1) % writers
        found, seconds = _read_when_there(path(other))
        if zlib.crc32(found) != checksums[other]:
            raise OSError(f"{path(other)}: other bytes are read than host {other} wrote")
        return seconds

    try:
        written = on_every_host(lambda: _write(path(host), content) if host < writers else None)
        seen = on_every_host(read)
    finally:
        if host < writers:
            with contextlib.suppress(OSError), bucket_errors(path(host)):
                remove_file(store_path(path(host)))
    return _speeds(written[:writers], seen[:writers])


def _speeds(written: Sequence[float], seen: Sequence[float]) -> Check:
    """The check of the hosts' seconds."""
    write, read = _BYTES / max(written), _BYTES / max(seen)
    text = f"{write / 1e6:,.0f} MB/s written, {read / 1e6:,.0f} MB/s read"
    text += f" by the slowest of {len(written)} hosts at once" * (len(written) > 1)
    outcome = Outcome.OK
    if write < _SLOW_BYTES_PER_SECOND:
        outcome = Outcome.WARNING
        text += f": slow, a host takes {1e9 / write:,.0f} s for a GB of a checkpoint"
    numbers = {"write_bytes_per_second": write, "read_bytes_per_second": read}
    return Check(name="workdir speed", outcome=outcome, value=text, numbers=numbers)


def _write(path: str, content: bytes) -> float:
    """Seconds until the bytes are on the disk, or in the bucket."""
    begun = time.perf_counter()
    if in_bucket(path):
        with bucket_errors(path):
            file_system().pipe_file(path, content)
        return time.perf_counter() - begun
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        seconds = time.perf_counter() - begun
        if hasattr(os, "posix_fadvise"):  # it is to be read from the disk, not from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return seconds


def _read_when_there(path: str) -> tuple[bytes, float]:
    """(the bytes, seconds that reading them took); a network's disk may show a file late."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        begun = time.perf_counter()
        try:
            with bucket_errors(path):
                found = read_file(store_path(path))
        except FileNotFoundError:
            found = b""
        if len(found) == _BYTES or time.monotonic() > deadline:
            return found, time.perf_counter() - begun
        time.sleep(0.2)


def _file_sets(config: RunConfig | None, data: str | None) -> dict[str, tuple[str, ...]]:
    """Title -> patterns. A store that no host has is still to be made."""
    if data is not None:
        return {"data": (data,)}
    if config is None:
        return {}
    files, store = config.data.train_files, config.data.cache_dir
    found = {"data files": files} if files else {}
    if store is not None and any(on_every_host(lambda: os.path.isdir(store))):
        found["data store"] = (f"{store}/",)
    return found


def _check_files(name: str, patterns: Sequence[str]) -> Check:
    shown = ", ".join(patterns)
    try:
        hosts = on_every_host(lambda: _listing(patterns))
    except HostFailed as error:
        code = ExitCode.CONFIG if error.code == ExitCode.CONFIG else ExitCode.DATA
        return failed(name, code, str(error))
    first = hosts[0]
    for host, found in enumerate(hosts):
        if found["digest"] != first["digest"]:
            said = (
                f"{shown}: host {host} sees {found['files']:,} files, host 0 {first['files']:,}, "
                "and their names, sizes or dates are not the same"
            )
            return failed(name, ExitCode.DATA, said)
    rate = min(found["rate"] for found in hosts)
    text = f"{shown}: {first['files']:,} files, seen by {_hosts()}; {rate / 1e6:,.0f} MB/s read"
    return Check(name=name, value=text, numbers={"read_bytes_per_second": rate})


def _listing(patterns: Sequence[str]) -> dict[str, Any]:
    """Number of files, a digest of names, sizes and dates, and how fast the first are read."""
    files = expand_patterns(_with_files_below(patterns))
    digest = hashlib.sha256("\n".join(files).encode())
    for file in files[:_MOST_FINGERPRINTS]:
        digest.update(file_fingerprint(file).encode())
    begun, count = time.perf_counter(), 0
    for block in _first_bytes(files):
        count += len(block)
    if not count:
        raise DataError(f"{', '.join(patterns)}: the files are empty")
    rate = count / (time.perf_counter() - begun)
    return {"files": len(files), "digest": digest.hexdigest(), "rate": rate}


def _with_files_below(patterns: Sequence[str]) -> list[str]:
    """The patterns, a folder's as all the files below it."""
    below = lambda path: f"{path.rstrip('/')}/**"
    is_folder = lambda path: not scheme_of(path) and os.path.isdir(expand(path))
    return [below(path) if is_folder(path) or path.endswith("/") else path for path in patterns]


def _first_bytes(files: Sequence[str]) -> Iterator[bytes]:
    left = _BYTES
    for file in files:
        with open_raw(file) as opened:
            while left > 0 and (block := opened.read(min(_CHUNK, left))):
                left -= len(block)
                yield block
        if left <= 0:
            return
