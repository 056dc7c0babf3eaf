"""The units of a build as tasks of a Ray cluster that is already running."""

import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from t5jax.data.store.reader import ShardInfo
from t5jax.data.store.units import Unit, finished_unit
from t5jax.errors import ConfigError, DataError

_SECONDS_UNTIL_SEEN = 60.0  # NFS may say that long that a file is not there, if it has been asked


def on_ray(build: Callable[[Unit], ShardInfo], units: Sequence[Unit]) -> Iterator[ShardInfo]:
    """The records of the units as they are built, each by a task of one CPU on any of the nodes.

    Nodes have t5jax installed and see the files, and the folder that t5jax was started in, under
    the same paths. A task whose node or process is lost is run again, three times.
    Raises ConfigError without Ray or a cluster; what a unit raises; DataError for a task that is
    lost for good, and for shards that are not seen here, because no disk is shared.
    """
    ray = _connected()
    task = ray.remote(num_cpus=1, max_retries=3)(_build_there)
    shared = ray.put(pickle.dumps(build))  # once a node, not once a unit
    waiting = {task.remote(os.getcwd(), sys.path, shared, unit): unit for unit in units}
    try:
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            yield _record(ray, ready, waiting.pop(ready))
    finally:
        for reference in waiting:
            ray.cancel(reference)
    _refuse_unseen(units)


def _build_there(folder: str, path: Sequence[str], build: bytes, unit: Unit) -> ShardInfo:
    """Runs on a node: relative paths and modules of the user are found as where t5jax runs."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise DataError(
            f"node {os.uname().nodename} of the Ray cluster has no {folder} ({error.strerror}): "
            "start t5jax in a folder of a disk that all nodes share"
        ) from error
    sys.path += [entry for entry in path if entry not in sys.path]
    return pickle.loads(build)(unit)


def _record(ray: Any, reference: Any, unit: Unit) -> ShardInfo:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        raise DataError(
            f"a Ray task was lost at {unit.source} ({_first_line(error)}); finished shards are "
            "kept, so run again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _refuse_unseen(units: Sequence[Unit]) -> None:
    deadline = time.monotonic() + _SECONDS_UNTIL_SEEN
    for unit in units:
        while finished_unit(unit) is None:
            if time.monotonic() > deadline:
                raise DataError(
                    f"{unit.name} was built by a node of the Ray cluster and is not in "
                    f"{unit.directory} here: data.cache_dir must be on a disk that all nodes share"
                )
            time.sleep(0.2)


def _connected() -> Any:
    """The package, connected to the cluster of RAY_ADDRESS, or to the one of this host."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs the package ray, here and on the cluster: pip install 't5jax[ray]'"
        ) from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or "auto"
        try:
            _reach(address)
            with _own_sigterm():
                ray.init(address=address)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"--engine ray: no Ray cluster at {address} ({_first_line(error)}); "
                "start one with `ray start --head`, or name its RAY_ADDRESS=HOST:6379"
            ) from error
    return ray


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray sets a handler of its own, which ends the process with exit code 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and before is not None:
            signal.signal(signal.SIGTERM, before)


def _reach(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
