"""Search for the fastest layout of a run: candidates pruned and ordered by arithmetic, the most
promising compiled within a budget, ranked by predicted time.

    meshes x microbatches x remat x unrolling -> rough memory and time -> compiled plans
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

from t5jax.config import RunConfig
from t5jax.errors import ConfigError
from t5jax.planning.abstract_run import abstract_run
from t5jax.planning.candidates import Candidate, candidates, meshes
from t5jax.planning.child import CompilationFailed, CutOff
from t5jax.planning.rough import RoughModel, StateShapes
from t5jax.planning.settings import resolve_for_topology
from t5jax.planning.topology import Topology

# A config and the seconds that are left -> `Plan.as_json()`; raises CutOff, CompilationFailed.
Compiles = Callable[[RunConfig, float], dict[str, Any]]

# Compilers need memory that arithmetic leaves out; where it exceeds that of the device by more than
# half, not even a wrong estimate lets a program fit.
_MARGIN, _HOPELESS = 1.05, 1.5
# Compile time of unrolled layers in that of scanned ones, for each layer.
_UNROLLED_TIME = {"tpu": 0.35, "gpu": 0.1, "cpu": 0.3}
_MOST_OF_BUDGET = 0.8  # that unrolling may take; beyond it scanned layouts use all of it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a search may use: seconds in all, and programs compiled."""

    seconds: float
    compiles: int

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ConfigError(f"--search-minutes {self.seconds / 60:g}: must be more than 0")
        if self.compiles < 1:
            raise ConfigError(f"--search-compiles {self.compiles}: must be at least 1")


@dataclasses.dataclass(kw_only=True, slots=True)
class Trial:
    """A candidate, and what is known of it.

    Attributes:
      rough_seconds, rough_bytes: by arithmetic.
      plan: `Plan.as_json()` of the compiled step; None where it was not compiled.
      reason: why it was not compiled, or does not fit.
    """

    candidate: Candidate
    rough_seconds: float
    rough_bytes: float
    plan: dict[str, Any] | None = None
    reason: str = ""

    @property
    def fits(self) -> bool:
        return self.plan is not None and self.plan["fits"]

    @property
    def step_seconds(self) -> float:
        """Predicted from the compiled step, which fits."""
        assert self.plan is not None
        return self.plan["step_seconds"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """All candidates of a search."""

    config: RunConfig
    topology: Topology
    trials: list[Trial]
    seconds: float  # that the search took

    @property
    def ranked(self) -> list[Trial]:
        """Those that were compiled and fit, the fastest first."""
        return sorted((x for x in self.trials if x.fits), key=lambda x: x.step_seconds)

    @property
    def best(self) -> Trial | None:
        return next(iter(self.ranked), None)


def search(
    config: RunConfig,
    topology: Topology,
    compiles: Compiles,
    budget: Budget,
    *,
    log: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Searches among all layouts of the config's batch, whatever layout the config itself has.

    Scanned layouts are compiled first, because that takes less time, then the best of them with
    unrolled layers. Plans that say `cached` cost nothing of the number of compilations. Raises
    ConfigError where config and topology do not go together.
    """
    start = clock()
    trials = rough_trials(config, topology)
    refuse_what_cannot_fit(trials, topology.chip.memory_bytes)
    running = _Search(config, topology, compiles, budget, trials, log, clock, start)
    running.compile_scanned()
    running.compile_unrolled()
    running.explain_the_rest()
    return SearchResult(config=config, topology=topology, trials=trials, seconds=clock() - start)


def rough_trials(config: RunConfig, topology: Topology) -> list[Trial]:
    """All candidates in the order of their rough time."""
    run = abstract_run(config)
    free = dataclasses.replace(
        config, mesh=dataclasses.replace(config.mesh, data=-1, fsdp=1, tensor=1)
    )
    resolved = resolve_for_topology(dataclasses.replace(run, config=free), topology)[0].config
    rough, shapes = RoughModel(resolved, topology, run.lengths), StateShapes(resolved, topology)
    trials = []
    for mesh in meshes(resolved, topology):
        layouts = list(candidates(resolved, mesh, sum(run.lengths)))
        try:
            work = shapes.over(mesh) if layouts else None
        except ConfigError:  # an axis of a parameter does not divide
            continue
        for layout in layouts:
            assert work is not None
            trials.append(
                Trial(
                    candidate=layout,
                    rough_seconds=rough.seconds(layout, work),
                    rough_bytes=rough.memory(layout, work),
                )
            )
    if not trials:
        raise ConfigError(
            f"--search: train.batch_size = {config.train.batch_size} and the model's axes divide "
            f"among no mesh of {topology.num_devices} devices; change the batch or the topology"
        )
    return sorted(trials, key=lambda trial: trial.rough_seconds)


def refuse_what_cannot_fit(trials: list[Trial], memory: float) -> None:
    """Gives a reason to those that arithmetic says do not fit; where nothing does, what needs least
    is left to be compiled."""
    least = min(trial.rough_bytes for trial in trials)
    limit = memory / _MARGIN
    if limit < least <= _HOPELESS * memory:
        limit = least
    for trial in trials:
        if trial.rough_bytes > limit:
            trial.reason = (
                f"does not fit: about {trial.rough_bytes / 1e9:.1f} GB of {memory / 1e9:.1f} GB"
            )


class _Search:
    """The compilations of one search, and what is left of its budget."""

    def __init__(
        self,
        config: RunConfig,
        topology: Topology,
        compiles: Compiles,
        budget: Budget,
        trials: list[Trial],
        log: Callable[[str], None],
        clock: Callable[[], float],
        start: float,
    ):
        self._config, self._topology, self._compiles = config, topology, compiles
        self._trials, self._log, self._clock = trials, log, clock
        self._budget, self._deadline = budget, start + budget.seconds
        self._compiled = 0
        self._slowest_scan = 0.0  # seconds that the slowest scanned layout compiled

    def compile_scanned(self) -> None:
        """Until the unrolled ones need what is left."""
        for trial in self._waiting(unrolled=False):
            if self._over() or self._unrolling_is_due():
                return
            self._try(trial)

    def compile_unrolled(self) -> None:
        """Those of the meshes that were fastest when scanned first."""
        fastest: dict[tuple[int, ...], float] = {}
        for trial in self._trials:
            if trial.fits:
                mesh = _mesh_of(trial.candidate)
                fastest[mesh] = min(trial.step_seconds, fastest.get(mesh, float("inf")))
        order = lambda x: (fastest.get(_mesh_of(x.candidate), float("inf")), x.rough_seconds)
        for trial in sorted(self._waiting(unrolled=True), key=order):
            if self._over():
                return
            if self._left() < self._unrolled_seconds():
                trial.reason = (
                    f"not compiled: unrolled takes about {self._unrolled_seconds() / 60:.0f} "
                    f"minutes, {self._left() / 60:.0f} were left"
                )
                continue
            self._try(trial)

    def explain_the_rest(self) -> None:
        """The reason of each candidate whose turn did not come."""
        why = "time" if self._left() <= 0 else "number of compilations"
        for trial in self._trials:
            if trial.plan is None and not trial.reason:
                trial.reason = self._dominated(trial) or f"not compiled: the {why} was used up"

    def _waiting(self, *, unrolled: bool) -> list[Trial]:
        return [x for x in self._trials if x.candidate.unrolled == unrolled and not x.reason]

    def _left(self) -> float:
        return self._deadline - self._clock()

    def _over(self) -> bool:
        return self._left() <= 0 or self._compiled >= self._budget.compiles

    def _unrolled_seconds(self) -> float:
        """That compiling a layout with unrolled layers will take."""
        model = self._config.model
        layers = model.num_encoder_layers + model.num_decoder_layers
        times = _UNROLLED_TIME[self._topology.chip.platform] * layers
        return self._slowest_scan * max(1.0, times)

    def _unrolling_is_due(self) -> bool:
        if not any(x.fits for x in self._trials):
            return False
        reserved = max(1, self._budget.compiles // 3)
        if self._compiled >= self._budget.compiles - reserved and self._budget.compiles > 1:
            return True
        needed = self._unrolled_seconds()
        possible = needed <= _MOST_OF_BUDGET * self._budget.seconds
        return possible and self._left() < needed + self._slowest_scan

    def _try(self, trial: Trial) -> None:
        trial.reason = self._dominated(trial)
        if trial.reason:
            return
        self._log(
            f"compiling {trial.candidate} (by arithmetic {trial.rough_bytes / 1e9:.1f} GB, "
            f"{trial.rough_seconds * 1e3:.0f} ms); {self._left() / 60:.1f} minutes are left"
        )
        try:
            plan = self._compiles(trial.candidate.apply(self._config), self._left())
        except (CutOff, CompilationFailed) as error:
            self._compiled += 1
            trial.reason = str(error)
            return self._log(f"  {trial.reason}")
        trial.plan = plan
        self._compiled += not plan.get("cached", False)
        if not trial.candidate.unrolled:
            took = plan.get("compile_seconds") or 0.0
            self._slowest_scan = max(self._slowest_scan, took)
        if not plan["fits"]:
            trial.reason = (
                f"does not fit: {plan['memory_gb'] or 0:.2f} GB of {plan['hbm_gb']:.2f} GB"
            )
            return self._log(f"  {trial.reason}")
        self._log(
            f"  {plan['step_seconds'] * 1e3:.1f} ms, MFU {plan['mfu']:.1%}, "
            f"{plan['memory_gb']:.2f} GB"
        )

    def _dominated(self, trial: Trial) -> str:
        """Why a candidate cannot be the best, from those that were compiled; "" where it may."""
        for other in self._alike(trial):
            fewer = other.candidate.num_microbatches < trial.candidate.num_microbatches
            if other.fits and fewer:
                return f"dominated: it fits with {other.candidate.num_microbatches} microbatches"
            if other.plan is not None and not other.fits and not fewer:
                return (
                    "does not fit: it needs more than with "
                    f"{other.candidate.num_microbatches} microbatches"
                )
        return ""

    def _alike(self, trial: Trial) -> Iterable[Trial]:
        """The compiled trials that differ in the number of microbatches alone."""
        n = trial.candidate.num_microbatches
        for other in self._trials:
            same = dataclasses.replace(other.candidate, num_microbatches=n) == trial.candidate
            if same and other is not trial and other.plan is not None:
                yield other


def _mesh_of(candidate: Candidate) -> tuple[int, ...]:
    return candidate.data, candidate.fsdp, candidate.tensor
