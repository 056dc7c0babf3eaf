"""A run as its checkpoints describe it: what evaluating and predicting start from."""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
from etils import epath

from t5jax import runtime
from t5jax.checkpoints import Record, latest_record, read_record, restore_params
from t5jax.config import RunConfig, from_record, override
from t5jax.errors import CheckpointError, ConfigError
from t5jax.run.build import build_program
from t5jax.training.program import Program
from t5jax.types import Params


class SavedRun(NamedTuple):
    config: RunConfig
    program: Program  # of the model as it is used: nothing of how it was fine-tuned
    params: Params  # float32, laid out over the mesh
    step: int
    fingerprint: str  # of the saved parameters: the same numbers on any disk


def checkpoint_directory(workdir: str) -> epath.Path:
    directory = epath.Path(workdir) / "checkpoints"
    if not directory.is_dir():
        raise CheckpointError(
            f"{workdir} holds no checkpoints; give the workdir of a run (`t5jax train` prints it)"
        )
    return directory


class OpenedRun(NamedTuple):
    """A run of which no parameters have been read yet."""

    config: RunConfig
    program: Program  # as it was trained
    directory: epath.Path  # of its checkpoints

    def restore(self, step: int | None) -> SavedRun:
        """The verified parameters of a step, or of the newest good one."""
        restored = restore_params(self.directory, self.program.abstract_state.params, step)
        params = self.program.merge(restored.state)
        fingerprint = _fingerprint(self.directory, restored.step)
        return SavedRun(self.config, self.program.plain, params, restored.step, fingerprint)


def open_program(
    workdir: str, step: int | None, flags: list[str], *, command: str, of_mixture: bool = True
) -> OpenedRun:
    """Config of a run's newest step, or of `step`, and the program that it describes.

    `flags` change the config as they do in training (where the data is, the mesh, the dtype);
    without `of_mixture` those of the data are about other tasks.
    """
    config, _ = read_config(workdir, step, flags, command=command, of_mixture=of_mixture)
    return open_config(config, workdir)


def open_config(config: RunConfig, workdir: str) -> OpenedRun:
    """The same with a config that `read_config` gave."""
    runtime.start(config.runtime)
    config.check_mesh(jax.device_count(), trains=False)
    return OpenedRun(config, build_program(config), checkpoint_directory(workdir))


def open_run(workdir: str, step: int | None, flags: list[str], *, command: str) -> SavedRun:
    """Config and verified parameters of a run's newest good step, or of `step`."""
    return open_program(workdir, step, flags, command=command).restore(step)


def _fingerprint(directory: epath.Path, step: int) -> str:
    """16 hexadecimal digits of sha256 over the fingerprints of all arrays of the parameters."""
    leaves = read_record(directory, step).leaves
    sums = [(path, leaf.fingerprint) for path, leaf in leaves.items() if path.startswith("params/")]
    return hashlib.sha256(json.dumps(sorted(sums)).encode()).hexdigest()[:16]


def read_config(
    workdir: str, step: int | None, flags: list[str], *, command: str, of_mixture: bool = True
) -> tuple[RunConfig, Record]:
    """The config that a run was saved with, `flags` applied and checked, and its record."""
    change = functools.partial(override, flags=flags, program=f"t5jax {command} {workdir}")
    return read_changed_config(workdir, step, change, command=command, of_mixture=of_mixture)


def read_changed_config(
    workdir: str,
    step: int | None,
    change: Callable[[RunConfig], RunConfig],
    *,
    command: str,
    of_mixture: bool = True,
) -> tuple[RunConfig, Record]:
    """The same with a function that changes the config."""
    directory = checkpoint_directory(workdir)
    record = latest_record(directory) if step is None else read_record(directory, step)
    config = from_record(record.content, workdir)
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
