"""Evaluation of a model on the tasks of a mixture: predictions, metrics, report; in training and
afterwards."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from t5jax.buckets import RunFiles
from t5jax.checkpoints import fingerprints, leaves_by_path
from t5jax.data import registry
from t5jax.data.atomic_files import write_json_file
from t5jax.data.config import DataConfig
from t5jax.data.registry.resolve import checked_tasks
from t5jax.data.registry.resolved_task import check_required
from t5jax.data.tasks.task import Task
from t5jax.decoding import DecodingConfig, Generator
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.ceiling import Ceiling, find_ceiling
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import TaskExamples, load_task_examples
from t5jax.evaluation.predictions import Predictor, predict_task
from t5jax.evaluation.report import EvaluationReport, read_evaluation_report
from t5jax.evaluation.scores import BENCHMARK_AVERAGES, score_predictions
from t5jax.evaluation.task_metrics import metrics_of
from t5jax.metrics.table import Result
from t5jax.metrics.units import UnitMetric
from t5jax.runtime import agree, owned
from t5jax.training.steps import Program
from t5jax.types import Params

_NO_EFFECT_ON_RESULTS = ("every_steps", "batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates a model on one split of every task of a mixture that has metrics."""

    data: DataConfig
    decoding: DecodingConfig
    config: EvaluationConfig
    split: str
    tasks: list[TaskExamples]

    def settings(self, program: Program, params: Params | Sequence[Params]) -> dict[str, Any]:
        """All settings that the results depend on, as JSON."""
        evaluation = dataclasses.asdict(self.config)
        for name in _NO_EFFECT_ON_RESULTS:
            del evaluation[name]
        settings = {
            "parameters": _params_fingerprint(params),
            "dtype": program.model.dtype,
            "tasks": {task.task: task.fingerprint for task in self.tasks},
            "inputs_length": self.data.inputs_length,
            "vocabulary": self.data.vocabulary.fingerprint,
            "decoding": self.decoding.to_dict(),
            "evaluation": evaluation,
        }
        return json.loads(json.dumps(settings))  # tuples become lists, as in a file

    def evaluate(
        self,
        program: Program,
        params: Params | Sequence[Params],
        step: int,
        *,
        settings: dict[str, Any] | None = None,
        directory: pathlib.Path | None = None,
        progress: Callable[[str, int, int], None] = lambda task, done, total: None,
        after_batch: Callable[[], None] = lambda: None,
        replace: bool = False,
        share: Callable[[], None] = lambda: None,
    ) -> EvaluationReport:
        """Predicts and scores all tasks. A metric that fails is a line of the report that says so
        (`EvaluationReport.failures`); with a directory it is tried again when the evaluation is.

        Args:
          program: of the plain model (`Program.without_peft`).
          params: its parameters, float32; of several models, whose logits are averaged.
          settings: `self.settings(program, params)`, if that is known already.
          directory: where predictions and results are written (the same on all hosts), and from
            where an interrupted evaluation is resumed; None: nowhere.
          progress: called after every chunk with the task, its examples done, of how many.
          after_batch: called when a batch has been computed.
          replace: an evaluation with other settings is deleted from the directory.
          share: called on every host when the first one has prepared the directory and when all
            is written: a directory that hosts do not share is to be made the same on all.

        Raises DataError when the directory holds an evaluation with other settings.
        """
        settings = settings or self.settings(program, params)
        if directory is not None:
            _prepare_directory(directory, settings, replace)
            share()
            if (finished := _finished_report(directory)) is not None:
                return finished
        predictor = self._predictor(program, params, after_batch)
        lines: list[Result] = []
        notes = [*self._notes()]
        for task in self.tasks:
            after_chunk = lambda done, task=task: progress(task.task, done, len(task.examples))
            file = directory / f"{task.task}.jsonl" if directory is not None else None
            predictions = predict_task(predictor, task, file, after_chunk)
            scores = score_predictions(task, predictions, self.config)
            lines += scores.lines
            notes += scores.notes
        ceilings = self._ceilings()
        report = EvaluationReport(
            step=step,
            split=self.split,
            settings=settings,
            lines=lines,
            notes=(*notes, *map(str, ceilings)),
            ceilings={ceiling.task: ceiling.to_dict() for ceiling in ceilings},
        )
        if directory is not None:
            if jax.process_index() == 0:
                report.write(directory)
            share()
        return report

    def metric_names(self) -> set[str] | None:
        """`task/metric` of all values, averages too; None where a metric does not declare them."""
        names = set()
        for task in self.tasks:
            if task.score_metrics or task.aux_metrics or task.output_metrics:
                return None
            for metric in task.metrics:
                declares = isinstance(metric, UnitMetric)
                own_names = getattr(metric, "names", None) if declares else None
                if own_names is None:
                    return None
                names |= {f"{task.task}/{name}" for name in own_names}
        return names | {f"{name}/average" for name in BENCHMARK_AVERAGES}

    def _predictor(
        self, program: Program, params: Params | Sequence[Params], after_batch: Callable
    ) -> Predictor:
        vocabulary = self.data.vocabulary
        generator = Generator(
            program,
            params,
            num_ids=vocabulary.vocab_size,
            batch_size=self.config.batch_size,
            after_batch=after_batch,
        )
        return Predictor(generator, vocabulary, self.decoding, self.config.ranking)

    def _ceilings(self) -> list[Ceiling]:
        """Of the tasks whose targets the vocabulary cannot all spell."""
        ranks = self.config.ranking != "never"
        found = [
            find_ceiling(task, self.data.vocabulary, ranked=ranks and task.choices is not None)
            for task in self.tasks
        ]
        return [ceiling for ceiling in found if ceiling is not None]

    def _notes(self) -> tuple[str, ...]:
        notes = [
            f"{task.task}: {task.num_truncated} of {len(task.examples)} inputs were truncated to "
            f"data.inputs_length = {self.data.inputs_length} tokens"
            for task in self.tasks
            if task.num_truncated
        ]
        notes += [
            f"{task.task}: {task.num_unlabelled} of {len(task.examples)} examples have no label: "
            "they are scored with the others, as wrong"
            for task in self.tasks
            if task.has_targets and task.num_unlabelled
        ]
        notes += [
            f"{task.task}: split {self.split!r} has no targets: predictions only"
            for task in self.tasks
            if not task.has_targets
        ]
        return tuple(notes)


def build_evaluator(
    data: DataConfig,
    decoding: DecodingConfig,
    config: EvaluationConfig,
    split: str,
    names: Sequence[str] = (),
) -> Evaluator | None:
    """Of the mixture, or of the tasks and mixtures of these names, those tasks that have metrics
    and the split; None if there are none.

    Raises DataError for files that are missing or damaged, ConfigError for unknown names, for a
    metric that cannot be called and for a ranking without choices.
    """
    candidates = _tasks_by_name(data, names) if names else checked_tasks(data)
    for task in candidates:
        if split in task.splits:
            metrics_of(task)  # checked for all tasks before anything is read
    loaded = [load_task_examples(task, data, split, config.num_examples) for task in candidates]
    tasks = [task for task in loaded if task is not None]
    if tasks and config.ranking != "never" and not any(task.choices for task in tasks):
        raise ConfigError(
            f"evaluation.ranking = {config.ranking!r}: no task of "
            f"{', '.join(names) or data.mixture} has choices to be ranked; leave it 'never'"
        )
    evaluator = Evaluator(data=data, decoding=decoding, config=config, split=split, tasks=tasks)
    return evaluator if tasks else None


def _tasks_by_name(data: DataConfig, names: Sequence[str]) -> list[Task]:
    """The tasks of these tasks and mixtures, each once."""
    tasks = [task for name in names for task in registry.definitions_of(name, data).tasks]
    check_required(tasks, data)
    return list({task.name: task for task in tasks}.values())


def evaluation_directory(
    directory: pathlib.Path,
    settings: dict[str, Any],
    fetch: Callable[[pathlib.Path], None] = lambda folder: None,
) -> pathlib.Path:
    """The directory, or one beside it where that holds an evaluation with other settings; `fetch`
    is called with each before anything is read from it."""
    fetch(directory)
    existing = _read_settings(directory)
    if existing in (None, settings):
        return directory
    beside = directory.with_name(f"{directory.name}-{_digest(settings)[:8]}")
    fetch(beside)
    return beside


@contextlib.contextmanager
def writing_evaluation(
    base: pathlib.Path,
    settings: dict[str, Any],
    files: RunFiles,
    take_over: bool,
    wait: Callable[[float], None] | None,
) -> Iterator[pathlib.Path]:
    """The directory for an evaluation with these settings, `base` or one beside it, which no other
    process writes meanwhile. `take_over`, `wait` and errors: as of `runtime.owned`."""
    while True:
        directory = evaluation_directory(base, settings, files.fetch)
        own = {"beside": True, "take_over": take_over}
        with owned(files.shown(directory), "t5jax evaluate", **own, wait=wait):
            # Who had it until now may have left an evaluation with other settings.
            if evaluation_directory(base, settings, files.fetch) == directory:
                yield directory
                return


def _read_settings(directory: pathlib.Path) -> dict[str, Any] | None:
    """Settings of the evaluation that a directory holds; all hosts must see the same."""
    file = directory / "settings.json"
    existing = json.loads(file.read_text()) if file.exists() else None
    agree(f"the settings in {file}", json.dumps(existing, sort_keys=True))
    return existing


def _prepare_directory(directory: pathlib.Path, settings: dict[str, Any], replace: bool) -> None:
    """Writes the settings. Raises DataError when the directory holds an evaluation with other
    settings, which `replace` deletes."""
    existing = _read_settings(directory)
    differing = [name for name in settings if existing and existing.get(name) != settings[name]]
    if differing and not replace:
        raise DataError(
            f"{directory} holds an evaluation with other settings ({', '.join(differing)}; see "
            "settings.json in it): delete it, or write elsewhere"
        )
    if jax.process_index() == 0 and (existing is None or differing):
        if differing:
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_json_file(directory / "settings.json", settings)
    agree(f"that {directory} is ready", "")


def _finished_report(directory: pathlib.Path) -> EvaluationReport | None:
    """The report of an evaluation that has ended, on all hosts or on none. Where a metric failed it
    has not: the predictions are there, and the metrics are tried again."""
    report = read_evaluation_report(directory)
    if report is not None and report.failures:
        report = None
    agree(f"whether {directory} is finished", str(report is not None))
    return report


def _params_fingerprint(params: Params | Sequence[Params]) -> str:
    """Of all parameters, the same on any mesh."""
    return _digest(fingerprints(leaves_by_path(params)))[:16]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
