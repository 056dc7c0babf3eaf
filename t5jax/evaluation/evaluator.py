"""All that a run is evaluated on by answering: the same in training and afterwards."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax

from t5jax.checkpoints import fingerprints, leaves_by_path
from t5jax.data import registry
from t5jax.data.atomic_files import write_json
from t5jax.data.config import DataConfig, tasks_of
from t5jax.data.tasks.task import Task
from t5jax.decoding import DecodingConfig, Generator
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import TaskQuestions, read_questions
from t5jax.evaluation.predictions import Answerer, answer_all
from t5jax.evaluation.report import Report, read_report
from t5jax.evaluation.scores import AVERAGES, score_answers
from t5jax.metrics.sums import SumMetric
from t5jax.metrics.table import Result
from t5jax.runtime import agree
from t5jax.training.program import Program

Params = dict | Sequence[dict]
_WITHOUT_EFFECT = ("every_steps", "batch_size")  # on the results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """The questions of every task of a run's mixture that has metrics, of one split."""

    data: DataConfig
    decoding: DecodingConfig
    config: EvaluationConfig
    split: str
    tasks: list[TaskQuestions]

    def settings(self, program: Program, params: Params) -> dict[str, Any]:
        """Whatever decides the results, as JSON."""
        evaluation = dataclasses.asdict(self.config)
        for name in _WITHOUT_EFFECT:
            del evaluation[name]
        settings = {
            "parameters": _fingerprint(params),
            "dtype": program.model.dtype,
            "tasks": {task.task: task.fingerprint for task in self.tasks},
            "inputs_length": self.data.inputs_length,
            "vocabulary": self.data.vocabulary.fingerprint,
            "decoding": dataclasses.asdict(self.decoding),
            "evaluation": evaluation,
        }
        return json.loads(json.dumps(settings))  # tuples become lists, as in a file

    def evaluate(
        self,
        program: Program,
        params: Params,
        step: int,
        *,
        settings: dict[str, Any] | None = None,
        directory: pathlib.Path | None = None,
        progress: Callable[[str, int, int], None] = lambda task, done, total: None,
        after_batch: Callable[[], None] = lambda: None,
        replace: bool = False,
    ) -> Report:
        """Answers and scores all tasks.

        Args:
          program: of the plain model (`Program.plain`).
          params: its parameters, float32; of several models, whose logits are averaged.
          settings: `self.settings(program, params)`, if that is known already.
          directory: where predictions and results are kept (on all hosts the same), and found if
            this was interrupted; None: nowhere.
          progress: told of every chunk of answers: task, questions answered, of how many.
          after_batch: called when a batch has been computed.
          replace: an evaluation of something else is deleted from the directory.

        Raises DataError when the directory holds an evaluation of something else.
        """
        settings = settings or self.settings(program, params)
        if directory is not None:
            _claim(directory, settings, replace)
            finished = read_report(directory)
            agree(f"whether {directory} is finished", str(finished is not None))
            if finished is not None:
                return finished
        answerer = self._answerer(program, params, after_batch)
        lines: list[Result] = []
        for task in self.tasks:
            told = lambda done, task=task: progress(task.task, done, len(task.questions))
            file = directory / f"{task.task}.jsonl" if directory is not None else None
            answers = answer_all(answerer, task, file, told)
            lines += score_answers(task, answers, self.config)
        report = Report(
            step=step, split=self.split, settings=settings, lines=lines, notes=self._notes()
        )
        if directory is not None and jax.process_index() == 0:
            report.write(directory)
        return report

    def metric_names(self) -> set[str] | None:
        """`task/metric` of all values, averages too; None where a metric does not say its names."""
        metrics = [(task, metric) for task in self.tasks for metric in task.metrics]
        if any(task.score_metrics for task in self.tasks):
            return None
        names = set()
        for task, metric in metrics:
            if not isinstance(metric, SumMetric):
                return None
            names |= {f"{task.task}/{name}" for name in metric.names}
        return names | {f"{name}/average" for name in AVERAGES}

    def _answerer(self, program: Program, params: Params, after_batch: Callable) -> Answerer:
        vocabulary = self.data.vocabulary
        generator = Generator(
            program,
            params,
            num_ids=vocabulary.vocab_size,
            batch_size=self.config.batch_size,
            after_batch=after_batch,
        )
        return Answerer(generator, vocabulary, self.decoding, self.config.ranking)

    def _notes(self) -> tuple[str, ...]:
        notes = [
            f"{task.task}: {task.num_cut} of {len(task.questions)} inputs were cut to "
            f"data.inputs_length = {self.data.inputs_length} tokens"
            for task in self.tasks
            if task.num_cut
        ]
        notes += [
            f"{task.task}: split {self.split!r} has no targets: predictions only"
            for task in self.tasks
            if not task.has_targets
        ]
        return tuple(notes)


def open_suite(
    data: DataConfig,
    decoding: DecodingConfig,
    config: EvaluationConfig,
    split: str,
    names: Sequence[str] = (),
) -> Suite | None:
    """Of the mixture, or of the tasks and mixtures of these names, those tasks that have metrics
    and the split; None if there are none.

    Raises DataError for files that are missing or damaged, ConfigError for unknown names and for a
    ranking without choices.
    """
    asked = _tasks_named(data, names) if names else tasks_of(data)
    found = [read_questions(task, data, split, config.num_examples) for task in asked]
    tasks = [task for task in found if task is not None]
    if tasks and config.ranking != "never" and not any(task.choices for task in tasks):
        raise ConfigError(
            f"evaluation.ranking = {config.ranking!r}: no task of "
            f"{', '.join(names) or data.mixture} has choices to be ranked; leave it 'never'"
        )
    suite = Suite(data=data, decoding=decoding, config=config, split=split, tasks=tasks)
    return suite if tasks else None


def _tasks_named(data: DataConfig, names: Sequence[str]) -> list[Task]:
    """Those of tasks and mixtures, each once."""
    tasks = [task for name in names for task in registry.tasks_of(name, data)]
    data.check_required(tasks)
    return list({task.name: task for task in tasks}.values())


def place_for(directory: pathlib.Path, settings: dict[str, Any]) -> pathlib.Path:
    """The directory, or one beside it where that holds an evaluation with other settings."""
    there = _settings_in(directory)
    if there in (None, settings):
        return directory
    return directory.with_name(f"{directory.name}-{_digest(settings)[:8]}")


def _settings_in(directory: pathlib.Path) -> dict[str, Any] | None:
    """Those of the evaluation that a directory holds, as all hosts see it."""
    file = directory / "settings.json"
    there = json.loads(file.read_text()) if file.exists() else None
    agree(f"the settings in {file}", json.dumps(there, sort_keys=True))
    return there


def _claim(directory: pathlib.Path, settings: dict[str, Any], replace: bool) -> None:
    """Raises DataError when the directory belongs to an evaluation with other settings, which
    `replace` deletes."""
    there = _settings_in(directory)
    differing = [name for name in settings if there and there.get(name) != settings[name]]
    if differing and not replace:
        raise DataError(
            f"{directory} holds an evaluation with other settings ({', '.join(differing)}; see "
            "settings.json in it): delete it, or write elsewhere"
        )
    if jax.process_index() == 0 and (there is None or differing):
        if differing:
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "settings.json", settings)
    agree(f"that {directory} is ready", "")


def _fingerprint(params: Params) -> str:
    """Of all parameters, the same on any mesh."""
    return _digest(fingerprints(leaves_by_path(params)))[:16]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
