"""Runs that were never trained: what they would have left, saved in a moment."""

import pathlib

import jax
import numpy as np

from t5jax.checkpoints import Checkpoints, leaves_by_path
from t5jax.config import RunConfig, to_text
from t5jax.run.build import build_program
from t5jax.run.restore import RestoredRun, open_saved_run, read_saved_config
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState


def random_state(program: Program, seed: int) -> TrainState:
    """A state in which every number is its own; counts are 40 + seed, steps and all."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        if x.dtype != np.float32:
            return np.full(x.shape, 40 + seed, x.dtype)
        return 0.3 * rng.standard_normal(x.shape).astype(x.dtype)

    return jax.device_put(jax.tree.map(leaf, program.abstract_state), program.shardings)


def save_run(config: RunConfig, workdir: pathlib.Path, steps=(20, 30)) -> pathlib.Path:
    """The folder of a run of the config, with a random state of each step."""
    program, record = build_program(config), record_of(config)
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoints)
    for step in steps:
        counted = jax.device_put(np.int32(step), program.shardings.step)
        checkpoints.save(step, random_state(program, step)._replace(step=counted), record)
    checkpoints.close()
    return workdir


def save_record(config: RunConfig, workdir: pathlib.Path) -> pathlib.Path:
    """The folder of a run of which nothing is read but what it says of itself."""
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoints)
    checkpoints.save(30, {"params": {}, "step": jax.numpy.int32(30)}, record_of(config))
    checkpoints.close()
    return workdir


def record_of(config: RunConfig) -> dict:
    return {
        "config": to_text(config),
        "vocabulary": config.data.vocabulary.fingerprint,
        "data": {"next_row": 7},
    }


def restore_run(workdir, step: int | None = None) -> RestoredRun:
    """The parameters of a run's newest checkpoint, or of `step`."""
    config, _ = read_saved_config(str(workdir), step, lambda config: config, command="test")
    return open_saved_run(config, str(workdir)).restore(step)


def bits(tree) -> dict[str, bytes]:
    return {path: np.asarray(x).tobytes() for path, x in leaves_by_path(tree).items()}
