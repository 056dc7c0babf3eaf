"""Settings of "auto", and the layout of the state, on a topology: as of a run that starts there."""

import dataclasses

from t5jax.config import RunConfig
from t5jax.planning.abstract_run import AbstractRun, abstract_run
from t5jax.planning.topology import Topology
from t5jax.run.auto import Machine, Resolved, resolve_auto
from t5jax.training.state_layout import StateLayout, state_layout


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


def layout_on_topology(config: RunConfig, topology: Topology) -> StateLayout:
    """The layout of the config's run. Raises ConfigError where config and topology do not go
    together."""
    config.check_mesh(topology.num_devices, trains=False)
    run, _ = resolve_for_topology(abstract_run(config), topology)
    return state_layout(run.program(run.config.mesh.build(topology.devices())))
