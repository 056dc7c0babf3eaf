"""`t5jax.load(WORKDIR)`: a saved run as an object, for notebooks and for the acts that answer."""

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
from t5jax.inference.text_model import best
from t5jax.model.config import differences
from t5jax.run.build import open_suite
from t5jax.run.restore import SavedRun, open_config, read_changed_config, read_config


class Member(NamedTuple):
    """One of the models that answer together."""

    workdir: str
    step: int
    fingerprint: str  # of its parameters


class LoadedRun:
    """A saved run in use: texts in, texts or log-likelihoods out.

    Attributes:
      config: the run's, with what was changed of it; `config.decoding` holds if a call says nothing
        else.
      members: checkpoint of each model, this run's first; the logits of several are averaged.
      texts: the same with everything that is known of an output.
    """

    def __init__(
        self,
        saved: SavedRun,
        members: Sequence[Member],
        params: Sequence[dict],
        *,
        batch_size: int = 32,
        after_batch: Callable[[], None] = lambda: None,
    ):
        self.config: RunConfig = saved.config
        self.program = saved.program
        self.members = tuple(members)
        self.params = tuple(params)
        self.texts = TextModel(
            saved.config, saved.program, params, batch_size=batch_size, after_batch=after_batch
        )

    @property
    def step(self) -> int | list[int]:
        """Of the checkpoint, or a list where several models answer together."""
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
          texts: a blank one is answered with nothing ("" or []).
          prefix, decoder_prefix, stop, truncate_inputs: see `TextOptions`.
          details: a `Prediction` for each text instead: scores, ids, what was cut.
          decoding: settings of `DecodingConfig` for this call: `num_beams=4`, `max_length=64` …
        """
        _refuse_one_text(texts, "texts")
        settings = changed(self.config.decoding, decoding, "decoding.")
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
            return [[output.text for output in one.outputs] for one in predictions]
        return [best(one)[0] for one in predictions]

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
        `TextScore` for each instead: that of every token."""
        _refuse_one_text(inputs, "inputs")
        _refuse_one_text(targets, "targets")
        options = TextOptions(prefix=prefix, truncate_inputs=truncate_inputs)
        scores = self.texts.score(inputs, targets, options)
        return scores if details else [one.total for one in scores]

    def evaluate(
        self,
        *tasks: str,
        split: str = "validation",
        num_examples: int | None = None,
        ranking: Ranking | None = None,
        output: str | None = None,
        **decoding: Any,
    ) -> EvaluationReport:
        """Answers and scores tasks or mixtures by name; without names, those of the run.

            print(run.evaluate("glue_sst2_v002", num_beams=4))

        Args:
          num_examples: of each task, the first ones; None: as `config.evaluation` says.
          ranking: "never", "total" or "per_token"; None: as `config.evaluation` says.
          output: folder for predictions and results, where an interrupted evaluation goes on.
          decoding: settings of `DecodingConfig` for this call.

        Returns a table (`print` shows it) whose `values` are {"task/metric": value}. Raises
        ConfigError where no task has metrics and the split.
        """
        settings = {"num_examples": num_examples, "ranking": ranking}
        settings = {name: value for name, value in settings.items() if value is not None}
        config = changed(self.config, {"evaluation": settings, "decoding": decoding})
        suite = open_suite(config, split, tasks)
        if suite is None:
            names = ", ".join(tasks) or config.data.mixture
            raise ConfigError(f"no task of {names} has metrics and a split {split!r}")
        directory = pathlib.Path(output) if output is not None else None
        step = max(member.step for member in self.members)
        return suite.evaluate(self.program, self.params, step, directory=directory)


def load(
    path: str, step: int | None = None, *, ensemble: Sequence[str] = (), batch_size: int = 32,
    **sections: Mapping[str, Any],
) -> LoadedRun:  # fmt: skip
    """The newest good checkpoint of the run in folder `path`, or that of `step`.

        run = t5jax.load("runs/quickstart", decoding={"max_length": 64})
        run.predict(["Returns the <extra_id_0> of the array."], num_beams=4)

    Args:
      ensemble: further checkpoints of the same model, `WORKDIR` or `WORKDIR@STEP`, whose logits are
        averaged with the first's.
      batch_size: texts at a time.
      sections: values of the config that differ from the run's own, by section:
        `decoding={"num_beams": 4}, model={"dtype": "float32"}, mesh={"fsdp": 8}`, and
        `data={"datasets_dir": "data"}` for the tasks that it will be evaluated on.

    Raises CheckpointError where there is no run, ConfigError for values that do not fit.
    """
    change = lambda config: changed(config, sections)

    def read(workdir: str, step: int | None) -> RunConfig:
        # Which tasks it will be asked about is not known yet.
        return read_changed_config(workdir, step, change, act="load", of_mixture=False)[0]

    return open_loaded(read, path, step, ensemble, batch_size=batch_size)


def load_with_flags(
    workdir: str, step: int | None, flags: list[str], ensemble: Sequence[str], *, act: str,
    batch_size: int, after_batch: Callable[[], None] = lambda: None,
) -> LoadedRun:  # fmt: skip
    """The same for an act: the config is changed by `--section.field VALUE`."""
    read = lambda workdir, step: read_config(workdir, step, flags, act=act)[0]
    return open_loaded(
        read, workdir, step, ensemble, batch_size=batch_size, after_batch=after_batch
    )


def open_loaded(
    read: Callable[[str, int | None], RunConfig],
    path: str,
    step: int | None,
    ensemble: Sequence[str],
    *,
    batch_size: int,
    after_batch: Callable[[], None] = lambda: None,
) -> LoadedRun:
    """`read(workdir, step)` is the config to use that checkpoint with."""
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: at least 1")
    places = [(path, step), *map(_place, ensemble)]
    configs = [read(*place) for place in places]
    for place, config in zip(places[1:], configs[1:], strict=True):
        _check_together(configs[0], config, place[0])
    runs = [
        open_config(config, workdir).restore(step)
        for config, (workdir, step) in zip(configs, places, strict=True)
    ]
    members = [
        Member(workdir, run.step, run.fingerprint)
        for (workdir, _), run in zip(places, runs, strict=True)
    ]
    params = [run.params for run in runs]
    return LoadedRun(runs[0], members, params, batch_size=batch_size, after_batch=after_batch)


def _place(text: str) -> tuple[str, int | None]:
    workdir, at, step = text.rpartition("@")
    return (workdir, int(step)) if at and step.isdecimal() else (text, None)


def _check_together(ours: RunConfig, theirs: RunConfig, workdir: str) -> None:
    if ours.data.vocabulary.fingerprint != theirs.data.vocabulary.fingerprint:
        raise ConfigError(f"ensemble: {workdir} has another vocabulary; their ids mean other texts")
    for name, one, other in differences(ours.model, theirs.model):
        raise ConfigError(
            f"ensemble: model.{name} of {workdir} is {other!r}, not {one!r}: models that decode "
            "together must be of one shape"
        )


def changed(section: Any, values: Mapping[str, Any], name: str = "") -> Any:
    """A dataclass with other values; a mapping changes values of a section within it."""
    known = [field.name for field in dataclasses.fields(section)]
    hints, new = typing.get_type_hints(type(section)), {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{name}{key}: there is no such setting; {hint}")
        before = getattr(section, key)
        inner = dataclasses.is_dataclass(before) and isinstance(value, Mapping)
        new[key] = changed(before, value, f"{name}{key}.") if inner else value
        check_type(f"{name}{key}", new[key], hints[key])
    return dataclasses.replace(section, **new)


def _refuse_one_text(texts: Sequence[str], name: str) -> None:
    if isinstance(texts, str):
        raise ConfigError(f"{name} is one text: give a list, [{texts[:20]!r}]")
