"""Checkpoints: asynchronous saving, retention policies, verified restore.

The only room that knows Orbax. One step is one directory with two items: `state`, the arrays as a
nested dict of their paths (`params/encoder/...`, `opt_state/0/...`), and `record`, what `record.py`
describes. Orbax makes a step appear in one piece or not at all; that what is in it is still what
was saved is ours to check, with fingerprints.
"""

from t5jax.checkpoints.blocks import BLOCK_BYTES, BlockArray, Region, full_region
from t5jax.checkpoints.fingerprint import fingerprints, leaves_by_path
from t5jax.checkpoints.path_kind import explain, kind_of
from t5jax.checkpoints.record import (
    NoUsableCheckpoint,
    Record,
    array_differences,
    checkpoint_directory,
    committed_steps,
    latest_record,
    listed,
    read_record,
)
from t5jax.checkpoints.restoring import Restored, nested, restore_leaves, restore_params
from t5jax.checkpoints.retention import CheckpointConfig
from t5jax.checkpoints.saving import Checkpoints, CheckpointWriteError
from t5jax.checkpoints.streaming import StoredStep, open_step, save_streamed

__all__ = [
    "BLOCK_BYTES",
    "BlockArray",
    "CheckpointConfig",
    "CheckpointWriteError",
    "Checkpoints",
    "NoUsableCheckpoint",
    "Record",
    "Region",
    "Restored",
    "StoredStep",
    "array_differences",
    "checkpoint_directory",
    "committed_steps",
    "explain",
    "fingerprints",
    "full_region",
    "kind_of",
    "latest_record",
    "leaves_by_path",
    "listed",
    "nested",
    "open_step",
    "read_record",
    "restore_leaves",
    "restore_params",
    "save_streamed",
]
