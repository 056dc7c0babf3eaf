"""A source checkpoint of any format: its model config, and its weights as views in our layout."""

import dataclasses
from collections.abc import Mapping

from t5jax.checkpoints import BlockArray
from t5jax.convert import parameter_names
from t5jax.convert.lazy_arrays import Stacked, Transposed
from t5jax.convert.parameter_names import ParameterNaming
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import CheckpointError
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_paths, layer_shape, stack_of

_MAX_LISTED = 10  # problems in an error message


@dataclasses.dataclass(kw_only=True)
class Weights:
    """The arrays of a foreign checkpoint, by the names of `naming`."""

    naming: ParameterNaming
    where: str
    arrays: dict[str, BlockArray]
    slots: dict[str, BlockArray] = dataclasses.field(default_factory=dict)  # name/v_row …
    original_names: dict[str, str] = dataclasses.field(default_factory=dict)  # where different

    def at(self, layer_path: str) -> BlockArray | None:
        """The weight of a layer path, in our layout."""
        array = self.arrays.get(self.naming.name(layer_path))
        if array is None or not self.naming.transposed:
            return array
        return (
            array if layer_path == "token_embedder" or len(array.shape) < 2 else Transposed(array)
        )

    def original(self, name: str) -> str:
        return self.original_names.get(name, name)


@dataclasses.dataclass(kw_only=True)
class SourceCheckpoint:
    """A checkpoint to convert."""

    kind: str  # huggingface, t5x, mesh_tf, t5jax
    path: str
    model: T5Config
    params: dict[str, BlockArray]  # by our paths, in our layout, in the stored dtype
    origins: dict[str, list[str]]  # our path -> names of the source arrays
    notes: list[str] = dataclasses.field(default_factory=list)
    vocabulary: Vocabulary | None = None
    vocabulary_fingerprint: str | None = None  # of the vocabulary it was trained with
    weights: Weights | None = None  # by their original names, for an independent reference
    step: int | None = None
    slots: dict[str, BlockArray] | None = None  # Adafactor's state, `v_row/encoder/…`, our layout
    slot_settings: dict[str, object] = dataclasses.field(default_factory=dict)  # of Adafactor


def bind_parameters(
    model: T5Config, weights: Weights, dropped: Mapping[str, str]
) -> dict[str, BlockArray]:
    """Our parameters as views of the weights, a one-to-one mapping but for `dropped` weights
    (name -> reason).

    Raises CheckpointError that names weights that are missing, unexpected or of another shape.
    """
    problems, used, params = [], set(dropped), {}
    for path, leaf in parameter_names.parameters(model).items():
        shape = layer_shape(path, leaf.shape)
        arrays = []
        for layer_path in layer_paths(path, leaf.shape):
            name, array = weights.naming.name(layer_path), weights.at(layer_path)
            used.add(name)
            if array is None:
                problems.append(f"{weights.original(name)} is missing")
            elif array.shape != shape:
                stored, expected = list(weights.arrays[name].shape), list(shape)
                if array.shape != weights.arrays[name].shape:
                    expected.reverse()
                problems.append(f"{weights.original(name)} has shape {stored}, not {expected}")
            else:
                arrays.append(array)
        if not problems:
            params[path] = Stacked(arrays) if stack_of(path) else arrays[0]
    unexpected = sorted(set(weights.arrays) - used)
    problems += [f"{weights.original(name)} has no place in this model" for name in unexpected]
    if problems:
        more = len(problems) - _MAX_LISTED
        listed = problems[:_MAX_LISTED] + ([f"and {more} more"] if more > 0 else [])
        raise CheckpointError(
            f"{weights.where} is not a complete {weights.naming.title} T5 "
            f"({len(problems)} arrays do not fit):\n  " + "\n  ".join(listed)
        )
    return params


def parameter_origins(model: T5Config, weights: Weights) -> dict[str, list[str]]:
    """Our path -> the original names of its source arrays."""
    return {
        path: [
            weights.original(weights.naming.name(layer_path))
            for layer_path in layer_paths(path, leaf.shape)
        ]
        for path, leaf in parameter_names.parameters(model).items()
    }
