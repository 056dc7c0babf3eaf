"""RunConfig: everything a run is, as Python; how it is read, overridden, printed and checked.

A config file defines `config() -> RunConfig`. Command-line flags `--section.field value` change its
values, never its structure. The effective config is plain text, one `section.field = value` a line,
saved with the run and in every checkpoint, and reads back into the same RunConfig.
"""

from t5jax.config.field_types import check_type
from t5jax.config.migration import migrated_text
from t5jax.config.overrides import load_config, override, read_config
from t5jax.config.run_config import EVALUATION_METRICS, RunConfig, TrainConfig, WarmStart
from t5jax.config.serialization import describe_run, from_record, from_text, to_text

__all__ = [
    "EVALUATION_METRICS",
    "RunConfig",
    "TrainConfig",
    "WarmStart",
    "check_type",
    "describe_run",
    "from_record",
    "from_text",
    "load_config",
    "migrated_text",
    "override",
    "read_config",
    "to_text",
]
