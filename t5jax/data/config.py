"""The data section of a run: which task or mixture, from which files, with which vocabulary and
lengths."""

import dataclasses
import os

from t5jax.data import objectives
from t5jax.data.records import MAX_RECORD_BYTES, BadRecordPolicy
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
)
from t5jax.errors import ConfigError
from t5jax.paths import expand, written_path


@dataclasses.dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a run reads. Lengths are in tokens and count EOS."""

    # A task or mixture of `t5jax tasks`, or one that a module of `modules` registers. None, as in a
    # converted model's run: no data yet; what trains or evaluates asks for a name.
    mixture: str | None
    modules: tuple[str, ...] = ()  # Python modules (dotted names) that register tasks
    train_files: tuple[str, ...] = ()  # paths, glob patterns or URLs (gs://, s3://)
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    text_column: str = "text"  # of JSON lines, TSV and parquet files
    tfds_data_dir: str | None = None  # None: the variable TFDS_DATA_DIR, or TFDS's default
    datasets_dir: str | None = None  # GLUE, SuperGLUE, SQuAD, ... as local files; None: TFDS
    huggingface_dataset: str | None = None  # name on the hub, or a folder
    vocabulary: SentencePieceVocabulary | ByteVocabulary | HuggingFaceVocabulary
    objective: str | None = None  # instead of the text tasks' own: "prefix_lm", or with arguments
    inputs_length: int = 512
    targets_length: int | None = None  # None: what the objective makes of inputs_length
    pack: bool = True  # several examples in a row, where a task has examples
    loss_on_targets_only: bool = True  # of a model that reads inputs and targets in one row
    max_text_tokens: int | None = None  # of each text task: its first ones, repeated exactly
    # Where the tokenised text is kept, a folder or gs://BUCKET/FOLDER; None: it is tokenised while
    # training reads.
    cache_dir: str | None
    on_bad_record: str = "error"  # or "skip": leave it out and count it
    max_bad_fraction: float = 0.001  # of a file's records that may be left out
    max_record_bytes: int = MAX_RECORD_BYTES  # of a line, document or record of your files
    blank_lines: str = "error"  # in files with a record a line; "skip": leave them out
    empty_files: str = "error"  # files without a record; "skip": leave them out
    max_unknown_share: float = 0.05  # of a feature's characters that the vocabulary cannot spell
    seed: int = 0  # of the order of the data and of the noise

    def __post_init__(self) -> None:
        self.cache_dir = expand(self.cache_dir, "data.cache_dir")

    def check(self) -> None:
        """Raises ConfigError for a value that is out of range, whatever is read with it."""
        for name in ("train_files", "validation_files", "test_files", "modules"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"data.{name}={getattr(self, name)!r}: a tuple of strings is expected"
                )
        if self.cache_dir is not None and not self.cache_dir:
            raise ConfigError(
                "data.cache_dir is empty: name a folder for the tokenised text, or None to "
                "tokenise while training reads"
            )
        if self.cache_dir is not None and not os.path.isdir(self.cache_dir):
            written_path(self.cache_dir, "data.cache_dir")
        if self.seed < 0:
            raise ConfigError(f"data.seed={self.seed}: give 0 or more")
        for name in ("inputs_length", "targets_length", "max_text_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"data.{name}={value}: give 1 or more")
        if not 0.0 <= self.max_unknown_share <= 1.0:
            raise ConfigError(
                f"data.max_unknown_share={self.max_unknown_share}: give a share from 0 to 1"
            )
        BadRecordPolicy(policy=self.on_bad_record, max_fraction=self.max_bad_fraction)
        if self.objective is not None:
            objectives.parse_objective(self.objective)
