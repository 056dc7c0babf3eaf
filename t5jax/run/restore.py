"""A saved run opened for evaluation, prediction, export and merging: config, then parameters."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from etils import epath

from t5jax import runtime
from t5jax.buckets import check_readable
from t5jax.checkpoints import Record, checkpoint_directory, explain, read_record, restore_params
from t5jax.config import RunConfig, from_record, override
from t5jax.errors import CheckpointError, ConfigError
from t5jax.run.auto import local_machine, resolve_auto
from t5jax.run.build import build_program
from t5jax.training.steps import Program
from t5jax.types import Params

ChangeConfig = Callable[[RunConfig], RunConfig]


class RestoredRun(NamedTuple):
    """A saved run with the parameters of one checkpoint."""

    config: RunConfig
    program: Program  # of the plain model: adapters stay, LoRA's factors are merged
    params: Params  # float32, laid out over the mesh
    step: int
    fingerprint: str  # of the saved parameters: the same on any disk


class SavedRun(NamedTuple):
    """A saved run of which no parameters have been read yet."""

    config: RunConfig
    program: Program  # as it was trained
    directory: epath.Path  # of its checkpoints

    def restore(self, step: int | None) -> RestoredRun:
        """The verified parameters of a step, or of the newest good one."""
        restored = restore_params(self.directory, self.program.abstract_state.params, step)
        params = self.program.merge(restored.state)
        fingerprint = _fingerprint(restored.fingerprints)
        program = self.program.without_peft
        return RestoredRun(self.config, program, params, restored.step, fingerprint)


def saved_checkpoints(workdir: str) -> epath.Path:
    """The folder of a saved run's checkpoints. Raises CheckpointError where the workdir has
    none, DataError for a bucket that cannot be read."""
    directory = checkpoint_directory(workdir)
    check_readable(directory)
    if not directory.is_dir():
        raise CheckpointError(explain(workdir, "give the workdir of a run"))
    return directory


def apply_flags(flags: list[str], *, command: str, workdir: str) -> ChangeConfig:
    """`--section.field VALUE` flags as a change of a saved config."""
    return lambda config: override(config, flags, program=f"t5jax {command} {workdir}")


def read_saved_config(
    workdir: str, step: int | None, change: ChangeConfig, *, command: str, of_mixture: bool = True
) -> tuple[RunConfig, Record]:
    """The config of a run's newest checkpoint, or of `step`, changed and checked; and its record.

    Without `of_mixture`, settings of the data are about other tasks than the run's.

    Raises CheckpointError where there is no checkpoint, ConfigError for what does not fit and for a
    vocabulary that is not the one of the checkpoint.
    """
    record = read_record(saved_checkpoints(workdir), step)
    config = from_record(record.content, workdir)
    if config.model.dtype == "auto":
        fields = record.content.get("auto", {}).get("fields", {})
        config.model.dtype = fields.get("model.dtype", "auto")
    trained_in = config.workdir
    config = change(config)
    if config.workdir != trained_in:
        raise ConfigError(
            f"--workdir {config.workdir} has no effect here: `t5jax {command} WORKDIR` reads the "
            f"checkpoints of {workdir}; give the other run in its place"
        )
    config.check(of_mixture=of_mixture)
    if record.content["vocabulary"] != config.data.vocabulary.fingerprint:
        raise ConfigError(
            f"data.vocabulary = {config.data.vocabulary} is not the one that {workdir} was trained "
            "with (the file has changed since): name the original with --data.vocabulary.path"
        )
    return config, record


def open_saved_run(config: RunConfig, workdir: str) -> SavedRun:
    """The run of a config that `read_saved_config` gave. Uses devices."""
    runtime.start_distributed(config.runtime)
    config.check_mesh(jax.device_count(), trains=False)
    config = resolve_auto(config, local_machine()).config
    return SavedRun(config, build_program(config), checkpoint_directory(workdir))


def _fingerprint(of_arrays: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of sha256 over the fingerprints of all arrays of the parameters."""
    sums = [(path, sums) for path, sums in of_arrays.items() if path.startswith("params/")]
    return hashlib.sha256(json.dumps(sorted(sums)).encode()).hexdigest()[:16]
