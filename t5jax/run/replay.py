"""Replay of a run's step on one CPU host: from the checkpoint before it, or from the beginning, on
to the step, each loss compared with the logged one bit for bit.

Bits are those of one compiled program: a run of CPUs is repeated on as many virtual devices as it
had, in the same mesh; of TPUs and GPUs only up to the order of sums, on one device.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t5jax import runtime
from t5jax.buckets import reading, run_files
from t5jax.checkpoints import (
    checkpoint_directory,
    committed_steps,
    leaves_by_path,
    read_record,
    restore_leaves,
)
from t5jax.config import RunConfig, from_record
from t5jax.errors import CheckpointError, ConfigError, DataError
from t5jax.run.auto import local_machine, resolve_auto
from t5jax.run.build import TrainLoader, build_program, build_train_loader, resolve_mixture
from t5jax.run.flight_recorder import FOLDER, norm_metrics
from t5jax.run.initialize import begin
from t5jax.run.provenance import environment_changes
from t5jax.run.restore import ChangeConfig
from t5jax.tracking import current_records, read_metrics
from t5jax.tracking.jsonl import TRAIN, loss_hex
from t5jax.training.feeding import Feeder
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState


class ReplayedStep(NamedTuple):
    """A step as it came out again, beside what the run logged of it."""

    step: int
    loss: float
    grad_norm: float
    logged_loss: float | None  # None: it was not logged
    logged_grad_norm: float | None

    @property
    def repeats(self) -> bool | None:
        """Whether loss and gradient norm are the logged ones, bit for bit; None: not known."""
        if self.logged_loss is None:
            return None
        same = lambda x, y: y is None or loss_hex(x) == loss_hex(y)
        return same(self.loss, self.logged_loss) and same(self.grad_norm, self.logged_grad_norm)


class Source(NamedTuple):
    """What a replay begins with."""

    content: Mapping[str, Any]  # the record of a checkpoint, or of a recorded step
    step: int | None  # of the checkpoint; None: the beginning of the run
    recorded: pathlib.Path | None  # the flight recorder's folder of the step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """What was run again."""

    first: int | None  # the step of the checkpoint; None: from the run's beginning
    devices: str
    devices_then: str | None  # None: the run did not record them
    environment: tuple[str, ...]  # versions and ambient settings that are not as they were
    steps: tuple[ReplayedStep, ...]
    rows_repeat: bool | None  # the step's batch is the recorded one; None: none was recorded
    norms: dict[str, float]  # of every tensor in the step; {}: not asked for, and all finite

    @property
    def repeats(self) -> bool:
        """Whether the step, and all before it that were logged, came out bit for bit."""
        known = [step.repeats for step in self.steps if step.repeats is not None]
        return self.steps[-1].repeats is True and all(known) and self.rows_repeat is not False


def replay_step(workdir: str, step: int, change: ChangeConfig, *, with_norms: bool) -> Replay:
    """Runs the `step`-th step of the run again. `change` is applied to its config.

    Raises:
      ConfigError: the run has no such step, or the config does not fit these devices.
      CheckpointError: there is nothing to begin with before the step.
      DataError: the data are others than the run's.
    """
    logged = _logged(workdir, step)
    source = find_source(workdir, step)
    then = source.content.get("auto", {}).get("machine")
    use_cpus(then)
    config = _config(workdir, source, change, then)
    with runtime.compilation_cache(config.runtime.compilation_cache, config.workdir):
        return _replay(config, source, logged, step, then, with_norms)


def find_source(workdir: str, step: int) -> Source:
    """The newest checkpoint before the step; else the beginning, where the step was recorded."""
    if step < 1:
        raise ConfigError(f"--step {step}: steps are counted from 1, as in the log")
    directory = checkpoint_directory(workdir)
    before = [saved for saved in committed_steps(directory) if saved < step]
    files = run_files(workdir)
    folder = files.folder / FOLDER / str(step)
    with reading(workdir):
        files.fetch(folder)
    recorded = folder if (folder / "step.json").is_file() else None
    if before:
        record = read_record(directory, max(before))
        return Source(record.content, max(before), recorded)
    if recorded is None:
        raise CheckpointError(
            f"{workdir}: no checkpoint before step {step}, and the step was not recorded (in "
            f"{files.shown(folder)}): give a step after the first checkpoint"
        )
    return Source(json.loads((recorded / "step.json").read_text())["run"], None, recorded)


def use_cpus(machine: str | None) -> None:
    """As many CPU devices as the run had if it had CPUs, else one; before JAX is in use."""
    found = re.fullmatch(r"(\d+) x cpu", machine or "")
    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # JAX is in use: the devices are what they are
        jax.config.update("jax_num_cpu_devices", int(found[1]) if found else 1)


def _logged(workdir: str, step: int) -> dict[int, dict[str, Any]]:
    """The lines of metrics.jsonl of the steps up to this one that count."""
    files = run_files(workdir)
    with reading(workdir):
        files.fetch("metrics.jsonl")
    file = files.folder / "metrics.jsonl"
    if not file.is_file():
        raise ConfigError(f"{workdir} has no metrics.jsonl: give the workdir of a run")
    return {
        record["step"]: record
        for record in current_records(read_metrics(file))
        if record["kind"] == TRAIN and record["step"] <= step
    }


def _config(workdir: str, source: Source, change: ChangeConfig, then: str | None) -> RunConfig:
    """The run's, for the devices of this process alone."""
    config = from_record(source.content, workdir)
    config.workdir = workdir
    alone = {"coordinator_address": None, "num_processes": None, "process_id": None}
    config.runtime = dataclasses.replace(config.runtime, **alone, detect_cluster=False)
    if then is not None and not then.endswith(" x cpu"):
        config.mesh = dataclasses.replace(
            config.mesh, data=-1, fsdp=1, tensor=1, dcn_data=1, dcn_fsdp=1
        )
    config = change(config)
    if config.workdir != workdir:
        raise ConfigError(
            f"--workdir {config.workdir} has no effect here: `t5jax replay WORKDIR` reads {workdir}"
        )
    runtime.start_distributed(config.runtime)
    config.check(of_mixture=False)
    config.check_mesh(jax.device_count())
    return config


def _replay(
    config: RunConfig,
    source: Source,
    logged: Mapping[int, Mapping[str, Any]],
    step: int,
    then: str | None,
    with_norms: bool,
) -> Replay:
    mixture = resolve_mixture(config)
    machine = local_machine()
    recorded = source.content.get("auto")
    config = resolve_auto(config, machine, mixture.row_format.lengths, recorded).config
    config.check_mesh(jax.device_count())
    loader = build_train_loader(config, mixture)
    program = build_program(config, len(loader.task_names))
    first, state = _start(config, program, loader, source)
    if first >= step:
        raise ConfigError(f"--step {step}: the run begins after step {first}")
    key = jax.random.key(config.train.seed)
    run = _StepRunner(program, loader, key)
    found: list[ReplayedStep] = []
    for number in range(first + 1, step):
        state, metrics = run(state, loader.rows(number - 1))
        found.append(_compared(number, metrics, logged))
    rows, kept = loader.rows(step - 1), _copy(state)
    _, metrics = run(state, rows)
    last = _compared(step, metrics, logged)
    norms: dict[str, float] = {}
    if with_norms or not math.isfinite(last.loss) or not math.isfinite(last.grad_norm):
        named = _StepRunner(dataclasses.replace(program, tensor_norms=True), loader, key)
        norms = norm_metrics(named(kept, rows)[1]["norms"])
    return Replay(
        first=source.step,
        devices=machine.name,
        devices_then=then,
        environment=tuple(environment_changes(source.content)),
        steps=(*found, last),
        rows_repeat=_rows_repeat(rows, source.recorded),
        norms=norms,
    )


def _start(
    config: RunConfig, program: Program, loader: TrainLoader, source: Source
) -> tuple[int, TrainState]:
    """(steps done, state) to go on from, with the loader there."""
    if source.step is None:
        step, state, _ = begin(config, program)
        if step:
            loader.restore(loader.state(0), step)
        return step, state
    data = source.content["data"]
    loader.restore(loader.state(0) if "converted_from" in data else data, source.step)
    wanted = leaves_by_path(program.abstract_state)
    restored = restore_leaves(checkpoint_directory(config.workdir), wanted, source.step, all_of="")
    structure = jax.tree.structure(program.abstract_state)
    return source.step, jax.tree.unflatten(structure, list(restored.state.values()))


class _StepRunner:
    """The compiled train step, for rows on this host."""

    def __init__(self, program: Program, loader: TrainLoader, key: jax.Array):
        spec = {name: x.shape[1:] for name, x in loader.element_spec.items()}
        self._step = program.compile_train_step(
            program.abstract_batch(spec, loader.batch_size), key
        )
        self._feeder, self._key = Feeder(program.batch_sharding, loader.batch_size), key

    def __call__(self, state: TrainState, rows) -> tuple[TrainState, dict[str, Any]]:
        return self._step(state, self._feeder.put(rows), self._key)


def _copy(state: TrainState) -> TrainState:
    """The train step consumes the state that it is given."""
    return jax.tree.map(jnp.copy, state)


def _compared(
    step: int, metrics: Mapping[str, Any], logged: Mapping[int, Mapping[str, Any]]
) -> ReplayedStep:
    line = logged.get(step, {})
    return ReplayedStep(
        step,
        float(metrics["loss"]),
        float(metrics["grad_norm"]),
        line.get("train/loss"),
        line.get("train/grad_norm"),
    )


def _rows_repeat(rows: Mapping[str, np.ndarray], folder: pathlib.Path | None) -> bool | None:
    """Whether the rows are the recorded ones; of several hosts' streams, one host's were kept."""
    if folder is None:
        return None
    try:
        with np.load(os.fspath(folder / "batch.npz")) as saved:
            kept = {name: saved[name] for name in saved.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'batch.npz'}: {error}; remove the folder") from error
    if any(len(kept[name]) != len(x) for name, x in rows.items() if name in kept):
        return None
    return kept.keys() == rows.keys() and all(np.array_equal(kept[x], rows[x]) for x in rows)
