"""A source checkpoint of any format: its model config, and its weights as views in our layout."""

import dataclasses
from collections.abc import Mapping

from t5jax.checkpoints import BlockArray
from t5jax.convert import parameter_names
from t5jax.convert.lazy_arrays import Finite, Stacked, Transposed
from t5jax.convert.parameter_names import ParameterNaming
from t5jax.data.vocabularies import Vocabulary
from t5jax.decoding.config import DecodingConfig
from t5jax.errors import CheckpointError
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_paths, layer_shape, stack_of
from t5jax.training.peft import AllParameters, Strategy

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
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    end_ids: tuple[int, ...] = ()  # any of which ends an output; (): the vocabulary's EOS
    slots: dict[str, BlockArray] | None = None  # Adafactor's state, `v_row/encoder/…`, our layout
    slot_settings: dict[str, object] = dataclasses.field(default_factory=dict)  # of Adafactor
    finetuning: Strategy = dataclasses.field(default_factory=AllParameters)  # LoRA: has factors
    base: str | None = None  # of an adapter: where the other parameters are from


def fit_to_vocabulary(source: SourceCheckpoint, vocabulary: Vocabulary) -> None:
    """Sets the model's padding to the vocabulary's, and its EOS to the vocabulary's where the
    source does not end its outputs with another token; notes what differs.

    Padding is never read, so it may be another id than the source's.
    """
    ends = source.end_ids or (vocabulary.eos_id,)
    eos_id = vocabulary.eos_id if vocabulary.eos_id in ends else ends[0]
    if eos_id != vocabulary.eos_id:
        source.notes.append(
            f"an output ends with id {eos_id} (eos_token_id), a text of the tokenizer with id "
            f"{vocabulary.eos_id}: predictions are those of `generate`, but training on targets "
            f"that end with {vocabulary.eos_id} is refused until model.eos_id is "
            f"{vocabulary.eos_id}, too"
        )
    if source.end_ids and source.model.pad_id not in (vocabulary.pad_id, -1):
        source.notes.append(
            f"pad_token_id is {source.model.pad_id}, that of the tokenizer {vocabulary.pad_id}, "
            "which is taken: padding is never read"
        )
    others = tuple((one,) for one in ends if one != eos_id)
    stop = tuple(dict.fromkeys((*source.decoding.stop, *others)))
    source.decoding = dataclasses.replace(source.decoding, stop=stop)
    source.model = dataclasses.replace(source.model, pad_id=vocabulary.pad_id, eos_id=eos_id)


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
                arrays.append(Finite(array, f"{weights.where}: {weights.original(name)}"))
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
