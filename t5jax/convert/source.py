"""A checkpoint of any format, opened: what model it is, and its weights as views of our layout."""

import dataclasses
from collections.abc import Mapping

from t5jax.checkpoints import BlockArray
from t5jax.convert import names
from t5jax.convert.names import Naming
from t5jax.convert.views import Stacked, Transposed
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import CheckpointError
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_paths, layer_shape, stack_of

_MOST_NAMED = 10


@dataclasses.dataclass(kw_only=True)
class Weights:
    """The arrays of a foreign checkpoint under the names of `naming`."""

    naming: Naming
    where: str
    arrays: dict[str, BlockArray]
    slots: dict[str, BlockArray] = dataclasses.field(default_factory=dict)  # name/v_row …
    original_names: dict[str, str] = dataclasses.field(default_factory=dict)  # where they differ

    def at(self, place: str) -> BlockArray | None:
        """The weight of a place, laid out as ours."""
        array = self.arrays.get(self.naming.name(place))
        if array is None or not self.naming.transposed:
            return array
        return array if place == "token_embedder" or len(array.shape) < 2 else Transposed(array)

    def original(self, name: str) -> str:
        return self.original_names.get(name, name)


@dataclasses.dataclass(kw_only=True)
class Source:
    """Something to convert."""

    kind: str  # huggingface, t5x, mesh_tf, t5jax
    path: str
    model: T5Config
    params: dict[str, BlockArray]  # by our paths, in our layout, in the type they are stored in
    origins: dict[str, list[str]]  # our path -> the names of what it is made of
    notes: list[str] = dataclasses.field(default_factory=list)
    vocabulary: Vocabulary | None = None
    vocabulary_fingerprint: str | None = None  # that it must have
    weights: Weights | None = None  # as they are called there, for a reference that is independent
    step: int | None = None
    slots: dict[str, BlockArray] | None = None  # `v_row/encoder/…` of Adafactor's state, our layout
    slot_settings: dict[str, object] = dataclasses.field(default_factory=dict)  # of Adafactor


def bind(model: T5Config, weights: Weights, dropped: Mapping[str, str]) -> dict[str, BlockArray]:
    """Our parameters as views of the weights; every weight must have its place and every place its
    weight, but for those of `dropped` (name -> why).

    Raises CheckpointError that names what is missing, left over or of another shape.
    """
    problems, used, params = [], set(dropped), {}
    for path, leaf in names.parameters(model).items():
        shape = layer_shape(path, leaf.shape)
        found = []
        for place in layer_paths(path, leaf.shape):
            name, array = weights.naming.name(place), weights.at(place)
            used.add(name)
            if array is None:
                problems.append(f"{weights.original(name)} is missing")
            elif array.shape != shape:
                there, wanted = list(weights.arrays[name].shape), list(shape)
                if array.shape != weights.arrays[name].shape:
                    wanted.reverse()
                problems.append(f"{weights.original(name)} has shape {there}, not {wanted}")
            else:
                found.append(array)
        if not problems:
            params[path] = Stacked(found) if stack_of(path) else found[0]
    left = sorted(set(weights.arrays) - used)
    problems += [f"{weights.original(name)} has no place in this model" for name in left]
    if problems:
        more = len(problems) - _MOST_NAMED
        listed = problems[:_MOST_NAMED] + ([f"and {more} more"] if more > 0 else [])
        raise CheckpointError(
            f"{weights.where} is not a complete {weights.naming.title} T5 "
            f"({len(problems)} arrays do not fit):\n  " + "\n  ".join(listed)
        )
    return params


def origins(model: T5Config, weights: Weights) -> dict[str, list[str]]:
    """Our path -> the names of the arrays it is made of, as they are called there."""
    return {
        path: [
            weights.original(weights.naming.name(place)) for place in layer_paths(path, leaf.shape)
        ]
        for path, leaf in names.parameters(model).items()
    }
