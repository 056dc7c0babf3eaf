"""Provenance: what a checkpoint records of its run, and what all hosts must agree on."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from etils import epath

from t5jax import runtime
from t5jax.buckets import bucket_errors
from t5jax.checkpoints import checkpoint_directory
from t5jax.config import RunConfig, from_text, migrated_text, to_text
from t5jax.errors import ConfigError


def environment() -> dict[str, str]:
    """Versions that can change a result."""
    packages = ("t5jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"  # run from a source tree
    return {"python": platform.python_version(), **versions}


def checkpoint_record(
    config: RunConfig, data: Mapping[str, Any], auto: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The record of a checkpoint, as JSON; `data` is the state of the run's loader there, `auto`
    what the settings were that the config leaves to t5jax (`Resolved.record`)."""
    return {
        "config": to_text(config),
        "auto": dict(auto or {}),
        "data": data,
        "vocabulary": config.data.vocabulary.fingerprint,
        "environment": environment(),
    }


def changed_lines(before: str, after: str) -> list[str]:
    """Settings that differ between two effective configs, as they are now; a setting that the
    older one did not have counts as its default."""
    try:
        old = migrated_text(to_text(from_text(before)))
    except ConfigError:  # it names a class that cannot be imported here
        old = migrated_text(before)
    kept = set(old.splitlines())
    return [line for line in migrated_text(after).splitlines() if line not in kept]


def environment_changes(record: Mapping[str, Any]) -> list[str]:
    """`NAME was BEFORE, is NOW` of versions and ambient settings that are not those under which the
    steps of a run's checkpoint were made. None where its record has no settings: of version 0.1, or
    of step 0 of a run that a command began (convert, merge)."""
    if "ambient" not in record:
        return []
    before = {**record["environment"], **record["ambient"]}
    return runtime.ambient_changes(before, {**environment(), **runtime.ambient_settings()})


def agree_on_run(config: RunConfig) -> None:
    """All hosts see the same workdir and run the same config with the same versions.

    Raises ConfigError for a workdir that holds something other than a run.
    """
    directory = epath.Path(config.workdir)
    known = ("config.txt", checkpoint_directory(".").name, "metrics.jsonl")
    with bucket_errors(directory):
        existing = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    ours = (runtime.is_probe_file, runtime.is_lease_file)
    existing = {name for name in existing if not any(is_ours(name) for is_ours in ours)}
    if existing and existing.isdisjoint(known):
        raise ConfigError(
            f"workdir = {config.workdir!r} exists and holds something other than a run; "
            "choose another directory"
        )
    runtime.check_shared_directory(config.workdir)
    lines = to_text(config).splitlines()
    common = [line for line in lines if not line.startswith("runtime.process_id")]
    runtime.agree("the effective config", "\n".join(common))
    runtime.agree("the software", str(sorted(environment().items())))
