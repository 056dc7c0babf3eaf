"""Directories with random weights in the layouts of published models."""

import json
import pathlib

import numpy as np

from t5jax.convert.tokenizers import read_vocabulary
from t5jax.model.config import T5Config
from tests.convert import foreign_tokenizers as tokenizers_of
from tests.convert.foreign import (
    TINY,
    huggingface_config,
    huggingface_weights,
    random_weights,
    write_safetensors,
)

PLAIN = {"mlp_activations": ("relu",), "tied_embeddings": True}
# layout -> (T5Config's fields, model_type, (pad, start, eos), rows beyond the tokenizer's ids)
LAYOUTS = {
    "madlad": ({}, "t5", (1, 0, 2), 16),
    "pile_t5": ({"per_layer_relative_bias": True}, "umt5", (0, 0, 2), 7),
    "codet5": (PLAIN, "t5", (0, 0, 2), 3),
    "aya": ({}, "mt5", (0, 0, 1), 9),
    "flan_ul2": ({}, "t5", (0, 0, 1), 28),
    "resized": (PLAIN, "t5", (0, 0, 1), 0),
}


def directory(folder: pathlib.Path, layout: str, **changes) -> pathlib.Path:
    """Tokenizer files of the layout, and random weights with its names and special ids."""
    fields, model_type, (pad, start, eos), spare = LAYOUTS[layout]
    tokenizers_of.LAYOUTS[layout](folder)
    vocabulary = read_vocabulary(folder)
    assert vocabulary is not None
    model = T5Config(**{**TINY, **fields, "vocab_size": vocabulary.vocab_size + spare})
    weights = huggingface_weights(random_weights(model, seed=3))
    if model.tied_embeddings:  # or every output repeats the token that it read last
        weights["shared.weight"] *= np.float32(0.05)
    if layout == "madlad":  # has one table under the decoder's name
        weights["decoder.embed_tokens.weight"] = weights.pop("shared.weight")
    config = huggingface_config(
        model, model_type, pad_token_id=pad, decoder_start_token_id=start, eos_token_id=eos
    )
    write_safetensors(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder
