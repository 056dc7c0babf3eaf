"""Mesh TensorFlow checkpoints, `model.ckpt-1000000.index` and its data, T5's release format.

TensorFlow reads them, an array at a time.
"""

import pathlib
import re
from typing import Any

import numpy as np

from t5jax.checkpoints import BlockArray, Region
from t5jax.convert import architecture, gin
from t5jax.convert.adafactor_state import convert_adafactor_state
from t5jax.convert.parameter_names import MESH_TF
from t5jax.convert.source_checkpoint import (
    SourceCheckpoint,
    Weights,
    bind_parameters,
    parameter_origins,
)
from t5jax.data.tensorflow_import import import_tensorflow
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.layer_stack import STACKS

_GIN = ("operative_config.gin",)
_INDEX = ".index"
_STEP = re.compile(r"-(\d+)$")
_SLOT = re.compile(r"(.+)_slot_(vr|vc|v|m)")
_SLOTS = {"vr": "v_row", "vc": "v_col", "v": "v", "m": "m"}
# A variable of cross-attention that no implementation reads.
_UNUSED = re.compile(r"decoder/block_000/layer_001/EncDecAttention/relative_attention_bias")
# T5 1.0's norms have other names than those of later models.
_OLD_NORM = re.compile(r"/(?:final_)?layer_norm/scale$")


def is_mesh_tf(path: pathlib.Path) -> bool:
    """The prefix of a checkpoint's files, or a directory with some."""
    if path.is_dir():
        return any(path.glob(f"*{_INDEX}"))
    return path.with_name(path.name + _INDEX).is_file()


def open_mesh_tf(path: str, step: int | None = None) -> SourceCheckpoint:
    """An encoder-decoder of Mesh TensorFlow, with Adafactor's slots if it has them.

    Raises:
      ConfigError: there is no such `step`, or TensorFlow is not installed.
      CheckpointError: files are missing, damaged or not a T5 of Mesh TensorFlow.
    """
    prefix = _prefix(pathlib.Path(path), step)
    reader = _Reader(prefix)
    weights = Weights(naming=MESH_TF, where=str(prefix), arrays={})
    for name in reader.shapes:
        found = _SLOT.fullmatch(name)
        parameter = found[1] if found else name
        if _UNUSED.fullmatch(parameter) or name == "global_step":
            continue
        renamed = _OLD_NORM.sub("/rms_norm/scale", parameter)
        array = TensorFlowArray(reader, name)
        if found:
            weights.slots[f"{renamed}/{_SLOTS[found[2]]}"] = array
        else:
            weights.arrays[renamed] = array
            weights.original_names[renamed] = name
    notes: list[str] = []
    _refuse_unsupported(weights)
    model = architecture.infer_model_config(weights, _settings(prefix, notes), notes)
    slots, slot_settings = convert_adafactor_state(model, weights, lambda layer_path: 1, notes)
    return SourceCheckpoint(
        kind="mesh_tf",
        path=str(prefix),
        model=model,
        params=bind_parameters(model, weights, {}),
        origins=parameter_origins(model, weights),
        notes=notes,
        weights=weights,
        step=_step(prefix, reader),
        slots=slots,
        slot_settings=slot_settings,
    )


def _prefix(path: pathlib.Path, step: int | None) -> pathlib.Path:
    """`model.ckpt-1000000` of a directory: the newest, or that of `step`."""
    if not path.is_dir():
        return path
    prefixes = [file.with_name(file.name.removesuffix(_INDEX)) for file in path.glob(f"*{_INDEX}")]
    steps = {int(m[1]): prefix for prefix in prefixes if (m := _STEP.search(prefix.name))}
    if step is not None and step not in steps:
        known = ", ".join(map(str, sorted(steps))) or "none with a number"
        raise ConfigError(f"--step {step}: {path} has {known}")
    if not steps:
        return sorted(prefixes)[-1]
    return steps[max(steps) if step is None else step]


def _step(prefix: pathlib.Path, reader: "_Reader") -> int | None:
    if "global_step" in reader.shapes:
        return int(reader.get("global_step"))
    found = _STEP.search(prefix.name)
    return int(found[1]) if found else None


def _settings(prefix: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    file = gin.find_gin_file(prefix.parent, _GIN)
    if file is None:
        return {}
    notes.append(f"settings were compared with {file}")
    return gin.parse_gin_settings(file.read_text(encoding="utf-8"))


def _refuse_unsupported(weights: Weights) -> None:
    """Raises CheckpointError for models of Mesh TensorFlow that t5jax does not convert."""
    names = list(weights.arrays)
    if any(name.startswith("transformer/") for name in names):
        raise CheckpointError(f"{weights.where} is a decoder-only model; encoder-decoders are read")
    if any(f"{stack}/embedding" in names for stack in STACKS):
        raise CheckpointError(
            f"{weights.where}: encoder and decoder have separate token tables; t5jax's share one"
        )


class _Reader:
    """TensorFlow's reader; caches the last array, because arrays are read in blocks."""

    def __init__(self, prefix: pathlib.Path):
        tensorflow = import_tensorflow()
        try:
            self._reader = tensorflow.train.load_checkpoint(str(prefix))
            self.shapes = dict(sorted(self._reader.get_variable_to_shape_map().items()))
        except Exception as error:  # TensorFlow has a class of its own for each status
            raise CheckpointError(f"{prefix}: TensorFlow cannot read it: {error}") from error
        types = self._reader.get_variable_to_dtype_map()
        self.dtypes = {name: np.dtype(types[name].as_numpy_dtype) for name in self.shapes}
        self._prefix, self._last = prefix, ("", np.zeros(0))

    def get(self, name: str) -> np.ndarray:
        if self._last[0] != name:
            self._last = "", np.zeros(0)  # frees the last one before the next is read
            try:
                self._last = name, np.asarray(self._reader.get_tensor(name))
            except Exception as error:
                raise CheckpointError(f"{self._prefix}: {name} is damaged: {error}") from error
        return self._last[1]


class TensorFlowArray(BlockArray):
    def __init__(self, reader: _Reader, name: str):
        self._reader, self._name = reader, name
        self.shape, self.dtype = tuple(reader.shapes[name]), reader.dtypes[name]
        self.cut_axes = tuple(range(len(self.shape)))

    def read(self, region: Region) -> np.ndarray:
        return self._reader.get(self._name)[region]
