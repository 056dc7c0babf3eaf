"""The nearest layout that fits, for a train step that does not."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

from t5jax.config import RunConfig
from t5jax.errors import ConfigError
from t5jax.model.config import REMAT_POLICIES
from t5jax.planning.abstract_run import abstract_run
from t5jax.planning.memory import estimate_memory
from t5jax.planning.plan import Plan, make_plan
from t5jax.planning.topology import Topology

_MOST_COMPILED = 3
# Beside the estimate a program has buffers of the layer that it works on.
_MARGIN = 1.05


class Layout(NamedTuple):
    """What a candidate changes of a config; `changes` counts the doublings and steps."""

    num_microbatches: int
    remat: str
    fsdp: int
    changes: int

    def apply(self, config: RunConfig) -> RunConfig:
        data = -1 if config.mesh.fsdp != self.fsdp else config.mesh.data
        return dataclasses.replace(
            config,
            train=dataclasses.replace(config.train, num_microbatches=self.num_microbatches),
            model=dataclasses.replace(config.model, remat=self.remat),
            mesh=dataclasses.replace(config.mesh, fsdp=self.fsdp, data=data),
        )

    def flags(self, refused: Plan) -> str:
        """The settings of the command line that make it."""
        changed, config = self.apply(refused.config), refused.written
        words = [
            ("--train.num-microbatches", config.train, changed.train, "num_microbatches"),
            ("--model.remat", config.model, changed.model, "remat"),
            ("--mesh.data", config.mesh, changed.mesh, "data"),
            ("--mesh.fsdp", config.mesh, changed.mesh, "fsdp"),
        ]
        return " ".join(
            f"{flag} {getattr(new, field)}"
            for flag, old, new, field in words
            if getattr(old, field) != getattr(new, field)
        )


class Nearest(NamedTuple):
    """A layout that was compiled and fits, and the settings that make it."""

    flags: str
    plan: Plan


def nearest_that_fits(
    refused: Plan, log: Callable[[str], None] = lambda text: None
) -> Nearest | None:
    """The layout with the fewest changes that fits: candidates by arithmetic, in the order of their
    changes, each compiled before it is offered. None where no candidate fits.

    `refused` is the plan of a train step; `log` is told what is compiled.
    """
    compiled = 0
    for layout in candidates(refused.config, refused.topology):
        config = layout.apply(refused.config)
        needed = estimated_bytes(config, refused.topology)
        if needed is None or needed * _MARGIN > refused.topology.chip.memory_bytes:
            continue
        log(f"compiling {layout.flags(refused)} (about {needed / 1e9:.1f} GB)")
        plan = make_plan(config, refused.topology, price_per_chip_hour=refused.price_per_chip_hour)
        if plan.fits:
            return Nearest(layout.flags(refused), plan)
        compiled += 1
        if compiled == _MOST_COMPILED:
            return None
    return None


def candidates(config: RunConfig, topology: Topology) -> Iterator[Layout]:
    """Layouts with more microbatches, more rematerialisation and more FSDP than the config's (in
    which "auto" is resolved), those with the fewest changes first."""
    rows, devices = config.train.batch_size, topology.num_devices
    first_microbatches, first_fsdp = config.train.num_microbatches, config.mesh.fsdp
    assert first_microbatches != "auto"
    assert first_fsdp != "auto"
    remat = REMAT_POLICIES[REMAT_POLICIES.index(config.model.remat) :]
    layouts = [
        Layout(microbatches, policy, fsdp, more + kinds + wider)
        for more, microbatches in enumerate(_doublings(first_microbatches, rows))
        for kinds, policy in enumerate(remat)
        for wider, fsdp in enumerate(_doublings(first_fsdp, devices // config.mesh.tensor))
    ]
    # Of equally many changes the cheaper kind first: microbatches cost least, FSDP most.
    order = lambda x: (x.changes, x.fsdp, remat.index(x.remat), x.num_microbatches)
    return iter(sorted((x for x in layouts if x.changes), key=order))


def _doublings(first: int, most: int) -> Iterator[int]:
    """first, 2 first, 4 first, … as far as they divide `most`."""
    first = max(first, 1)
    while first <= most and most % first == 0:
        yield first
        first *= 2


def estimated_bytes(config: RunConfig, topology: Topology) -> float | None:
    """Memory of a device by arithmetic; None for a layout that the config or the devices do not
    allow."""
    try:
        config.check_mesh(topology.num_devices)
        run = abstract_run(config)
        program = run.program(config.mesh.build(topology.devices()))
        return estimate_memory(run, program, most=topology.chip.memory_bytes).total
    except ConfigError:
        return None
