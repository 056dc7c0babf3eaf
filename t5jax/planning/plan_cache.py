"""Plans that were made before, as JSON files in a folder, by everything that they depend on."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from importlib import metadata
from typing import Any

from t5jax.config import RunConfig, to_text
from t5jax.data.atomic_files import write_json_file
from t5jax.errors import DataError
from t5jax.planning.topology import Topology

_COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "t5jax")
_ROOT = pathlib.Path(__file__).parents[1]
# Rooms that compile nothing and predict nothing: a change in them leaves plans as they are.
_OTHER_ROOMS = (
    "checkpoints", "cli", "commands", "convert", "evaluation", "export", "inference", "metrics",
    "runtime", "version.py",
)  # fmt: skip


def default_folder() -> pathlib.Path:
    """`$XDG_CACHE_HOME/t5jax/plans`, or below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "t5jax" / "plans"


class PlanCache:
    """Plans of train steps in a folder, which is made when the first is kept."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def get(self, config: RunConfig, topology: Topology) -> dict[str, Any] | None:
        """The plan that was kept; None where there is none, or it cannot be read."""
        try:
            return json.loads(self._file(config, topology).read_text())
        except (OSError, ValueError):
            return None

    def keep(self, config: RunConfig, topology: Topology, plan: dict[str, Any]) -> None:
        """Keeps a plan for later searches; where the folder cannot be written it is made again."""
        file = self._file(config, topology)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json_file(file, plan, shared=True)
        except (OSError, DataError):
            return

    def _file(self, config: RunConfig, topology: Topology) -> pathlib.Path:
        return self._folder / f"{plan_key(config, topology)}.json"


def plan_key(config: RunConfig, topology: Topology) -> str:
    """Of the effective config (without where the run is kept), the topology, the versions of what
    compiles, and t5jax's own source."""
    lines = to_text(config).splitlines()
    settings = [line for line in lines if not line.startswith("workdir = ")]
    parts = [*settings, str(topology), *_versions(), source_fingerprint()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def through(
    cache: PlanCache, topology: Topology, compiles: Callable[[RunConfig, float], dict[str, Any]]
) -> Callable[[RunConfig, float], dict[str, Any]]:
    """`compiles`, asked only for what the cache does not have; its plans are kept."""

    def plan(config: RunConfig, seconds: float) -> dict[str, Any]:
        kept = cache.get(config, topology)
        if kept is not None:
            return {**kept, "cached": True}
        made = compiles(config, seconds)
        cache.keep(config, topology, made)
        return made

    return plan


def _versions() -> list[str]:
    found = []
    for name in _COMPILERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} none")
    return found


@functools.cache
def source_fingerprint() -> str:
    """Of the modules of t5jax that a plan goes through."""
    digest = hashlib.sha256()
    for file in sorted(_ROOT.rglob("*.py")):
        name = file.relative_to(_ROOT)
        if name.parts[0] not in _OTHER_ROOMS:
            digest.update(f"{name.as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()
