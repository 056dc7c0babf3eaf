"""What a model's architecture asks of a run's rows: which converter, how long its rows, and which
objectives make sense.

Architectures are named as in the model's config, which this room does not know.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from t5jax.data.objectives import Denoising, Objective
from t5jax.data.pipeline.converters import CONVERTERS, Batch, Features, Shapes
from t5jax.data.tasks.task import Described
from t5jax.errors import ConfigError

if TYPE_CHECKING:
    from t5jax.data.config import DataConfig

_ONE_ROW = ("decoder_only", "prefix_lm")  # read inputs and targets one behind the other
_MASKING = ("mask", "random_or_mask")  # codes of inputs in which hidden tokens keep their places


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """A converter with the settings and lengths of a run.

    Inputs and targets of an example are cut to their lengths; where a decoder reads both one behind
    the other, they fill rows of `joined_length` together.
    """

    converter: str  # of CONVERTERS
    inputs_length: int
    targets_length: int
    joined_length: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, features: Features) -> Batch:
        length = {} if self.joined_length is None else {"length": self.joined_length}
        return CONVERTERS[self.converter].convert(features, **self.settings, **length)

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the encoder's and the decoder's rows, 0 where there is none."""
        if self.joined_length is not None:
            return 0, self.joined_length
        return CONVERTERS[self.converter].lengths(self.inputs_length, self.targets_length)

    def shapes(self, *, packed: bool) -> Shapes:
        """The shape of every array of a batch, without its first dimension, the rows."""
        return CONVERTERS[self.converter].shapes(
            self.inputs_length,
            self.targets_length,
            joined_length=self.joined_length,
            packed=packed,
        )


def converter_for(architecture: str, tasks: Sequence[Described], data: "DataConfig") -> str:
    """The converter (of CONVERTERS) that makes batches of the tasks for a model of this
    architecture; no file is read.

    Raises ConfigError for an objective that such a model cannot learn, and for a setting that has
    no effect on it.
    """
    T = data.targets_length_for(tasks)
    objectives = {task.name: data.objective_for(task) for task in tasks}
    without_inputs = [
        name
        for name, objective in objectives.items()
        if objective is not None and not objective.lengths(data.inputs_length, T).inputs
    ]
    if without_inputs and architecture != "decoder_only":
        name = without_inputs[0]
        raise ConfigError(
            f"objective {objectives[name]} of {name} has no inputs, model.architecture = "
            f"{architecture!r} needs some: take prefix_lm, or another objective that has, or "
            "model.architecture = 'decoder_only'"
        )
    one_row = architecture in _ONE_ROW and len(without_inputs) < len(tasks)
    if not one_row and not data.loss_on_targets_only:
        raise ConfigError(
            "data.loss_on_targets_only = False has no effect: it is for a model that reads inputs "
            f"and targets in one row ({', '.join(_ONE_ROW)}), "
            + ("and there are no inputs" if without_inputs else f"not for {architecture}")
            + "; leave it out"
        )
    if architecture == "encoder_only":
        _check_masking(tasks, objectives, data, T)
        return "encoder"
    if one_row:
        return "prefix_lm"
    return "lm" if architecture == "decoder_only" else "encoder_decoder"


def conversion_for(architecture: str, tasks: Sequence[Described], data: "DataConfig") -> Conversion:
    """How the rows of the tasks become batches of such a model. Raises as `converter_for`."""
    converter = converter_for(architecture, tasks, data)
    T = data.targets_length_for(tasks)
    settings, joined_length = {}, None
    if converter == "prefix_lm":
        settings = {"loss_on_targets_only": data.loss_on_targets_only}
        joined_length = max(_joined_length(task, data, T) for task in tasks)
    if converter == "encoder":
        settings = {"mask_id": data.vocabulary.sentinel_id(0)}
    return Conversion(
        converter=converter,
        inputs_length=data.inputs_length,
        targets_length=T,
        joined_length=joined_length,
        settings=settings,
    )


def _joined_length(task: Described, data: "DataConfig", targets_length: int) -> int:
    """The most tokens that inputs and targets of an example have together."""
    objective, prefix = data.objective_for(task), len(data.prefix_ids(task))
    if objective is None:
        return data.inputs_length + targets_length
    found = objective.lengths(data.inputs_length - prefix, targets_length)
    if not found.inputs:
        return targets_length
    return data.inputs_length + targets_length if found.joined is None else prefix + found.joined


def _check_masking(
    tasks: Sequence[Described],
    objectives: Mapping[str, Objective | None],
    data: "DataConfig",
    targets_length: int,
) -> None:
    """Raises ConfigError unless the inputs of all tasks are their targets with tokens masked."""
    for task in tasks:
        objective = objectives[task.name]
        if not _masks(objective):
            what = "has examples of its own" if objective is None else f"has objective {objective}"
            raise ConfigError(
                f"{task.name} {what}, and model.architecture = 'encoder_only' predicts masked "
                "tokens in their places: take data.objective = 'bert_style' or 'mass_style' on a "
                "task of plain text"
            )
        if task.prefix:
            raise ConfigError(
                f"{task.name} puts {task.prefix!r} before its inputs, which then are not aligned "
                "with the targets of model.architecture = 'encoder_only': take another task"
            )
    if targets_length != data.inputs_length:
        raise ConfigError(
            f"data.targets_length = {targets_length}, data.inputs_length = {data.inputs_length}: "
            "the inputs and targets of model.architecture = 'encoder_only' are aligned; leave "
            "data.targets_length out"
        )


def _masks(objective: Objective | None) -> bool:
    return (
        isinstance(objective, Denoising)
        and objective.inputs_code in _MASKING
        and objective.targets_code == "full_text"
    )
