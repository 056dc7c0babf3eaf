"""Persistent compilation cache: a run that starts again finds its compiled programs.

It is JAX's own, in the run's workdir, which all hosts share and which outlives them; process 0
writes, all read. A key of JAX names the program, its options, the versions of JAX and XLA and the
devices. Of the CPU that XLA compiles for it may not name all: a program for one that has more
instructions than this host's would end the process (SIGILL), so each kind of CPU has a folder.
"""

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator
from typing import Any

AUTO = "auto"
FOLDER = "compilation_cache"  # of a workdir
# Programs that compile in less are not kept: a start has hundreds of them.
_SHORTEST_SECONDS = 0.1
# Lines of /proc/cpuinfo: instructions, and what the compiler tunes for (x86, Arm, RISC-V).
_OF_CPU = ("flags", "vendor_id", "cpu family", "model", "Features", "CPU ", "isa", "uarch")


@contextlib.contextmanager
def compilation_cache(setting: str | None, workdir: str) -> Iterator[None]:
    """Inside, JAX keeps compiled programs: "auto" in WORKDIR/compilation_cache, unless JAX has been
    given a folder already (JAX_COMPILATION_CACHE_DIR); else in the folder that is named. None
    changes nothing; JAX_ENABLE_COMPILATION_CACHE=false turns off whatever is set here."""
    import jax

    given = getattr(jax.config, "jax_compilation_cache_dir", None)
    if setting is None or (setting == AUTO and given):
        yield
        return
    folder = f"{workdir.rstrip('/')}/{FOLDER}" if setting == AUTO else setting
    settings = {
        "jax_compilation_cache_dir": f"{folder.rstrip('/')}/{_kind_of_host()}",
        "jax_persistent_cache_min_compile_time_secs": _SHORTEST_SECONDS,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _update(settings)
    try:
        yield
    finally:
        _update(before)


def _update(settings: dict[str, Any]) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache as jax_cache

    for name, value in settings.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()  # it looks at the settings once, and not again


def _kind_of_host() -> str:
    """The name of the platform, on CPUs with a fingerprint of what the CPU can do."""
    import jax

    name = jax.default_backend()
    return f"{name}-{cpu_fingerprint()}" if name == "cpu" else name


def cpu_fingerprint(cpuinfo: str | os.PathLike[str] = "/proc/cpuinfo") -> str:
    """The same for CPUs of one model with the same instructions; without /proc/cpuinfo (not on
    Linux) this machine's own, by its name."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            lines = {line.strip() for line in file if line.startswith(_OF_CPU)}
    except OSError:
        lines = set()
    what = sorted(lines) or [platform.node(), platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *what]).encode()).hexdigest()[:12]
