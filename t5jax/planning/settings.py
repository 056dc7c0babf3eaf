"""Settings of "auto" on a topology: by the rules of a run that starts there."""

import dataclasses

from t5jax.planning.abstract_run import AbstractRun
from t5jax.planning.topology import Topology
from t5jax.run.auto import Machine, Resolved, resolve_auto


def resolve_for_topology(run: AbstractRun, topology: Topology) -> tuple[AbstractRun, Resolved]:
    """The run without "auto", and what was chosen. Raises ConfigError where config and topology do
    not go together."""
    machine = Machine(
        platform=topology.chip.platform,
        devices=tuple(topology.devices()),
        memory_bytes=topology.chip.memory_bytes,
    )
    resolved = resolve_auto(run.config, machine, run.lengths)
    return dataclasses.replace(run, config=resolved.config), resolved
