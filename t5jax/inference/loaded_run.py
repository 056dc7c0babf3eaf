"""`t5jax.load(WORKDIR)`: a saved run as a Python object that predicts, scores and evaluates."""

import contextlib
import dataclasses
import difflib
import pathlib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from t5jax.config import RunConfig, check_type
from t5jax.errors import ConfigError
from t5jax.evaluation.config import Ranking
from t5jax.evaluation.report import EvaluationReport
from t5jax.inference import Prediction, TextModel, TextOptions, TextScore
from t5jax.inference.text_model import best_output
from t5jax.model.config import architecture_differences
from t5jax.paths import local_path, run_folder
from t5jax.run.build import build_run_evaluator
from t5jax.run.restore import RestoredRun, apply_flags, open_saved_run, read_saved_config
from t5jax.runtime import owned


class EnsembleMember(NamedTuple):
    """The checkpoint of one model of an ensemble."""

    workdir: str
    step: int
    fingerprint: str  # of its parameters


class LoadedRun:
    """A saved run for inference: predicts and scores texts, evaluates tasks.

    Attributes:
      config: the run's, with the changes of `load`; `config.decoding` has the defaults of a call.
      members: checkpoint of each model, this run's first; the logits of several are averaged.
      texts: the text model, whose outputs have scores, ids and lengths.
    """

    def __init__(
        self,
        restored: RestoredRun,
        members: Sequence[EnsembleMember],
        params: Sequence[dict],
        *,
        batch_size: int = 32,
    ):
        self.config: RunConfig = restored.config
        self.program = restored.program
        self.members = tuple(members)
        self.params = tuple(params)
        self.texts = TextModel(self.config, self.program, params, batch_size=batch_size)

    @property
    def step(self) -> int | list[int]:
        """Of the checkpoint; a list for an ensemble."""
        steps = [member.step for member in self.members]
        return steps[0] if len(steps) == 1 else steps

    def predict(
        self,
        texts: Sequence[str],
        *,
        prefix: str = "",
        decoder_prefix: str = "",
        stop: Sequence[str] = (),
        truncate_inputs: int | None = None,
        details: bool = False,
        **decoding: Any,
    ) -> list[str] | list[list[str]] | list[Prediction]:
        """The output of each text, or a list of outputs where `num_outputs` > 1.

        Args:
          texts: the output of a blank one is empty ("" or []).
          prefix: see `TextOptions`, as for the next three.
          decoder_prefix: begins every output.
          stop: ends an output.
          truncate_inputs: most tokens of an input; None: never cut.
          details: a `Prediction` for each text instead: scores, ids, truncation.
          decoding: settings of `DecodingConfig` for this call: `num_beams=4`, `max_length=64` …
        """
        _refuse_one_text(texts, "texts")
        settings = replace_settings(self.config.decoding, decoding, "decoding.")
        options = TextOptions(
            prefix=prefix,
            decoder_prefix=decoder_prefix,
            stop=tuple(stop),
            truncate_inputs=truncate_inputs,
        )
        predictions = self.texts.predict(texts, settings, options)
        if details:
            return predictions
        if settings.num_outputs > 1:
            return [[output.text for output in x.outputs] for x in predictions]
        return [best_output(prediction)[0] for prediction in predictions]

    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        prefix: str = "",
        truncate_inputs: int | None = None,
        details: bool = False,
    ) -> list[float] | list[TextScore]:
        """Log-likelihood in nats of each target, EOS included, given its input; with `details` a
        `TextScore` for each instead, with the log-likelihood of every token."""
        _refuse_one_text(inputs, "inputs")
        _refuse_one_text(targets, "targets")
        options = TextOptions(prefix=prefix, truncate_inputs=truncate_inputs)
        scores = self.texts.score(inputs, targets, options)
        return scores if details else [score.total for score in scores]

    def evaluate(
        self,
        *tasks: str,
        split: str = "validation",
        num_examples: int | None = None,
        ranking: Ranking | None = None,
        output: str | None = None,
        **decoding: Any,
    ) -> EvaluationReport:
        """Evaluates tasks or mixtures by name; without names, those of the run.

            print(run.evaluate("glue_sst2_v002", num_beams=4))

        Args:
          num_examples: the first ones of each task; None: as in `config.evaluation`.
          ranking: "never", "total" or "per_token"; None: as in `config.evaluation`.
          output: folder for predictions and results, where an interrupted evaluation resumes.
          decoding: settings of `DecodingConfig` for this call.

        Returns a report (`print` shows its table) whose `values` are {"task/metric": value}, and
        `failures` {"task/metric": error} of metrics that failed. Raises ConfigError where no task
        has metrics and the split, OSError where another process is writing the folder.
        """
        settings = {"num_examples": num_examples, "ranking": ranking}
        settings = {name: value for name, value in settings.items() if value is not None}
        config = replace_settings(self.config, {"evaluation": settings, "decoding": decoding})
        evaluator = build_run_evaluator(config, split, tasks)
        if evaluator is None:
            names = ", ".join(tasks) or config.data.mixture
            raise ConfigError(f"no task of {names} has metrics and a split {split!r}")
        directory = None if output is None else pathlib.Path(local_path(output, "output"))
        step = max(member.step for member in self.members)
        with contextlib.ExitStack() as stack:
            if directory is not None:
                stack.enter_context(owned(directory, "an evaluation from Python", beside=True))
            return evaluator.evaluate(self.program, self.params, step, directory=directory)


def load(
    path: str, step: int | None = None, *, ensemble: Sequence[str] = (), batch_size: int = 32,
    **sections: Mapping[str, Any],
) -> LoadedRun:  # fmt: skip
    """Loads the newest good checkpoint of the run in folder `path`, or that of `step`.

        run = t5jax.load("runs/quickstart", decoding={"max_length": 64})
        run.predict(["Returns the <extra_id_0> of the array."], num_beams=4)

    Args:
      ensemble: further checkpoints of the same model, `WORKDIR` or `WORKDIR@STEP`, whose logits are
        averaged with the first's.
      batch_size: texts of a batch.
      sections: values of the config that differ from the run's own, by section:
        `decoding={"num_beams": 4}, model={"dtype": "float32"}, mesh={"fsdp": 8}`, and
        `data={"datasets_dir": "data"}` for the tasks to evaluate.

    Raises CheckpointError where there is no run, ConfigError for values that do not fit.
    """
    # The mixture is not checked: which tasks will be evaluated is not known yet.
    settings = {"command": "load", "of_mixture": False}
    change = lambda config: replace_settings(config, sections)
    read = lambda workdir, step: read_saved_config(workdir, step, change, **settings)[0]
    return load_ensemble(read, path, step, ensemble, batch_size=batch_size)


def load_with_flags(
    workdir: str, step: int | None, flags: list[str], ensemble: Sequence[str], *, command: str,
    batch_size: int, before_parameters: Callable[[], None] = lambda: None,
) -> LoadedRun:  # fmt: skip
    """The same for a command, whose `--section.field VALUE` flags change the config;
    `before_parameters` is called when the hosts are connected, before the parameters are read."""

    def read(workdir: str, step: int | None) -> RunConfig:
        change = apply_flags(flags, command=command, workdir=workdir)
        return read_saved_config(workdir, step, change, command=command)[0]

    return load_ensemble(
        read, workdir, step, ensemble, batch_size=batch_size, before_parameters=before_parameters
    )


def load_ensemble(
    read: Callable[[str, int | None], RunConfig],
    path: str,
    step: int | None,
    ensemble: Sequence[str],
    *,
    batch_size: int,
    before_parameters: Callable[[], None] = lambda: None,
) -> LoadedRun:
    """Loads the run in `path` and further checkpoints `WORKDIR[@STEP]` whose logits are averaged;
    `read(workdir, step)` gives the config of each. `before_parameters`: of `load_with_flags`."""
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: at least 1")
    checkpoints = [(run_folder(path, "workdir"), step), *map(_parse_checkpoint, ensemble)]
    configs = [read(*checkpoint) for checkpoint in checkpoints]
    for (workdir, _), config in zip(checkpoints[1:], configs[1:], strict=True):
        _check_compatible(configs[0], config, workdir)
    saved = [
        open_saved_run(config, workdir)
        for config, (workdir, _) in zip(configs, checkpoints, strict=True)
    ]
    before_parameters()
    runs = [run.restore(step) for run, (_, step) in zip(saved, checkpoints, strict=True)]
    members = [
        EnsembleMember(workdir, run.step, run.fingerprint)
        for (workdir, _), run in zip(checkpoints, runs, strict=True)
    ]
    return LoadedRun(runs[0], members, [run.params for run in runs], batch_size=batch_size)


def _parse_checkpoint(text: str) -> tuple[str, int | None]:
    workdir, at, step = text.rpartition("@")
    named = bool(at) and step.isdecimal()
    folder = run_folder(workdir if named else text, "ensemble")
    return folder, int(step) if named else None


def _check_compatible(first: RunConfig, other: RunConfig, workdir: str) -> None:
    if first.data.vocabulary.fingerprint != other.data.vocabulary.fingerprint:
        raise ConfigError(f"ensemble: {workdir} has another vocabulary; their ids mean other texts")
    for name, expected, value in architecture_differences(first.model, other.model):
        raise ConfigError(
            f"ensemble: model.{name} of {workdir} is {value!r}, not {expected!r}: models of an "
            "ensemble must have the same shape"
        )


def replace_settings(section: Any, values: Mapping[str, Any], name: str = "") -> Any:
    """The dataclass with other values, checked; a mapping replaces values of a nested section."""
    known = [field.name for field in dataclasses.fields(section)]
    hints, new = typing.get_type_hints(type(section)), {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{name}{key}: there is no such setting; {hint}")
        before = getattr(section, key)
        inner = dataclasses.is_dataclass(before) and isinstance(value, Mapping)
        new[key] = replace_settings(before, value, f"{name}{key}.") if inner else value
        check_type(f"{name}{key}", new[key], hints[key])
    return dataclasses.replace(section, **new)


def _refuse_one_text(texts: Sequence[str], name: str) -> None:
    if isinstance(texts, str):
        raise ConfigError(f"{name} is one text: give a list, [{texts[:20]!r}]")
