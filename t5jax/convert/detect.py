"""Format detection: a run of t5jax, or a checkpoint of Hugging Face, T5X or Mesh TensorFlow."""

import pathlib

from t5jax.checkpoints import kind_of
from t5jax.convert import huggingface, mesh_tf, peft_directory, run_directory, t5x
from t5jax.convert.source_checkpoint import SourceCheckpoint
from t5jax.errors import ConfigError, missing_file
from t5jax.paths import local_path

FORMAT_TITLES = {
    "t5jax": "t5jax run",
    "huggingface": "Hugging Face",
    "t5x": "T5X",
    "mesh_tf": "Mesh TensorFlow",
    "peft": "PEFT",
}


def detect_format(path: str) -> str:
    """t5jax, huggingface, t5x, mesh_tf or peft. Raises ConfigError when it is none of them."""
    path = local_path(path, "source", "conversion reads local files; copy it here first")
    location = pathlib.Path(path)
    if not location.exists() and not mesh_tf.is_mesh_tf(location):
        hint = ""
        if path.count("/") == 1 and not location.parent.exists():
            hint = f" (a model of the hub? download it first: hf download {path} --local-dir DIR)"
        raise missing_file(path, f"there is no {path}{hint}", ConfigError)
    if location.is_dir():
        if run_directory.is_run(location):
            return "t5jax"
        if (location / peft_directory.CONFIG).is_file():
            return "peft"
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
    path: str,
    step: int | None = None,
    ignored_keys: tuple[str, ...] = (),
    base: str | None = None,
) -> SourceCheckpoint:
    """Opens a checkpoint of any format; `base` is the model under an adapter. Raises ConfigError
    or CheckpointError, as the opening functions of the formats do."""
    kind = detect_format(path)
    if kind == "peft":
        return _open_peft(path, step, ignored_keys, base)
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


def _open_peft(
    path: str, step: int | None, ignored_keys: tuple[str, ...], base: str | None
) -> SourceCheckpoint:
    if step is not None:
        raise ConfigError(f"--step {step}: a PEFT directory has no steps; leave it out")
    named = peft_directory.base_of(pathlib.Path(path))
    found = base or named
    if not found or (base is None and not pathlib.Path(found).exists()):
        raise ConfigError(
            f"{path} is a PEFT directory, the difference to {named or 'a base that it does not '}"
            f"{'' if named else 'name'}: give that with --base (a Hugging Face directory, or a run "
            "of t5jax made of it)"
        )
    return peft_directory.open_peft(path, open_source_checkpoint(found, None, ignored_keys))
