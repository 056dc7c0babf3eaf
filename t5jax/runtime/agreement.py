"""Start-up agreement: all hosts compare config, data and software before the first step.

Hosts that run different programs, or see different directories, do not fail: they compute garbage
or wait for each other for ever. All functions here must be called by every process, in one order.
"""

import json
import os
import pathlib
import secrets
import time
import zlib
from typing import Any

import numpy as np

from t5jax.buckets import RunFiles, bucket_errors, in_bucket, make_folder
from t5jax.errors import ConfigError
from t5jax.paths import refuse_file_in_the_way

_PROBE = ".shared_"


def gather_texts(text: str) -> list[str]:
    """The texts of all processes, by process index."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.array([data.size], np.int32)))
    longest = max(int(lengths.max()), 1)
    padded = np.zeros(longest, np.uint8)
    padded[: data.size] = data
    rows = np.asarray(multihost_utils.process_allgather(padded))
    sizes = lengths.reshape(-1).tolist()
    return [bytes(row[:n]).decode() for row, n in zip(rows, sizes, strict=True)]


def of_first_host(value: Any) -> Any:
    """A JSON value as process 0 has it, on every process."""
    return json.loads(gather_texts(json.dumps(value))[0])


def agree(name: str, value: str) -> None:
    """Checks that `value` (a config, a program's text, versions) is equal on all hosts.

    Raises:
      ConfigError: on every host, naming the hosts that differ from host 0 and the first difference.
    """
    checksum = f"{zlib.crc32(value.encode()):08x}"
    checksums = gather_texts(checksum)
    others = [host for host, other in enumerate(checksums) if other != checksums[0]]
    if not others:
        return
    values = gather_texts(value)
    raise ConfigError(
        f"{name} differs between hosts: host {', '.join(map(str, others))} of {len(checksums)} not "
        f"as host 0. First difference: {_first_difference(values[0], values[others[0]], others[0])}"
        ". Start the same code with the same config on every host."
    )


def _first_difference(ours: str, theirs: str, host: int) -> str:
    left, right = ours.splitlines(), theirs.splitlines()
    for i in range(max(len(left), len(right))):
        a = left[i].strip()[:120] if i < len(left) else "(nothing)"
        b = right[i].strip()[:120] if i < len(right) else "(nothing)"
        if (left[i : i + 1]) != (right[i : i + 1]):
            return f"line {i + 1}: host 0 has {a!r}, host {host} has {b!r}"
    return "line ends or white space"


def check_shared_directory(workdir: str, timeout_seconds: float = 10.0) -> None:
    """Makes `workdir` and checks that host 0 can write to it and every host can read from it.

    Saving to a directory that is not shared would not fail: it would hang all hosts. Network file
    systems may show a new file late, so a host looks again for `timeout_seconds`.

    Raises:
      OSError: host 0 cannot write there (on host 0; the others raise ConfigError).
      ConfigError: on every host, naming the hosts that do not see the directory.
    """
    import jax
    from etils import epath  # like the checkpoints: local paths and gs:// alike

    nonce = gather_texts(secrets.token_hex(16))[0]
    probe = epath.Path(probe_file(os.fspath(workdir), nonce))
    failure = None
    if jax.process_index() == 0:
        try:
            refuse_file_in_the_way(workdir)
            if in_bucket(workdir):
                make_folder(workdir)
            else:
                epath.Path(workdir).mkdir(parents=True, exist_ok=True)
            with bucket_errors(workdir):
                probe.write_text(nonce)
        except OSError as error:
            failure = error
    written = gather_texts(str(failure or ""))[0]
    if failure is not None:
        raise failure
    if written:
        raise ConfigError(f"host 0 cannot write to the workdir {workdir}: {written}")
    visible = gather_texts("yes" if _appears(probe, nonce, timeout_seconds) else "")
    if jax.process_index() == 0:
        with bucket_errors(probe):
            probe.unlink()
    blind = [str(host) for host, answer in enumerate(visible) if not answer]
    if blind:
        raise ConfigError(
            f"workdir {workdir} is not shared: host {', '.join(blind)} of {len(visible)} cannot "
            "read what host 0 wrote there. Use a directory that all hosts mount"
        )


def share_folder(files: RunFiles, folder: pathlib.Path) -> None:
    """A folder of a run's files is on every host as it is on the first one. On a disk, which all
    share, there is nothing to do. Raises OSError where a bucket cannot be written to or read."""
    import jax

    if files.url is None:
        return
    if jax.process_index() == 0:
        files.upload()
    agree(f"that {files.shown(folder)} is written", "")
    if jax.process_index() != 0:
        files.fetch(folder)


def probe_file(workdir: str, name: str) -> str:
    """A path in a workdir for a file that is to be removed at once."""
    return f"{workdir.rstrip('/')}/{_PROBE}{name}"


def is_probe_file(name: str) -> bool:
    """Whether a file of a workdir is such a one, which a killed process left behind."""
    return name.startswith(_PROBE)


def _appears(path, content: str, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            with bucket_errors(path):
                if path.read_text() == content:
                    return True
        except OSError:
            pass  # not to be read, or not yet: an answer too, and the others wait for one
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
