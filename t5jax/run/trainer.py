"""The training loop: restore or begin, then step, report, evaluate and save until done.

Step n is dispatched before the metrics of step n-1 are read, so that the devices never wait for
Python; saving copies the state and goes on.
"""

import dataclasses
import json
import platform
import time
from importlib import metadata
from typing import Any

import jax
import numpy as np
from etils import epath

from t5jax import runtime
from t5jax.checkpoints import Checkpoints, leaves_by_path
from t5jax.config import RunConfig, describe_run, to_text
from t5jax.data.pipeline.loader import Loader
from t5jax.data.pipeline.prefetch import Prefetcher
from t5jax.data.pipeline.streaming import LiveLoader
from t5jax.errors import ConfigError
from t5jax.run.build import TrainLoader, build_program, open_train_loader
from t5jax.run.initialize import begin
from t5jax.run.validation import Validation, open_validation
from t5jax.tracking import Reporter, Throughput, measure_matmul_peak, model_flops, peak_flops
from t5jax.training.feeding import Feeder
from t5jax.training.program import Program
from t5jax.training.schedules import RatesAhead
from t5jax.training.train_step import TrainState


def train(config: RunConfig) -> None:
    """Runs the config to its end, resuming what its workdir holds.

    Raises ConfigError, DataError or CheckpointError before anything compiles where it can;
    TooManyBadSteps, Preempted and OSError (a checkpoint could not be written) on the way.
    """
    runtime.start(config.runtime)
    config.check_mesh(jax.device_count())
    _agree_on(config)
    loader = open_train_loader(config)
    runtime.agree("the data", json.dumps(loader.state(0), sort_keys=True))
    validation = open_validation(config)
    program = build_program(config, len(loader.task_names))
    limits = config.runtime.step_timeout_seconds, config.runtime.first_step_timeout_seconds
    reporter = Reporter(
        config.workdir,
        config.reporting,
        num_train_steps=config.train.num_train_steps,
        is_primary=jax.process_index() == 0,
    )
    with runtime.Watchdog(*limits) as watchdog, runtime.Preemption() as preemption, reporter:
        reporter.say(f"workdir {config.workdir}")
        Trainer(config, program, loader, validation, reporter, watchdog, preemption).run()


@dataclasses.dataclass
class Trainer:
    """One run in progress."""

    config: RunConfig
    program: Program
    loader: TrainLoader
    validation: Validation
    reporter: Reporter
    watchdog: runtime.Watchdog
    preemption: runtime.Preemption

    def __post_init__(self) -> None:
        directory = epath.Path(self.config.workdir) / "checkpoints"
        self.checkpoints = Checkpoints(directory, self.config.checkpoints)
        self.key = jax.random.key(self.config.train.seed)
        self.throughput = self._throughput()
        self.left_out = 0

    @property
    def num_steps(self) -> int:
        return self.config.train.num_train_steps

    def run(self) -> None:
        step, state = self._restore_or_begin()
        if jax.process_index() == 0:
            describe_run(self.config)
        if step >= self.num_steps:
            self.reporter.event(step, "finished", note="nothing left to do")
            return
        self.learning_rates = self._learning_rates(step, state)
        train_step = self._compile(step)
        feeder = Feeder(self.program.batch_sharding, self.loader.batch_size)
        rows = feeder.rows.tolist()
        unread: tuple[int, dict] | None = None
        # The thread also puts them on the devices: the transfer goes on while a step runs.
        put = lambda n: feeder.put(self.loader.rows(n, rows))
        with Prefetcher(put, first_step=step) as batches:
            while step < self.num_steps:
                state, metrics = train_step(state, next(batches), self.key)
                step += 1
                if unread is not None:
                    self._report(*unread)
                unread = (step, metrics)
                leaving = self.preemption.reached()
                if leaving or step == self.num_steps or self._pause_due(step):
                    self._report(*unread)
                    unread = None
                    self._pause(step, state, last=leaving or step == self.num_steps)
                self._report_saved()
                if leaving:
                    self.reporter.event(step, "preempted")
                    raise runtime.Preempted(step)
                self.watchdog.beat()
        self.checkpoints.close()
        self.reporter.event(step, "finished")

    def _restore_or_begin(self) -> tuple[int, TrainState]:
        """Newest good checkpoint; if nothing was ever saved, what `config.init` says."""
        notes: list[str] = []
        restored = self.checkpoints.restore(self.program.abstract_state, log=notes.append)
        for note in notes:
            self.reporter.event(0, "fell_back", reason=note)
        if restored is None:
            step, state, source = begin(self.config, self.program)
            if step:
                self.loader.restore(self.loader.state(0), step)  # from the first row all the same
            self.reporter.event(step, "started", **source, **self._size())
            return step, state
        if restored.record["vocabulary"] != self.config.data.vocabulary.fingerprint:
            raise ConfigError(
                f"data.vocabulary = {self.config.data.vocabulary} is not the one that "
                f"{self.config.workdir} was trained with (the file has changed since)"
            )
        data = restored.record["data"]
        if "converted_from" in data:  # another program's parameters: its data are not ours
            data = self.loader.state(0)
        self.loader.restore(data, restored.step)
        changed = changed_lines(restored.record["config"], to_text(self.config))
        self.reporter.event(restored.step, "resumed", changed=changed or None)
        return restored.step, restored.state

    def _compile(self, step: int) -> jax.stages.Compiled:
        start = time.perf_counter()
        spec = {name: x.shape[1:] for name, x in self.loader.element_spec.items()}
        batch = self.program.abstract_batch(spec, self.loader.batch_size)
        compiled = self.program.compile_train_step(batch, self.key)
        seconds = round(time.perf_counter() - start, 1)
        self.reporter.event(step, "compiled", seconds=seconds, **_memory(compiled))
        return compiled

    def _report(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Reads the metrics of a step (waiting for it) and says what they are."""
        of_tasks = np.asarray(metrics.pop("tasks", np.zeros((0, 3))), np.float64)
        numbers: dict[str, Any] = {k: np.asarray(v).item() for k, v in metrics.items()}
        bad_steps = numbers.pop("bad_steps")
        tokens = numbers["target_tokens"] + numbers.pop("input_tokens")
        rates = self.throughput.update(tokens=tokens, rows=self.loader.batch_size)
        # What the optimizer used, but for steps skipped since the start, which it does not count.
        numbers["learning_rate"] = self.learning_rates(step - 1)
        self.reporter.train(step, {**numbers, **rates, **self._task_metrics(of_tasks)})
        if bad_steps:
            self.reporter.event(step, "skipped_bad_step", in_a_row=bad_steps)
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

    def _pause_due(self, step: int) -> bool:
        return self.validation.due(step) or self.checkpoints.due(step)

    def _report_left_out(self, step: int) -> None:
        """What live texts lost to the policy for bad records since it was last said."""
        count = self.loader.num_left_out if isinstance(self.loader, LiveLoader) else 0
        if count > self.left_out:
            assert isinstance(self.loader, LiveLoader)
            self.left_out = count
            first = "; ".join(self.loader.places_left_out[:3])
            self.reporter.event(step, "left_out", bad_records=count, first=first)

    def _pause(self, step: int, state: TrainState, *, last: bool) -> None:
        """Evaluates and saves, whichever is due."""
        self._report_left_out(step)
        with self.watchdog.suspended(self.config.runtime.first_step_timeout_seconds):
            metrics = None
            if self.validation.due(step):
                about = (step, self.program, state.params, self.reporter, self.watchdog.extend)
                metrics = self.validation.evaluate(*about)
            if last or self.checkpoints.due(step):
                record = checkpoint_record(self.config, self.loader, step)
                self.checkpoints.save(step, state, record, metrics)
            if last:
                self.checkpoints.wait()
        self.throughput.pause()

    def _report_saved(self) -> None:
        for step in self.checkpoints.committed():
            self.reporter.event(step, "saved")

    def _size(self) -> dict[str, Any]:
        params = jax.tree.leaves(self.program.abstract_state.params)
        mesh = "x".join(str(n) for n in self.program.mesh.shape.values())
        return {
            "parameters": sum(x.size for x in params),
            **self._trained_size(),
            "mesh": mesh,
            "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
            **self._data_size(),
        }

    def _trained_size(self) -> dict[str, int]:
        trained = jax.tree.leaves(self.program.trained)
        if len(trained) == len(jax.tree.leaves(self.program.abstract_state.params)):
            return {}
        return {"trained_parameters": sum(x.size for x in trained)}

    def _data_size(self) -> dict[str, Any]:
        size: dict[str, Any] = {"data": "tokenised while it is read"}
        if isinstance(self.loader, Loader):
            size = {"train_tokens": self.loader.num_tokens}
        if self.loader.mixing is not None and len(self.loader.task_names) > 1:
            shares = self.loader.mixing.shares(0)
            size |= {f"share of rows of {name}": round(share, 5) for name, share in shares.items()}
        without = set(self.loader.task_names) - set(self.validation.loaders)
        if self.config.train.eval_every_steps and without:
            size["not_evaluated_for_want_of_a_split"] = ", ".join(sorted(without))
        return size

    def _learning_rates(self, step: int, state: TrainState) -> RatesAhead:
        """Those of the steps from `step` on.

        Schedules follow the updates that the optimizer has made: fewer than steps where some were
        skipped, more where it was kept from another run.
        """
        slots = leaves_by_path(state.opt_state).items()
        counts = [np.asarray(x) for path, x in slots if path.endswith("count")]
        made = max((int(count.max()) for count in counts), default=step)
        schedule = self.config.optimizer.learning_rate_at(self.num_steps)
        some = np.linspace(made, made + self.num_steps - step - 1, 3).astype(np.int32)
        if made > step and not np.asarray(schedule(some)).any():
            raise ConfigError(
                f"optimizer.schedule ends before update {made}, with which this run begins "
                "(init.optimizer = 'keep'): every learning rate would be 0; set 'reset', another "
                "schedule, or init.keep_step = True with steps that count on"
            )
        return RatesAhead(lambda n: schedule(n + np.int32(made - step)), step)

    def _throughput(self) -> Throughput:
        device, dtype = jax.devices()[0], self.config.model.dtype
        peak = peak_flops(device.device_kind, dtype)
        if peak is None and device.platform == "cpu" and jax.device_count() == 1:
            peak = measure_matmul_peak(dtype, 0.5)
        if self._trained_size():
            peak = None  # what a step costs without some of the gradients is not counted
        return Throughput(
            num_devices=jax.device_count(),
            flops_per_row=model_flops(self.config.model, 1, *self.loader.lengths),
            peak=peak,
        )


def _agree_on(config: RunConfig) -> None:
    """All hosts see the same directory and run the same config with the same versions."""
    directory = epath.Path(config.workdir)
    known = ("config.txt", "checkpoints", "metrics.jsonl")
    found = {path.name for path in directory.iterdir()} if directory.exists() else set()
    found = {name for name in found if not runtime.is_probe(name)}
    if found and found.isdisjoint(known):
        raise ConfigError(
            f"workdir = {config.workdir!r} exists and holds something other than a run; "
            "choose another directory"
        )
    runtime.shared_directory_check(config.workdir)
    text = to_text(config)
    common = [line for line in text.splitlines() if not line.startswith("runtime.process_id")]
    runtime.agree("the effective config", "\n".join(common))
    runtime.agree("the software", str(sorted(environment().items())))


def checkpoint_record(config: RunConfig, loader: TrainLoader, step: int) -> dict[str, Any]:
    """What a checkpoint after `step` steps says of its run, as JSON."""
    return {
        "config": to_text(config),
        "data": loader.state(step),
        "vocabulary": loader.vocabulary.fingerprint,
        "environment": environment(),
    }


def changed_lines(before: str, after: str) -> list[str]:
    """Settings that differ between two effective configs, as they are now."""
    old = set(before.splitlines())
    return [line for line in after.splitlines() if line not in old]


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


def _memory(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Of one device, in GB, as the compiler plans it."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    arguments = analysis.argument_size_in_bytes
    total = arguments + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return {
        "state_gb": round(arguments / 1e9, 3),
        "peak_gb": round((total + analysis.temp_size_in_bytes) / 1e9, 3),
    }
