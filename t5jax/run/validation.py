"""How good a run is while it trains: losses of its splits, and its tasks answered and scored."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable

from t5jax.buckets import run_files
from t5jax.config import RunConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.evaluation.evaluator import Evaluator
from t5jax.evaluation.loss import SplitLosses, add_loss_sums, loss_metrics
from t5jax.evaluation.report import EvaluationReport
from t5jax.runtime import LeaseHeld, agree, owned, share_folder
from t5jax.tracking import Tracker
from t5jax.training.steps import Program
from t5jax.types import Params

SPLIT = "validation"


@dataclasses.dataclass
class Validation:
    """What a run is evaluated on, opened before it begins."""

    config: RunConfig
    loaders: dict[str, Loader]  # by task, for the losses; empty: none are taken
    evaluator: Evaluator | None  # of tasks that are answered

    def __post_init__(self) -> None:
        num_rows = self.config.train.num_eval_rows
        self._splits = {name: SplitLosses(x, num_rows) for name, x in self.loaders.items()}
        self._last_report: EvaluationReport | None = None

    def check(self) -> None:
        """Raises DataError naming the metrics that failed in the last evaluation; called by every
        host when the run has ended."""
        if self._last_report is not None:
            agree("which metrics failed", ", ".join(self._last_report.failures))
            self._last_report.check()

    def due(self, step: int) -> bool:
        """Whether anything is to be evaluated after `step` steps."""
        return self._losses_due(step) or self._answers_due(step)

    def evaluate(
        self,
        step: int,
        program: Program,
        params: Params,
        tracker: Tracker,
        after_batch: Callable[[], None],
    ) -> dict[str, float]:
        """Evaluates what is due, and reports it; `validation/...` -> value.

        `params` are those of the run, with whatever fine-tuning adds to them; `after_batch` is
        called when a batch has been computed.
        """
        found: dict[str, float] = {}
        if self._losses_due(step):
            found |= self._losses(step, program, params, tracker, after_batch)
        if self._answers_due(step):
            found |= self._answers(step, program, params, tracker, after_batch)
        return {f"{SPLIT}/{name}": value for name, value in found.items()}

    def _losses_due(self, step: int) -> bool:
        return bool(self.loaders) and self._falls_on(step, self.config.train.eval_every_steps)

    def _answers_due(self, step: int) -> bool:
        return self.evaluator is not None and self._falls_on(
            step, self.config.evaluation.every_steps
        )

    def _falls_on(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.train.num_train_steps

    def _losses(self, step, program, params, tracker, after_batch) -> dict[str, float]:
        """Every task's split on its own, and all of them together."""
        sums, metrics = [], {}
        for name, split in self._splits.items():
            sums.append(split.sums(program, params, after_batch))
            metrics = split.metrics(sums[-1])
            if len(self._splits) > 1:
                tracker.evaluation(step, f"{SPLIT}/{name}", metrics)
        if len(self._splits) > 1:
            metrics = loss_metrics(add_loss_sums(sums))
        tracker.evaluation(step, SPLIT, metrics)
        return metrics

    def _answers(self, step, program, params, tracker, after_batch) -> dict[str, float]:
        """The metrics of every task; predictions are kept in WORKDIR/evaluations."""
        assert self.evaluator is not None
        files = run_files(self.config.workdir)
        folder = files.folder / "evaluations" / SPLIT / str(step)
        with contextlib.ExitStack() as stack:
            directory: pathlib.Path | None = folder
            try:
                stack.enter_context(owned(files.shown(folder), "t5jax train", beside=True))
                files.fetch(folder)
            except LeaseHeld as held:  # `t5jax evaluate`; training goes on
                directory = None
                reason = f"{held.filename}: {held.strerror}"
                tracker.event(step, "predictions_not_kept", reason=reason)
            report = self.evaluator.evaluate(
                program.without_peft,
                program.merge(params),
                step,
                directory=directory,
                after_batch=after_batch,
                replace=True,
                share=lambda: share_folder(files, folder),
            )
        self._last_report = report
        for name, error in report.failures.items():
            tracker.event(step, "metric_failed", metric=f"{SPLIT}/{name}", error=error)
        by_task: dict[str, dict[str, float]] = {}
        for name, value in report.values.items():
            task, _, metric = name.rpartition("/")
            by_task.setdefault(task, {})[metric] = value
        for task, metrics in by_task.items():
            tracker.evaluation(step, f"{SPLIT}/{task}", metrics)
        best = self.config.checkpoints.best_metric.removeprefix(f"{SPLIT}/")
        if report.failures and "/" in best:  # of a task: it may be one that failed
            return {best: math.nan, **report.values}  # NaN is saved, and is never the best
        return report.values
