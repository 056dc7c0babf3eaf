"""The trainer: initialize, then step, log, evaluate and save until done.

Step n is dispatched before the metrics of step n-1 are read, so that the devices never wait for
Python; saving copies the state and goes on, but is complete before an evaluation begins.
"""

import dataclasses
import json
import time
from typing import Any, NoReturn

import jax
import numpy as np

from t5jax import runtime
from t5jax.checkpoints import Checkpoints, checkpoint_directory, leaves_by_path
from t5jax.config import RunConfig, describe_run
from t5jax.data.pipeline.prefetch import Prefetcher
from t5jax.data.pipeline.streaming import StreamingLoader
from t5jax.errors import ConfigError
from t5jax.paths import check_written_run
from t5jax.run.auto import Resolved, local_machine, resolve_for_training
from t5jax.run.build import (
    TrainLoader,
    build_program,
    build_train_loader,
    build_validation,
    resolve_mixture,
)
from t5jax.run.flight_recorder import FlightRecorder, norm_metrics
from t5jax.run.initialize import initialize
from t5jax.run.loader_rates import LoaderRates, bucket_lines
from t5jax.run.provenance import agree_on_run
from t5jax.run.summary import compiled_memory, layout_lines, measure_throughput
from t5jax.run.validation import Validation
from t5jax.tracking import Goodput, Tracker
from t5jax.training.feeding import Feeder
from t5jax.training.optimizers import learning_rates_of
from t5jax.training.schedules import HostSchedule
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState
from t5jax.types import Batch

Unread = tuple[int, dict[str, Any]]  # a step, and its metrics on the devices


def train(config: RunConfig, started: float | None = None, *, take_over: bool = False) -> None:
    """Runs the config to its end, resuming what its workdir holds.

    `started` is when the process was, in seconds since 1970, for the account of its time (None:
    now). `take_over`: whoever is said to write the workdir is dead (`runtime.owned`).

    Raises ConfigError, DataError or CheckpointError before anything compiles where it can;
    TooManyBadSteps, Preempted and OSError (a checkpoint could not be written, or another process
    writes the workdir) on the way; DataError when all is saved and a task's metric failed in the
    last evaluation.
    """
    goodput = Goodput(started)
    check_written_run(config.workdir)
    runtime.start_distributed(config.runtime)
    config.check_mesh(jax.device_count())
    agree_on_run(config)
    with (
        runtime.owned(config.workdir, "t5jax train", take_over=take_over),
        runtime.compilation_cache(config.runtime.compilation_cache, config.workdir),
    ):
        _train(config, goodput)


def _train(config: RunConfig, goodput: Goodput) -> None:
    """The same, where the hosts have agreed on the config."""
    mixture = resolve_mixture(config)
    resolved = resolve_for_training(config, mixture.row_format.lengths)
    runtime.agree('what settings of "auto" are', json.dumps(resolved.record(), sort_keys=True))
    config = resolved.config
    config.check_mesh(jax.device_count())
    loader = build_train_loader(config, mixture)
    runtime.agree("the data", json.dumps(loader.state(0), sort_keys=True))
    validation = build_validation(config, mixture)
    program = build_program(config, len(loader.task_names))
    limits = config.runtime.step_timeout_seconds, config.runtime.first_step_timeout_seconds
    tracker = Tracker(
        config.workdir,
        config.tracking,
        num_train_steps=config.train.num_train_steps,
        is_primary=jax.process_index() == 0,
        goodput=goodput,
    )
    with runtime.Watchdog(*limits) as watchdog, runtime.Preemption() as preemption, tracker:
        tracker.message(f"workdir {config.workdir}")
        for choice in resolved.choices:
            tracker.message(f"auto: {choice}")
        for line in layout_lines(program, local_machine().memory_bytes):
            tracker.message(line)
        for line in bucket_lines(loader):
            tracker.message(line)
        Trainer(resolved, program, loader, validation, tracker, watchdog, preemption).run()
    validation.check()


class _EvaluationPreempted(Exception):
    """The run is preempted while it is evaluated; raised on all hosts after the same batch."""


@dataclasses.dataclass
class Trainer:
    """One run in progress."""

    resolved: Resolved
    program: Program
    loader: TrainLoader
    validation: Validation
    tracker: Tracker
    watchdog: runtime.Watchdog
    preemption: runtime.Preemption

    def __post_init__(self) -> None:
        directory = checkpoint_directory(self.config.workdir)
        self.checkpoints = Checkpoints(directory, self.config.checkpoints)
        self.key = jax.random.key(self.config.train.seed)
        self.throughput = measure_throughput(self.config, self.program, self.loader)
        self.num_left_out = 0
        self.time_of = self.tracker.goodput.part
        self.loader_rates = LoaderRates(self.loader)
        self.recorder = FlightRecorder(self.resolved, self.program, self.loader, self.tracker)

    @property
    def config(self) -> RunConfig:
        return self.resolved.config

    @property
    def num_steps(self) -> int:
        return self.config.train.num_train_steps

    def run(self) -> None:
        """From the state that the run begins with to the end of its steps."""
        step, state = initialize(
            self.resolved,
            self.program,
            self.loader,
            self.checkpoints,
            self.tracker,
            evaluated=self.validation.loaders,
        )
        if jax.process_index() == 0:
            describe_run(self.resolved.written)
        unevaluated = self.checkpoints.awaits_metrics and self.validation.due(step)
        if step >= self.num_steps and not unevaluated:
            self.tracker.event(step, "finished", note="nothing left to do")
            return
        self.tracker.begin(step)
        if unevaluated:
            self._evaluate_again(step, state)
        if step < self.num_steps:
            self._train(step, state)
        with self.time_of("save"):
            self.checkpoints.close()
        self.tracker.end(self.num_steps, "finished")

    def _train(self, step: int, state: TrainState) -> None:
        """The steps from `step` to the last, with what is due after each."""
        self.learning_rates = self._learning_rates(step, state)
        train_step = self._compile(step)
        feeder = Feeder(self.program.batch_sharding, self.loader.batch_size)
        rows = feeder.rows.tolist()
        unread: Unread | None = None
        # The thread also puts them on the devices: the transfer goes on while a step runs.
        put = lambda n: feeder.put(self.recorder.keep(n + 1, self.loader_rates.rows(n, rows)))
        with Prefetcher(put, first_step=step) as batches, self.recorder.on_crash():
            while step < self.num_steps:
                batch = self._next_batch(batches, unread)
                self.recorder.running = step + 1
                with self.time_of("step"), self.tracker.profiled(step + 1):
                    state, metrics = train_step(state, batch, self.key)
                step += 1
                self.tracker.end_profile(step, metrics)
                if unread is not None:
                    self._log_step(*unread)
                unread = (step, metrics)
                preempted = self.preemption.reached()
                due = self.checkpoints.due(step, metrics)
                saves = due or preempted or step == self.num_steps
                if saves or self.validation.due(step):
                    self._log_step(*unread)
                    unread = None
                    preempted = self._save_and_evaluate(step, state, saves, preempted)
                self._log_saved()
                if preempted:
                    self._leave(step)
                self.watchdog.beat()

    def _next_batch(self, batches: Prefetcher[Batch], running: Unread | None) -> Batch:
        """The next batch. While the devices are at the step `running`, nothing waits for data."""
        with self.time_of("step"):
            while running and not _is_ready(running[1]["loss"]) and not batches.wait(0.005):
                pass
        with self.time_of("data"):
            return next(batches)

    def _compile(self, step: int) -> jax.stages.Compiled:
        start = time.perf_counter()
        spec = {name: x.shape[1:] for name, x in self.loader.element_spec.items()}
        batch = self.program.abstract_batch(spec, self.loader.batch_size)
        with self.time_of("compile"):
            compiled = self.program.compile_train_step(batch, self.key)
        seconds = round(time.perf_counter() - start, 1)
        self.tracker.event(step, "compiled", seconds=seconds, **compiled_memory(compiled))
        return compiled

    def _log_step(self, step: int, metrics: dict[str, Any]) -> None:
        """Reads the metrics of a step (waiting for it) and logs them."""
        with self.time_of("step"):
            jax.block_until_ready(metrics)
        of_tasks = np.asarray(metrics.pop("tasks", np.zeros((0, 3))), np.float64)
        norms = metrics.pop("norms", {})
        numbers: dict[str, Any] = {f"train/{k}": np.asarray(v).item() for k, v in metrics.items()}
        bad_steps = numbers.pop("train/bad_steps")
        tokens = numbers["train/target_tokens"] + numbers.pop("train/input_tokens")
        rates = self.throughput.update(tokens=tokens, rows=self.loader.batch_size)
        # What the optimizer used, but for steps skipped since the start, which it does not count.
        numbers["train/learning_rate"] = self.learning_rates(step - 1)
        every = self.config.tracking.norms_every_steps
        shown = norm_metrics(norms) if every and step % every == 0 else {}
        rates |= self.loader_rates.metrics() if self.tracker.due(step) else {}
        self.tracker.train(step, {**numbers, **rates, **self._task_metrics(of_tasks), **shown})
        self.recorder.check(step, numbers, norms, bad_steps)
        if bad_steps:
            self.tracker.event(step, "skipped_bad_step", in_a_row=bad_steps)
        if bad_steps >= self.config.train.max_bad_steps:
            raise runtime.TooManyBadSteps(
                f"step {step}: loss or gradient was not finite {bad_steps} steps in a row; the "
                f"parameters are those after step {step - bad_steps}. Lower the learning rate, "
                "look at the data of these steps, or start again from an earlier checkpoint"
            )

    def _task_metrics(self, sums_K3: np.ndarray) -> dict[str, float]:
        """Loss and accuracy of each task of a mixture that had rows in the step."""
        metrics = {}
        names = self.loader.task_names if len(sums_K3) else ()
        for name, (loss, correct, weight) in zip(names, sums_K3.tolist(), strict=True):
            if weight:
                metrics[f"task/{name}/loss"] = loss / weight
                metrics[f"task/{name}/accuracy"] = correct / weight
                metrics[f"task/{name}/target_tokens"] = weight
        return metrics

    def _save_and_evaluate(
        self, step: int, state: TrainState, saves: bool, preempted: bool
    ) -> bool:
        """Whichever is due, the save first; returns whether the run is preempted, with the state
        saved then.

        What an evaluation runs into (memory, a user's code, a signal, `kill -9`) loses no step: the
        checkpoint is complete before it begins. A step whose evaluation has not ended is evaluated
        when the run resumes.
        """
        self._log_left_out(step)
        evaluates = self.validation.due(step)
        with self.watchdog.suspended(self.config.runtime.first_step_timeout_seconds):
            if saves:
                wait = evaluates or preempted or step == self.num_steps
                self._save(step, state, evaluates, wait)
            if evaluates and not preempted:
                try:
                    preempted = not self._evaluate(step, state)
                except Exception:
                    # Of several hosts the others may never come to save.
                    if not saves and jax.process_count() == 1:
                        self._save(step, state, evaluates, wait=True)
                    raise
                if preempted and not saves:
                    self._save(step, state, evaluates, wait=True)
        self.throughput.pause()
        return preempted

    def _save(self, step: int, state: TrainState, evaluates: bool, wait: bool) -> None:
        with self.time_of("save"):
            self.tracker.time_spent(step)
            self.tracker.upload()  # first: no step is saved whose log is lost
            record = self.resolved.checkpoint_record(self.loader.state(step))
            self.checkpoints.save(step, state, record, awaits_metrics=evaluates)
            if wait:
                self.checkpoints.wait()
                self._log_saved()

    def _log_saved(self) -> None:
        for saved in self.checkpoints.committed():
            self.tracker.event(saved, "saved")

    def _evaluate(self, step: int, state: TrainState) -> bool:
        """Evaluates what is due, and adds the metrics to the step's checkpoint if it has one;
        returns whether that ended. It does not when the run is preempted meanwhile."""
        try:
            with self.time_of("evaluation"):
                metrics = self.validation.evaluate(
                    step, self.program, state.params, self.tracker, self._after_batch
                )
        except _EvaluationPreempted:
            return False
        with self.time_of("save"):
            self.checkpoints.add_metrics(step, metrics)
        self.tracker.time_spent(step)  # a process that resumes at this step has been evaluated
        return True

    def _after_batch(self) -> None:
        self.watchdog.extend()
        if self.preemption.reached():
            raise _EvaluationPreempted

    def _evaluate_again(self, step: int, state: TrainState) -> None:
        """Evaluates the step that the run resumes from, which was saved to be evaluated: the run
        was killed or preempted before that had ended."""
        self.tracker.event(step, "evaluating_again", note="the evaluation before did not end")
        with self.watchdog.suspended(self.config.runtime.first_step_timeout_seconds):
            ended = self._evaluate(step, state)
        if not ended:
            self._leave(step)

    def _leave(self, step: int) -> NoReturn:
        self.tracker.end(step, "preempted")
        raise runtime.Preempted(step)

    def _log_left_out(self, step: int) -> None:
        """Bad records that a streaming loader left out since the last log line."""
        if not isinstance(self.loader, StreamingLoader):
            return
        if self.loader.num_left_out > self.num_left_out:
            self.num_left_out = self.loader.num_left_out
            first = "; ".join(self.loader.places_left_out[:3])
            self.tracker.event(step, "left_out", bad_records=self.num_left_out, first=first)

    def _learning_rates(self, step: int, state: TrainState) -> HostSchedule:
        """Those of the steps from `step` on.

        Schedules follow the updates that the optimizer has made: fewer than steps where some were
        skipped, more where it was kept from another run.
        """
        slots = leaves_by_path(state.opt_state).items()
        counts = [np.asarray(x) for path, x in slots if path.endswith("count")]
        made = max((int(count.max()) for count in counts), default=step)
        schedule = learning_rates_of(self.config.optimizer, self.num_steps)
        some = np.linspace(made, made + self.num_steps - step - 1, 3).astype(np.int32)
        if made > step and not np.asarray(schedule(some)).any():
            raise ConfigError(
                f"optimizer.schedule ends before update {made}, with which this run begins "
                "(init.optimizer = 'keep'): every learning rate would be 0; set 'reset', another "
                "schedule, or init.keep_step = True with steps that count on"
            )
        return HostSchedule(lambda n: schedule(n + np.int32(made - step)), step)


def _is_ready(x: jax.Array) -> bool:
    return x.is_ready()  # pyright: ignore[reportAttributeAccessIssue] (of arrays, not of tracers)
