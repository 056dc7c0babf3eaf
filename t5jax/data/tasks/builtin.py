"""The tasks that t5jax brings: one table for the token cache, for seqio and for the checks of a
config.

Nothing here imports TensorFlow or seqio.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from t5jax.data.objectives import SpanCorruption
from t5jax.data.sources import C4Tfds, Docstrings, JsonLines, Parquet, Source, TextFiles
from t5jax.data.token_store import NAME_RULE, can_name_directory
from t5jax.errors import ConfigError

if TYPE_CHECKING:
    from t5jax.data.config import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuiltinTask:
    """A task's source, made from the fields of the data section that it reads, and its
    objective."""

    name: str
    description: str
    source: Callable[["DataConfig"], Source]
    objective: SpanCorruption = dataclasses.field(default_factory=SpanCorruption)
    settings: tuple[str, ...] = ()  # fields of DataConfig that the source reads
    required: tuple[str, ...] = ()  # those of them that have no usable default
    splits: tuple[str, ...] = ("train", "validation")


_FILES = ("train_files", "validation_files")

BUILTIN_TASKS = {
    task.name: task
    for task in (
        BuiltinTask(
            name="c4_v220_span_corruption",
            description="C4 (en) as TensorFlow Datasets prepared it",
            source=lambda data: C4Tfds(data_dir=data.tfds_data_dir),
            settings=("tfds_data_dir",),
        ),
        BuiltinTask(
            name="c4_json_span_corruption",
            description="C4 as AllenAI's JSON lines (c4-train.*.json.gz)",
            source=lambda data: JsonLines(
                train_files=data.train_files, validation_files=data.validation_files
            ),
            settings=_FILES,
            required=("train_files",),
        ),
        BuiltinTask(
            name="text_span_corruption",
            description="your .txt(.gz) files, documents between blank lines",
            source=lambda data: TextFiles(
                train_files=data.train_files, validation_files=data.validation_files
            ),
            settings=_FILES,
            required=("train_files",),
        ),
        BuiltinTask(
            name="jsonl_span_corruption",
            description="your .json(l)(.gz) files, one object a line",
            source=lambda data: JsonLines(
                train_files=data.train_files,
                validation_files=data.validation_files,
                text_column=data.text_column,
            ),
            settings=(*_FILES, "text_column"),
            required=("train_files",),
        ),
        BuiltinTask(
            name="parquet_span_corruption",
            description="your parquet files",
            source=lambda data: Parquet(
                train_files=data.train_files,
                validation_files=data.validation_files,
                text_column=data.text_column,
            ),
            settings=(*_FILES, "text_column"),
            required=("train_files",),
        ),
        BuiltinTask(
            name="docstrings_span_corruption",
            description="documentation strings of the installed Python packages; no download",
            source=lambda data: Docstrings(),
        ),
    )
}


def check_task_name(name: str) -> None:
    """Raises ConfigError for a name that cannot be a folder's everywhere."""
    if not can_name_directory(name):
        raise ConfigError(f"task name {name!r}: {NAME_RULE}")
