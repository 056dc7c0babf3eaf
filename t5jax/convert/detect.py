"""Format detection: a run of t5jax, or a checkpoint of Hugging Face, T5X or Mesh TensorFlow."""

import pathlib

from t5jax.checkpoints import kind_of
from t5jax.convert import huggingface, mesh_tf, run_directory, t5x
from t5jax.convert.source_checkpoint import SourceCheckpoint
from t5jax.errors import ConfigError, missing_file

FORMAT_TITLES = {
    "t5jax": "t5jax run",
    "huggingface": "Hugging Face",
    "t5x": "T5X",
    "mesh_tf": "Mesh TensorFlow",
}


def detect_format(path: str) -> str:
    """t5jax, huggingface, t5x or mesh_tf. Raises ConfigError when it is none of them."""
    location = pathlib.Path(path)
    if "://" in path:
        raise ConfigError(f"{path}: conversion reads local files; copy it here first")
    if not location.exists() and not mesh_tf.is_mesh_tf(location):
        hint = ""
        if path.count("/") == 1 and not location.parent.exists():
            hint = f" (a model of the hub? download it first: hf download {path} --local-dir DIR)"
        raise missing_file(path, f"there is no {path}{hint}", ConfigError)
    if location.is_dir():
        if run_directory.is_run(location):
            return "t5jax"
        if huggingface.is_huggingface(location):
            return "huggingface"
    if mesh_tf.is_mesh_tf(location):
        return "mesh_tf"
    if t5x.is_t5x(location):
        return "t5x"
    if (kind := kind_of(path)) is not None and kind.name not in ("file", "empty"):
        raise ConfigError(f"{path} {kind}")
    raise ConfigError(
        f"{path} has no known format: it is neither a run of t5jax (checkpoints/), nor a "
        "Hugging Face directory (config.json, *.safetensors), nor a T5X checkpoint (`checkpoint` "
        "and zarr directories, or a msgpack file), nor the prefix of a Mesh TensorFlow checkpoint "
        "(PREFIX.index)"
    )


def open_source_checkpoint(
    path: str, step: int | None = None, ignored_keys: tuple[str, ...] = ()
) -> SourceCheckpoint:
    """Opens a checkpoint of any format. Raises ConfigError or CheckpointError, as the opening
    functions of the formats do."""
    kind = detect_format(path)
    if kind == "huggingface":
        if step is not None:
            raise ConfigError(f"--step {step}: a Hugging Face directory has no steps; leave it out")
        return huggingface.open_huggingface(path, ignored_keys)
    open_it = {
        "t5jax": run_directory.open_run_directory,
        "t5x": t5x.open_t5x,
        "mesh_tf": mesh_tf.open_mesh_tf,
    }
    return open_it[kind](path, step)
