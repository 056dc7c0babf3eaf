"""Adafactor state (optimizer slots) of a T5X or Mesh TensorFlow checkpoint, in our layout.

The second moment of a large matrix is factored into means over rows and over columns. The larger
dimension is the column in all programs; of square matrices each program has its own rule.
"""

from collections.abc import Callable

import numpy as np

from t5jax.checkpoints import BlockArray
from t5jax.convert import parameter_names
from t5jax.convert.lazy_arrays import Cast, Stacked, Zeros
from t5jax.convert.source_checkpoint import Weights
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_paths, layer_shape, stack_of

SLOTS = ("v_row", "v_col", "v", "m")
_FLOAT32 = np.dtype(np.float32)

Slots = dict[str, BlockArray]


class _Unsupported(Exception):
    """Reason why the slots cannot be converted."""


def convert_adafactor_state(
    model: T5Config, weights: Weights, row_axis: Callable[[str], int], notes: list[str]
) -> tuple[Slots | None, dict[str, object]]:
    """(`v_row/encoder/layers/mlp/wi` and so on, settings of our Adafactor that they need).

    (None, {}) when there are none, or none that our Adafactor can hold; `notes` gets the reason.

    Args:
      row_axis: layer path of a square matrix -> the axis to which the row means belong.
    """
    if not weights.slots:
        notes.append("there are no optimizer slots: Adafactor's state is initialised")
        return None, {}
    try:
        shapes = {
            layer_path: layer_shape(path, leaf.shape)
            for path, leaf in parameter_names.parameters(model).items()
            for layer_path in layer_paths(path, leaf.shape)
        }
        used = {path: _used(weights, path, shape) for path, shape in shapes.items()}
        settings = _settings(used, shapes)
        return _to_our_layout(model, used, shapes, row_axis), settings
    except _Unsupported as reason:
        notes.append(f"optimizer slots are left out: {reason}")
        return None, {}


def _used(weights: Weights, layer_path: str, shape: tuple[int, ...]) -> Slots:
    """The slots of a path that are used; unused ones are missing, or of one element."""
    name = weights.naming.name(layer_path)
    found = {slot: weights.slots.get(f"{name}/{slot}") for slot in SLOTS}
    used = {
        slot: array
        for slot, array in found.items()
        if array is not None and (array.shape != (1,) or shape == (1,))
    }
    if "v" not in used and not {"v_row", "v_col"} <= set(used):
        raise _Unsupported(f"{name} has no second moments ({', '.join(used) or 'nothing'})")
    for slot in ("v", "m"):
        if slot in used and used[slot].shape != shape:
            raise _Unsupported(
                f"{name}/{slot} has shape {list(used[slot].shape)}, not {list(shape)}"
            )
    return used


def _settings(used: dict[str, Slots], shapes: dict[str, tuple[int, ...]]) -> dict[str, object]:
    """The settings with which our Adafactor has such slots."""
    settings: dict[str, object] = {}
    matrices = {path: min(shape) for path, shape in shapes.items() if len(shape) == 2}
    factored = {path: "v_row" in used[path] for path in matrices}
    fits = lambda least: all(factored[p] == (size >= least) for p, size in matrices.items())
    if fits(128):
        pass
    elif not any(factored.values()):
        settings["factored"] = False
    elif found := next((least for least in (32, 1) if fits(least)), None):
        settings["min_dim_size_to_factor"] = found
    else:
        raise _Unsupported("which matrices are factored follows no minimum size")
    with_momentum = {"m" in slots for slots in used.values()}
    if with_momentum == {True}:
        settings["beta1"] = 0.9  # the only one that T5 models were published with
        settings["momentum_dtype"] = next(iter(used.values()))["m"].dtype.name
    elif len(with_momentum) == 2:
        raise _Unsupported("some arrays have momentum, others have not")
    return settings


def _to_our_layout(
    model: T5Config,
    used: dict[str, Slots],
    shapes: dict[str, tuple[int, ...]],
    row_axis: Callable[[str], int],
) -> Slots:
    converted: Slots = {}
    for path, leaf in parameter_names.parameters(model).items():
        layers = [
            _layer_slots(used[layer_path], shapes[layer_path], row_axis(layer_path))
            for layer_path in layer_paths(path, leaf.shape)
        ]
        for slot in SLOTS:
            if slot not in layers[0]:
                converted[f"{slot}/{path}"] = Zeros((1,), _FLOAT32)
                continue
            arrays = [layer[slot] for layer in layers]
            whole = Stacked(arrays) if stack_of(path) else arrays[0]
            converted[f"{slot}/{path}"] = whole if slot == "m" else Cast(whole, _FLOAT32)
    return converted


def _layer_slots(slots: Slots, shape: tuple[int, ...], row_axis: int) -> Slots:
    """The slots of one layer, where our `v_row` is the smaller dimension, or a square's first."""
    if "v_row" not in slots:
        return {slot: slots[slot] for slot in ("v", "m") if slot in slots}
    row, column = slots["v_row"], slots["v_col"]
    if (row.shape, column.shape) != ((min(shape),), (max(shape),)) or (
        shape[0] == shape[1] and row_axis == 1
    ):
        row, column = column, row
    if (row.shape, column.shape) != ((min(shape),), (max(shape),)):
        found = f"{list(row.shape)} and {list(column.shape)}"
        raise _Unsupported(f"factors of shapes {found} are not those of {list(shape)}")
    momentum = {"m": slots["m"]} if "m" in slots else {}
    return {"v_row": row, "v_col": column, **momentum}
