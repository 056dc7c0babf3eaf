"""T5X checkpoints: a directory with a msgpack index and zarr arrays, or one msgpack file.

All are mapped to the layout of T5X's minimal network, `encoder/layers_0/attention/query/kernel`:
scanned stacks (`encoder/layers/…` of its scalable network, `encoder/encoder/…` of Flaxformer, which
umT5 was trained with) have their layers along axis 1; Flaxformer may have a separate heads axis.
"""

import pathlib
import re
from typing import Any

import numpy as np
import tensorstore as ts

from t5jax.checkpoints import BlockArray, Region
from t5jax.convert import architecture, gin, msgpack_file
from t5jax.convert.adafactor_state import convert_adafactor_state
from t5jax.convert.lazy_arrays import AxisSlice, InMemory, MergedAxes
from t5jax.convert.parameter_names import T5X
from t5jax.convert.raw_files import RawArray, dtype_named
from t5jax.convert.source_checkpoint import (
    SourceCheckpoint,
    Weights,
    bind_parameters,
    parameter_origins,
)
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.layer_stack import STACKS

INDEX = "checkpoint"
_GIN = ("config.gin", "operative_config.gin", "model-info.gin")
_STEP_FOLDER = re.compile(r"checkpoint_(\d+)")
_PARAMETER = re.compile(r"(?:_?optimizer/)?target/(.+)")
_SLOT = re.compile(r"(?:_?optimizer/)?state/param_states/(.+)/(v_row|v_col|v|m)")
_STEP = re.compile(r"(?:_?optimizer/)?state/step")
_PLACEHOLDER = "PLACEHOLDER://"
_CACHE_BYTES = 64 * 2**20  # of read chunks: those of a scanned stack hold several layers


def is_t5x(path: pathlib.Path) -> bool:
    """A directory with an index, a directory of these, or the msgpack file itself."""
    if path.is_dir():
        folders = any(_STEP_FOLDER.fullmatch(p.name) for p in path.iterdir())
        return folders or _is_msgpack(path / INDEX)
    return _is_msgpack(path)


def _is_msgpack(file: pathlib.Path) -> bool:
    """Whether the file begins with a msgpack map, as T5X's do."""
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        first = opened.read(1)
    return bool(first) and (0x80 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))


def open_t5x(path: str, step: int | None = None) -> SourceCheckpoint:
    """An encoder-decoder of T5X, with Adafactor's slots if it has them.

    Raises:
      ConfigError: there is no such `step`.
      CheckpointError: files are missing, damaged or not a T5 of T5X.
    """
    directory = _step_directory(pathlib.Path(path), step)
    index = directory / INDEX if directory.is_dir() else directory
    leaves = msgpack_file.flatten_tree(msgpack_file.read_msgpack(index))
    opened = {name: _open_array(directory, index, leaf) for name, leaf in leaves.items()}
    arrays = {name: array for name, array in opened.items() if array is not None}
    weights = Weights(naming=T5X, where=str(directory), arrays={})
    scanned = _fill(weights, arrays)
    notes: list[str] = []
    model = architecture.infer_model_config(weights, _settings(directory, notes), notes)
    params = bind_parameters(model, weights, {})
    counts = [array for name, array in arrays.items() if _STEP.fullmatch(name)]
    steps = int(counts[0].whole()) if counts else None
    row_axis = _row_axis_scanned if scanned else lambda layer_path: 0
    slots, slot_settings = convert_adafactor_state(model, weights, row_axis, notes)
    return SourceCheckpoint(
        kind="t5x",
        path=str(directory),
        model=model,
        params=params,
        origins=parameter_origins(model, weights),
        notes=notes,
        weights=weights,
        step=steps,
        slots=slots,
        slot_settings=slot_settings,
    )


def _step_directory(path: pathlib.Path, step: int | None) -> pathlib.Path:
    """The directory of one checkpoint, of a directory that may hold several."""
    if not path.is_dir() or (path / INDEX).is_file():
        if step is not None and path.name != f"checkpoint_{step}":
            raise ConfigError(f"--step {step}: {path} is one checkpoint already; leave it out")
        return path
    steps = {
        int(match[1]): folder
        for folder in path.iterdir()
        if (match := _STEP_FOLDER.fullmatch(folder.name))
    }
    if step is not None and step not in steps:
        raise ConfigError(f"--step {step}: {path} has {', '.join(map(str, sorted(steps)))}")
    chosen = steps[max(steps) if step is None else step]
    return _step_directory(chosen, None)


def _settings(directory: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    file = gin.find_gin_file(directory, _GIN) if directory.is_dir() else None
    if file is None:
        return {}
    notes.append(f"settings were compared with {file}")
    return gin.parse_gin_settings(file.read_text(encoding="utf-8"))


# ---- arrays


class ZarrArray(BlockArray):
    """An array in a zarr directory, opened at the first read."""

    def __init__(self, spec: dict[str, Any], where: pathlib.Path):
        self._spec, self._where = spec, where
        self._opened: ts.TensorStore | None = None
        stored = self._open(ts.Context())
        self.shape = tuple(stored.shape)
        # Version 2 of T5X stored bfloat16 as uint16 bits.
        self._bits = stored.dtype.numpy_dtype == np.uint16
        self.dtype = dtype_named("bfloat16") if self._bits else stored.dtype.numpy_dtype
        chunks = stored.chunk_layout.read_chunk.shape or ()
        whole_last = lambda axis: chunks[axis] == self.shape[axis]
        self.cut_axes = tuple(sorted(range(len(self.shape)), key=whole_last))

    def read(self, region: Region) -> np.ndarray:
        if self._opened is None:
            limit = {"cache_pool": {"total_bytes_limit": _CACHE_BYTES}}
            self._opened = self._open(ts.Context(limit))
        try:
            block = self._opened[region].read().result()
        except ValueError as error:
            raise CheckpointError(f"{self._where} cannot be read: {error}") from error
        return block.view(self.dtype) if self._bits else block

    def _open(self, context: ts.Context) -> ts.TensorStore:
        try:
            return ts.open(self._spec, open=True, read=True, context=context).result()
        except ValueError as error:
            raise CheckpointError(f"{self._where} cannot be read: {error}") from error


def _open_array(directory: pathlib.Path, index: pathlib.Path, leaf: Any) -> BlockArray | None:
    """The array that a leaf of the index is or refers to; None for any other leaf."""
    if isinstance(leaf, RawArray):
        return leaf
    if isinstance(leaf, int | float) and not isinstance(leaf, bool):
        return InMemory(leaf)
    if isinstance(leaf, dict):
        name = leaf.get("path") or leaf["kvstore"].get("path", "")
        return _zarr(directory, name.strip("/").rpartition("/")[2], leaf.get("metadata"))
    if isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER):
        return _zarr(directory, leaf.removeprefix(_PLACEHOLDER), None)
    return None


def _zarr(directory: pathlib.Path, name: str, metadata: dict[str, Any] | None) -> ZarrArray:
    folder = directory / name
    if (directory / "manifest.ocdbt").is_file():
        kvstore = {"driver": "ocdbt", "base": f"file://{directory.absolute()}/", "path": f"{name}/"}
    elif (folder / ".zarray").is_file():
        kvstore = {"driver": "file", "path": f"{folder.absolute()}/"}
    else:
        raise CheckpointError(
            f"{folder / '.zarray'} is missing, and the index of {directory} names it (were files "
            "whose names begin with a dot left out of the copy?)"
        )
    return ZarrArray({"driver": "zarr", "kvstore": kvstore}, folder)


# ---- names


def _fill(weights: Weights, arrays: dict[str, BlockArray]) -> bool:
    """Puts parameters and slots into the weights, in the minimal layout; returns whether they were
    scanned."""
    parameters = {m[1]: x for name, x in arrays.items() if (m := _PARAMETER.fullmatch(name))}
    slots = {(m[1], m[2]): x for name, x in arrays.items() if (m := _SLOT.fullmatch(name))}
    if not parameters:
        raise CheckpointError(
            f"{weights.where} is not a T5X checkpoint: it has no parameters (`target/…`), but "
            f"{', '.join(list(arrays)[:3]) or 'nothing'}"
        )
    scans = {stack: scan for stack in STACKS if (scan := _scan(stack, parameters))}
    for name, array in parameters.items():
        for minimal, view, origin in _to_minimal(name, array, scans):
            weights.arrays[minimal] = _merge_heads(minimal, view)
            weights.original_names[minimal] = origin
    for (name, slot), array in slots.items():
        for minimal, view, _ in _to_minimal(name, array, scans):
            weights.slots[f"{minimal}/{slot}"] = view
    return bool(scans)


def _scan(stack: str, parameters: dict[str, BlockArray]) -> tuple[str, int, int] | None:
    """(prefix of a scanned stack, number of its layers, their axis); None if it is not scanned."""
    final = parameters.get(f"{stack}/{stack}_norm/scale")
    for prefix in (f"{stack}/layers/", f"{stack}/{stack}/"):
        scale = next(
            (x for n, x in parameters.items() if n.startswith(prefix) and n.endswith("/scale")),
            None,
        )
        if scale is None or len(scale.shape) != 2 or final is None:
            continue
        axis = 0 if scale.shape[1] == final.shape[0] != scale.shape[0] else 1
        return prefix, scale.shape[axis], axis
    return None


def _to_minimal(name: str, array: BlockArray, scans: dict[str, tuple[str, int, int]]):
    """Yields (name in the minimal layout, array, name with index) of each layer in an array."""
    for stack, (prefix, num_layers, axis) in scans.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            if len(array.shape) < 2 or num_layers not in array.shape:
                return  # an unused slot
            at = axis if array.shape[axis] == num_layers else array.shape.index(num_layers)
            for layer in range(num_layers):
                index = ", ".join([":"] * at + [str(layer)])
                minimal = _renamed(f"{stack}/layers_{layer}/{rest}")
                yield minimal, AxisSlice(array, layer, at), f"{name}[{index}]"
            return
    yield _renamed(name), array, name


def _renamed(name: str) -> str:
    return name.replace("/relative_posemb/", "/relpos_bias/")


def _merge_heads(name: str, array: BlockArray) -> BlockArray:
    """Attention kernels with heads and head features on one axis."""
    if len(array.shape) == 3 and name.endswith("/kernel"):
        return MergedAxes(array, 0 if name.endswith("/out/kernel") else 1)
    return array


def _row_axis_scanned(layer_path: str) -> int:
    """Scanned stacks are factored by axis names: the row axis is the embedding axis."""
    return 1 if layer_path.endswith(("/out", "/wo")) else 0
