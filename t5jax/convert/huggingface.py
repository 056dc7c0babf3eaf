"""Hugging Face directories, read and written: config.json, safetensors, tokenizer files."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from t5jax.checkpoints import BlockArray
from t5jax.convert import architecture, huggingface_config, safetensors_files
from t5jax.convert.generation_config import (
    read_generation_settings,
    write_generation_settings,
)
from t5jax.convert.lazy_arrays import AxisSlice, Cast, Transposed
from t5jax.convert.parameter_names import HUGGINGFACE
from t5jax.convert.raw_files import dtype_named
from t5jax.convert.source_checkpoint import (
    SourceCheckpoint,
    Weights,
    bind_parameters,
    parameter_origins,
)
from t5jax.convert.tokenizers import (
    SENTENCE_PIECE,
    read_vocabulary,
    tokenizer_notes,
    user_defined_pieces,
    write_tokenizer,
)
from t5jax.data.atomic_files import write_json_file
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.layer_stack import layer_paths, stack_of

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
SHARED, HEAD = "shared.weight", "lm_head.weight"
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# In the files of T5 1.0 for historical reasons; no implementation reads it.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
_OTHER_FORMATS = {
    "pytorch_model.bin": "a pickle, which can run any code when it is read",
    "pytorch_model.bin.index.json": "pickles, which can run any code when they are read",
    "tf_model.h5": "TensorFlow's",
    "flax_model.msgpack": "Flax's",
}


def is_huggingface(directory: pathlib.Path) -> bool:
    own = (CONFIG, safetensors_files.ONE_FILE, safetensors_files.INDEX, *_OTHER_FORMATS)
    return any((directory / name).is_file() for name in own)


def open_huggingface(path: str, ignored_keys: tuple[str, ...] = ()) -> SourceCheckpoint:
    """A T5, mT5 or umT5 of a local directory, with its special ids and decoding settings.

    Raises:
      ConfigError: it is of another family, its weights are in a format that is not read, or its
        settings have a key that may change the function and is not in `ignored_keys`.
      CheckpointError: files are missing, truncated or contradict each other.
    """
    directory = pathlib.Path(path)
    config = _read_json(directory / CONFIG)
    settings = huggingface_config.parse_config(config, str(directory / CONFIG), ignored_keys)
    has_own = (directory / GENERATION_CONFIG).is_file()
    generation = _read_json(directory / GENERATION_CONFIG) if has_own else None
    decoding = read_generation_settings(config, generation, path, ignored_keys)
    _refuse_other_formats(directory)
    weights = Weights(
        naming=HUGGINGFACE, where=path, arrays=safetensors_files.read_directory(directory)
    )
    notes = [f"generation_config: {note}" for note in decoding.notes]
    settings |= decoding.special_ids
    dropped = _resolve_embedding_tables(weights, config, notes)
    model = architecture.infer_model_config(weights, settings, notes)
    for name in weights.arrays.keys() & dropped.keys():
        notes.append(f"{name} is left out: {dropped[name]}")
    notes += tokenizer_notes(directory)
    return SourceCheckpoint(
        kind="huggingface",
        path=path,
        model=model,
        params=bind_parameters(model, weights, dropped),
        origins=parameter_origins(model, weights),
        notes=notes,
        vocabulary=read_vocabulary(directory),
        weights=weights,
        decoding=decoding.decoding,
        end_ids=decoding.eos_ids,
    )


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing: a Hugging Face model has one") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds no settings, but a {type(config).__name__}")
    return config


def _refuse_other_formats(directory: pathlib.Path) -> None:
    names_here = {path.name for path in directory.iterdir()}
    if names_here & {safetensors_files.ONE_FILE, safetensors_files.INDEX}:
        return
    for name, what in _OTHER_FORMATS.items():
        if name in names_here:
            raise ConfigError(
                f"{directory / name} is {what}; t5jax reads safetensors only. Rewrite it where you "
                'trust it, with transformers: python -c "from transformers import '
                f"AutoModelForSeq2SeqLM as M; M.from_pretrained('{directory}')"
                f".save_pretrained('{directory}-safetensors')\" and copy the tokenizer files"
            )
    raise CheckpointError(
        f"{directory} holds neither {safetensors_files.ONE_FILE} nor {safetensors_files.INDEX}"
    )


def _resolve_embedding_tables(
    weights: Weights, config: dict[str, Any], notes: list[str]
) -> dict[str, str]:
    """Leaves at most two tables, `shared` and a separate output projection; returns the dropped
    ones (name -> reason). Whether logits are tied and scaled follows from config and weights."""
    arrays = weights.arrays
    dropped = {_UNUSED: "no implementation reads it"}
    copies = [name for name in _COPIES if name in arrays]
    if SHARED not in arrays and copies:
        arrays[SHARED] = arrays[copies[0]]
        weights.original_names[SHARED] = copies[0]
    for name in copies:
        if not _equal(arrays[name], arrays[SHARED]):
            raise CheckpointError(
                f"{weights.where}: {name} differs from {SHARED}; t5jax's encoder and decoder share "
                "one token table"
            )
        dropped[name] = f"a copy of {SHARED}"
    if SHARED not in arrays:
        return dropped
    own_head = HEAD in arrays and not _equal(arrays[HEAD], arrays[SHARED])
    scaled = huggingface_config.scales_logits(config)
    if own_head and scaled and config["model_type"] == "t5":
        raise CheckpointError(
            f"{weights.where}: {HEAD} is not {SHARED}, but by {CONFIG} the logits are scaled as "
            "those of a tied model (tie_word_embeddings is not false); no T5 was trained so. Set "
            '"tie_word_embeddings": false in it if this is a T5 1.1, FLAN-T5 or ByT5'
        )
    if own_head and scaled:
        notes.append(
            "the logits are not scaled: umT5 was trained without, although config.json of "
            "transformers 5 has it"
        )
    if not own_head and not scaled:
        arrays[HEAD] = arrays[SHARED]
        weights.original_names[HEAD] = SHARED
        notes.append(f"the output projection is a copy of {SHARED}: tied, but not scaled")
    elif not own_head and HEAD in arrays:
        del arrays[HEAD]
        notes.append(f"{HEAD} is left out: a copy of {SHARED}")
    return dropped


def _equal(one: BlockArray, other: BlockArray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return all(np.array_equal(one.read(part), other.read(part)) for part in one.regions())


# ---- writing


def write_huggingface(
    source: SourceCheckpoint,
    directory: pathlib.Path,
    vocabulary: Vocabulary,
    *,
    dtype: str,
    max_shard_bytes: int,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, list[str]]:
    """Writes a directory that transformers loads; returns name -> names of the source arrays."""
    config = huggingface_config.make_config(source.model, dtype)
    tensors, made_of = {}, {}
    for path, array in source.params.items():
        for layer, layer_path in enumerate(layer_paths(path, array.shape)):
            try:
                name = HUGGINGFACE.name(layer_path)
            except KeyError as error:
                raise ConfigError(
                    f"{layer_path}: transformers has no T5 with such a weight"
                ) from error
            view = AxisSlice(array, layer) if stack_of(path) else array
            if len(view.shape) == 2 and layer_path != "token_embedder":
                view = Transposed(view)
            tensors[name] = Cast(view, dtype_named(dtype))
            origin = source.origins[path]
            made_of[name] = [origin[layer] if stack_of(path) else origin[0]]
    safetensors_files.write_directory(directory, tensors, max_shard_bytes, progress)
    write_json_file(directory / CONFIG, config)
    generation = write_generation_settings(source.model, source.decoding)
    write_json_file(directory / GENERATION_CONFIG, generation)
    write_tokenizer(vocabulary, directory)
    if own := user_defined_pieces(vocabulary):
        source.notes.append(
            f"the vocabulary has {len(own)} user-defined pieces ({', '.join(map(repr, own[:3]))}): "
            "the tokenizer of transformers 5 may cut texts that hold them otherwise; encode those "
            f"with the sentencepiece library and {SENTENCE_PIECE}"
        )
    return made_of
