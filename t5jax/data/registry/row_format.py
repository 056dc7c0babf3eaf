"""Row format: which feature converter makes batches for an architecture, and how long rows are.

Architectures are named as in the model's config, which this room does not know.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.objectives import Denoising, Objective, lengths_of
from t5jax.data.registry.resolved_task import ResolvedTask, find_targets_length
from t5jax.errors import ConfigError
from t5jax.types import PAD_ID

_ONE_ROW = ("decoder_only", "prefix_lm")  # read inputs and targets one behind the other
_MASKING = ("mask", "random_or_mask")  # codes of inputs in which hidden tokens keep their places


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RowFormat:
    """A feature converter (of `pipeline.converters`) by name, with its settings and lengths.

    Inputs and targets of an example are cut to their lengths; where a decoder reads both one behind
    the other, they fill rows of `joined_length` together. Rows are padded with the vocabulary's
    `pad_id`; the decoder first reads the model's `start_id`.
    """

    converter: str
    inputs_length: int
    targets_length: int
    joined_length: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pad_id: int = PAD_ID
    start_id: int = PAD_ID

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the encoder's and the decoder's rows, 0 where there is none."""
        if self.joined_length is not None:
            return 0, self.joined_length
        encoder = 0 if self.converter == "lm" else self.inputs_length
        decoder = 0 if self.converter == "encoder" else self.targets_length
        return encoder, decoder


def row_format(
    architecture: str | None,
    tasks: Sequence[ResolvedTask],
    data: DataConfig,
    start_id: int = PAD_ID,
) -> RowFormat:
    """The row format of the tasks for a model of this architecture (None: for no model, inputs and
    targets apart).

    Raises ConfigError for an objective that such a model cannot learn, and for a setting that has
    no effect on it.
    """
    targets_length = find_targets_length(tasks, data)
    converter = "encoder_decoder"
    if architecture is not None:
        converter = find_converter(architecture, tasks, data)
    settings, joined_length = {}, None
    if converter == "prefix_lm":
        settings = {"loss_on_targets_only": data.loss_on_targets_only}
        joined_length = max(_joined_length(task, data, targets_length) for task in tasks)
    if converter == "encoder":
        settings = {"mask_id": data.vocabulary.sentinel_id(0)}
    return RowFormat(
        converter=converter,
        inputs_length=data.inputs_length,
        targets_length=targets_length,
        joined_length=joined_length,
        settings=settings,
        pad_id=data.vocabulary.pad_id,
        start_id=start_id,
    )


def find_converter(architecture: str, tasks: Sequence[ResolvedTask], data: DataConfig) -> str:
    """The name of the converter; not even the vocabulary's file is read. Raises as `row_format`."""
    targets_length = find_targets_length(tasks, data)
    without_inputs = [task for task in tasks if not _has_inputs(task, data, targets_length)]
    if without_inputs and architecture != "decoder_only":
        raise ConfigError(_needs_inputs(without_inputs[0], architecture))
    one_row = architecture in _ONE_ROW and len(without_inputs) < len(tasks)
    if not one_row and not data.loss_on_targets_only:
        raise ConfigError(
            "data.loss_on_targets_only = False has no effect: it is for a model that reads inputs "
            f"and targets in one row ({', '.join(_ONE_ROW)}), "
            + ("and there are no inputs" if without_inputs else f"not for {architecture}")
            + "; leave it out"
        )
    if architecture == "encoder_only":
        _check_masking(tasks, data, targets_length)
        return "encoder"
    if one_row:
        return "prefix_lm"
    return "lm" if architecture == "decoder_only" else "encoder_decoder"


def _has_inputs(task: ResolvedTask, data: DataConfig, targets_length: int) -> bool:
    if task.objective is None:
        return task.has_inputs
    return bool(lengths_of(task.objective, data.inputs_length, targets_length).inputs)


def _needs_inputs(task: ResolvedTask, architecture: str) -> str:
    """The message for a task without inputs and a model that reads some."""
    if task.objective is None:
        return (
            f"task {task.name} has targets alone, as a language model reads text, and "
            f"model.architecture = {architecture!r} needs inputs: take model.architecture = "
            "'decoder_only', or give the task steps that make inputs of its text (such as "
            "t5jax.data.seqio_bridge.span_corruption.SpanCorruptionPreprocessor)"
        )
    return (
        f"objective {task.objective} of {task.name} has no inputs, "
        f"model.architecture = {architecture!r} needs some: take prefix_lm, or another "
        "objective that has, or model.architecture = 'decoder_only'"
    )


def _joined_length(task: ResolvedTask, data: DataConfig, targets_length: int) -> int:
    """The most tokens that inputs and targets of an example have together."""
    prefix = len(task.prefix_ids)
    if task.objective is None:
        return data.inputs_length * task.has_inputs + targets_length
    lengths = lengths_of(task.objective, data.inputs_length - prefix, targets_length)
    if not lengths.inputs:
        return targets_length
    if lengths.joined is None:
        return data.inputs_length + targets_length
    return prefix + lengths.joined


def _check_masking(tasks: Sequence[ResolvedTask], data: DataConfig, targets_length: int) -> None:
    """Raises ConfigError unless the inputs of all tasks are their targets with tokens masked."""
    for task in tasks:
        objective = task.objective
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
