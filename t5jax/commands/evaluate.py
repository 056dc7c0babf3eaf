"""`t5jax evaluate WORKDIR`: losses and task metrics of one checkpoint, or of every checkpoint.

With --follow it is continuous evaluation beside a training run.
"""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Literal

import jax

from t5jax.buckets import RunFiles, run_files
from t5jax.checkpoints import checkpoint_directory
from t5jax.config import RunConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.data.registry.resolve import ResolvedMixture
from t5jax.data.vocabularies import save_vocabulary
from t5jax.errors import CheckpointError, ConfigError, DataError
from t5jax.evaluation.continuous import (
    BestCheckpoint,
    BestMode,
    StepDeleted,
    is_committed,
    poll_checkpoints,
    wait_for_checkpoint,
)
from t5jax.evaluation.evaluator import Evaluator, writing_evaluation
from t5jax.evaluation.examples import TaskExamples
from t5jax.evaluation.loss import Baselines, SplitLosses
from t5jax.evaluation.predictions import TaskPrediction, read_predictions
from t5jax.evaluation.printed import Losses, json_records, loss_lines, values_by_name
from t5jax.evaluation.report import EvaluationReport
from t5jax.evaluation.samples import most_confident
from t5jax.evaluation.submission import write_submission
from t5jax.inference.batch_job import JobMonitor
from t5jax.run.build import build_evaluation_loaders, build_run_evaluator, resolve_mixture
from t5jax.run.restore import RestoredRun, SavedRun, apply_flags, open_saved_run, read_saved_config
from t5jax.runtime import agree, owned, share_folder, start_distributed
from t5jax.tracking.progress import CountProgress

TasksPredictions = list[tuple[TaskExamples, list[TaskPrediction]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Command-line options."""

    split: str = "validation"
    tasks: tuple[str, ...] = ()  # or mixtures, for metrics; (): the run's own, and its losses
    only: Literal["loss", "metrics"] | None = None
    num_rows: int | None = None  # to take losses over; None: all
    with_baselines: bool = False
    output: str | None = None  # None: WORKDIR/evaluations
    submission: str | None = None
    keep_best: str | None = None
    best_mode: BestMode = "max"
    show: int = 0  # predictions of each task
    as_json: bool = False
    take_over: bool = False  # whoever is said to write what this writes is dead

    def __post_init__(self) -> None:
        if self.num_rows is not None and self.num_rows < 1:
            raise ConfigError(
                f"--num-rows {self.num_rows}: at least 1; without it, the whole split"
            )
        if self.tasks and self.only == "loss":
            raise ConfigError("--tasks are evaluated by metrics: leave out --only loss")
        if self.metrics_only and (self.num_rows is not None or self.with_baselines):
            raise ConfigError(
                "--num-rows and --baselines are about losses: leave out --tasks and --only metrics"
            )
        if self.only == "loss" and (self.submission or self.output or self.show):
            raise ConfigError(
                "--output, --submission and --show are about predictions: leave out --only loss"
            )
        if self.show < 0 or (self.show and self.as_json):
            raise ConfigError(
                f"--show {self.show}: 0 or more predictions of each task, not with --json"
            )

    @property
    def metrics_only(self) -> bool:
        return self.only == "metrics" or bool(self.tasks)


def evaluate_command(
    workdir: str, flags: list[str], options: EvaluateOptions, *, step: int | None
) -> None:
    """Evaluates a step; None: the newest good one. Raises DataError at the end where a metric
    failed, LeaseHeld where another process is writing what this would, JobPreempted after a
    SIGTERM."""
    saved, monitor = _open(workdir, step, flags, options), JobMonitor()
    # Of losses alone nothing is kept.
    resumable = options.only != "loss"
    with (
        _owning_best(workdir, options),
        monitor.running(saved.config.runtime, resumable=resumable, watched=False),
    ):
        evaluation = _Evaluation(workdir, saved, options, monitor)
        _check_together(evaluation.evaluate(saved.restore(step)))


def evaluate_follow_command(
    workdir: str, flags: list[str], options: EvaluateOptions, *, timeout_seconds: float
) -> None:
    """Evaluates every step that is there or appears, until the run's last one; gives up when none
    has appeared for `timeout_seconds`. Where another process, such as the training one, is
    evaluating a step, that is waited for. Raises DataError at the end where a metric failed on the
    last one, LeaseHeld where another process keeps the best, JobPreempted after a SIGTERM."""
    with contextlib.ExitStack() as job:
        report = _follow(workdir, flags, options, timeout_seconds, job)
    _check_together(report)


def _follow(
    workdir: str,
    flags: list[str],
    options: EvaluateOptions,
    timeout_seconds: float,
    job: contextlib.ExitStack,
) -> EvaluationReport | None:
    """The report of the last step that was evaluated."""
    directory, monitor = checkpoint_directory(workdir), JobMonitor()
    saved: SavedRun | None = None
    report: EvaluationReport | None = None

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        monitor.after_batch()

    found = wait_for_checkpoint(directory, timeout_seconds=timeout_seconds)
    if found:  # its config says how hosts find one another; they agree on the steps from here on
        start_distributed(_config(workdir, None, flags, options).runtime)
    limit = timeout_seconds if found else 0.0
    for step in poll_checkpoints(directory, timeout_seconds=limit, wait=wait):
        try:
            if saved is None:
                saved = _open(workdir, step, flags, options)
                runtime = saved.config.runtime
                job.enter_context(_owning_best(workdir, options))
                job.enter_context(monitor.running(runtime, resumable=True, watched=False))
                evaluation = _Evaluation(workdir, saved, options, monitor, wait)
            restored = saved.restore(step)
        except CheckpointError:
            if is_committed(directory, step):
                raise
            _say(f"step {step} was deleted by the training run before it could be read")
            continue
        report = evaluation.evaluate(restored)
        if step >= saved.config.train.num_train_steps:
            break
    else:
        _say(f"no new checkpoint in {directory} for {timeout_seconds:.0f} s: ended")
    return report


def _owning_best(workdir: str, options: EvaluateOptions) -> contextlib.AbstractContextManager[None]:
    """The best checkpoint is chosen by one process."""
    if options.keep_best is None:
        return contextlib.nullcontext()
    target = f"{workdir.rstrip('/')}/best"
    what = "t5jax evaluate --keep-best"
    return owned(target, what, beside=True, take_over=options.take_over)


def _check_together(report: EvaluationReport | None) -> None:
    """Raises where a metric failed, when the first host has written and kept everything."""
    if report is not None:
        agree("which metrics failed", ", ".join(report.failures))  # messages may hold addresses
        report.check()


def _open(workdir: str, step: int | None, flags: list[str], options: EvaluateOptions) -> SavedRun:
    return open_saved_run(_config(workdir, step, flags, options), workdir)


def _config(
    workdir: str, step: int | None, flags: list[str], options: EvaluateOptions
) -> RunConfig:
    """Of a saved step, changed as the command line says."""
    change = apply_flags(flags, command="evaluate", workdir=workdir)
    of_mixture = not options.tasks
    return read_saved_config(workdir, step, change, command="evaluate", of_mixture=of_mixture)[0]


def _read_all_predictions(evaluator: Evaluator, directory: pathlib.Path) -> TasksPredictions:
    """Of every task; called on every host, because reading agrees on what was written."""
    return [
        (task, read_predictions(directory / f"{task.task}.jsonl", task)) for task in evaluator.tasks
    ]


class _Evaluation:
    """Losses and metrics of one run: its data are opened once for all steps."""

    def __init__(
        self,
        workdir: str,
        saved: SavedRun,
        options: EvaluateOptions,
        monitor: JobMonitor,
        wait: Callable[[float], None] | None = None,
    ):
        self._wait = wait  # for another process that evaluates the same
        self._workdir, self._options, self._after_batch = workdir, options, monitor.after_batch
        self._files = run_files(workdir)
        self._written = self._files if options.output is None else RunFiles(options.output)
        self._config, self._replicas = saved.config, saved.program.replicas
        self._evaluator = self._build_evaluator()
        loaders = {} if options.metrics_only else self._open_loaders()
        self._splits = {name: SplitLosses(x, options.num_rows) for name, x in loaders.items()}
        if self._evaluator is None and not loaders:
            raise DataError(self._nothing_to_evaluate())
        self._best = None
        if options.keep_best is not None:
            self._best = BestCheckpoint(workdir, options.keep_best, options.best_mode)

    def _build_evaluator(self) -> Evaluator | None:
        if self._options.only == "loss":
            return None
        evaluator = build_run_evaluator(self._config, self._options.split, self._options.tasks)
        needed = self._options.submission or self._options.output or self._options.show
        if evaluator is None and (needed or self._options.metrics_only):
            names = ", ".join(self._options.tasks) or self._config.data.mixture
            raise ConfigError(
                f"no task of {names} has metrics and a split "
                f"{self._options.split!r}: there is nothing to evaluate"
            )
        return evaluator

    @functools.cached_property
    def _mixture(self) -> ResolvedMixture:
        return resolve_mixture(self._config)

    def _open_loaders(self) -> dict[str, Loader]:
        try:
            return build_evaluation_loaders(
                self._config,
                self._mixture,
                self._options.split,
                self._options.num_rows,
                replicas=self._replicas,
            )
        except DataError as error:
            without = "; --only metrics needs no store" if self._evaluator is not None else ""
            raise DataError(f"{error}{without}") from error

    def _nothing_to_evaluate(self) -> str:
        data, split = self._config.data, self._options.split
        return (
            f"no task of {data.mixture} has metrics and a split {split!r}, or a store of it in "
            f"{data.cache_dir} (t5jax cache CONFIG makes it where the source has one)"
        )

    def evaluate(self, restored: RestoredRun) -> EvaluationReport | None:
        """Computes, prints and keeps what is asked for; the report of the task metrics."""
        losses = {name: self._loss(restored, name) for name in self._splits}
        report = directory = None
        shown: list[str] = []
        if self._evaluator is not None:
            report, directory = self._generate(restored, self._evaluator)
            shown = self._shown_predictions(self._evaluator, directory)
        if jax.process_index() == 0:
            self._print(restored.step, losses, report, directory)
            print("".join(shown), end="", flush=True)
        if self._best is not None:
            self._keep_best(self._best, restored.step, losses, report)
        return report

    def _keep_best(
        self, best: BestCheckpoint, step: int, losses: Losses, report: EvaluationReport | None
    ) -> None:
        values = values_by_name(losses, report)
        if best.metric not in values and report is not None and report.failures:
            _say(f"step {step} has no {best.metric}, a metric failed: it is not the best")
            return
        try:
            kept = best.update(step, values)
        except StepDeleted as deleted:
            _say(str(deleted))
            return
        if kept:
            if jax.process_index() == 0:
                save_vocabulary(self._config.data.vocabulary, self._files.folder / "best")
                self._files.upload()
            _say(f"step {step} is the best so far: kept in {self._workdir}/best")
        elif math.isnan(values[best.metric]):
            _say(f"step {step} has {best.metric} NaN: it is not the best")

    def _loss(self, restored: RestoredRun, name: str) -> dict[str, float]:
        split = self._splits[name]
        found = split.metrics(split.sums(restored.program, restored.params, self._after_batch))
        if self._options.with_baselines:
            models = self._baselines[name]
            found |= {"unigram_model": models.unigram, "bigram_model": models.bigram}
        return found

    @functools.cached_property
    def _baselines(self) -> dict[str, Baselines]:
        train = build_evaluation_loaders(
            self._config, self._mixture, "train", replicas=self._replicas
        )
        return {name: split.baselines(train[name]) for name, split in self._splits.items()}

    def _generate(
        self, restored: RestoredRun, evaluator: Evaluator
    ) -> tuple[EvaluationReport, pathlib.Path]:
        settings = evaluator.settings(restored.program, restored.params)
        files = self._written
        folder = files.folder / ("evaluations" if files is self._files else "")
        base = folder / self._options.split / str(restored.step)
        take_over = self._options.take_over
        with writing_evaluation(base, settings, files, take_over, self._wait) as directory:
            report = evaluator.evaluate(
                restored.program,
                restored.params,
                restored.step,
                settings=settings,
                directory=directory,
                progress=_Progress(files),
                after_batch=self._after_batch,
                share=lambda: share_folder(files, directory),
            )
            if self._options.submission is not None:
                predictions = _read_all_predictions(evaluator, directory)
                if jax.process_index() == 0:
                    self._write_submission(predictions, pathlib.Path(self._options.submission))
        return report, directory

    def _shown_predictions(self, evaluator: Evaluator, directory: pathlib.Path) -> list[str]:
        """Of each task some predictions as text."""
        if not self._options.show:
            return []
        pairs = _read_all_predictions(evaluator, directory)
        return [most_confident(task, found, self._options.show) for task, found in pairs]

    def _write_submission(self, pairs: TasksPredictions, target: pathlib.Path) -> None:
        written = 0
        for task, predictions in pairs:
            made = write_submission(target, task, predictions)
            if made is not None:
                file, replaced = made
                note = f"; {replaced} that name no class count as the first" if replaced else ""
                _say(f"{file}: {len(predictions)} predictions of {task.task}{note}")
                written += 1
        if not written:
            raise ConfigError(
                f"--submission: no task of {self._config.data.mixture} is one of GLUE's or "
                "SuperGLUE's"
            )

    def _print(
        self,
        step: int,
        losses: Losses,
        report: EvaluationReport | None,
        directory: pathlib.Path | None,
    ) -> None:
        if self._options.as_json:
            for record in json_records(step, self._options.split, losses, report):
                print(json.dumps(record), flush=True)
            return
        for name, metrics in losses.items():
            print(f"step {step} of {self._workdir} on {self._options.split} of {name}")
            print("\n".join(loss_lines(metrics)))
        if report is not None and directory is not None:
            print(f"step {step} of {self._workdir} on {self._options.split}")
            print(report, end="")
            print(f"predictions: {self._written.shown(directory)}", flush=True)


class _Progress:
    """Progress of the predictions on standard error, for tasks that take a while."""

    def __init__(self, files: RunFiles):
        self._files = files
        self._shown: dict[str, CountProgress] = {}

    def __call__(self, task: str, done: int, total: int) -> None:
        if jax.process_index() == 0:
            if task not in self._shown:
                unit = f"examples of {task} predicted"
                self._shown[task] = CountProgress(sys.stderr, total, unit, patient=True)
            self._shown[task].update(done)
            self._files.upload_in_time()


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
