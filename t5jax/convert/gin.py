"""Settings of a gin file beside a T5X or Mesh TensorFlow checkpoint, as fields of T5Config.

Only what is written out as a Python literal or a macro for one is understood; the rest of such a
file (configurables, references) says nothing about shapes.
"""

import ast
import pathlib
import re
from typing import Any

_BINDING = re.compile(r"^([\w./@]+)\s*=\s*(.+)$", re.DOTALL)

# The end of a binding's name -> our field. `activation` and the like are Mesh TensorFlow's.
_T5X = {
    f"T5Config.{name}": name
    for name in (
        "vocab_size", "emb_dim", "num_heads", "num_encoder_layers", "num_decoder_layers",
        "head_dim", "mlp_dim", "mlp_activations", "dropout_rate",
    )
} | {"T5Config.logits_via_embedding": "tied_embeddings"}  # fmt: skip
_MESH_TF = {
    "encoder/DenseReluDense.activation": "mlp_activations",
    "encoder/DenseReluDense.hidden_size": "mlp_dim",
    "encoder/DenseReluDense.dropout_rate": "dropout_rate",
    "encoder/SelfAttention.num_heads": "num_heads",
    "encoder/SelfAttention.key_value_size": "head_dim",
    "encoder/SelfAttention.relative_attention_num_buckets": "relpos_num_buckets",
    "encoder/make_layer_stack.num_layers": "num_encoder_layers",
    "decoder/make_layer_stack.num_layers": "num_decoder_layers",
    "encoder/Unitransformer.d_model": "emb_dim",
    "decoder/Unitransformer.shared_embedding_and_softmax_weights": "tied_embeddings",
}
_ACTIVATIONS = {"swish": "silu"}


def find(directory: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    """The gin file beside a checkpoint: in its directory or the one above."""
    places = [place / name for place in (directory, directory.parent) for name in names]
    return next((place for place in places if place.is_file()), None)


def settings(text: str) -> dict[str, Any]:
    """Fields of T5Config that the file decides."""
    bindings = _bindings(text)
    fields = {}
    for name, value in bindings.items():
        for ending, field in {**_T5X, **_MESH_TF}.items():
            if name == ending or name.endswith(f".{ending}"):
                fields[field] = value
    if "mlp_activations" in fields:
        given = fields["mlp_activations"]
        listed = (given,) if isinstance(given, str) else tuple(given)
        fields["mlp_activations"] = tuple(_ACTIVATIONS.get(name, name) for name in listed)
    if "dropout_rate" in fields:
        fields["dropout_rate"] = float(fields["dropout_rate"])
    return fields


def _bindings(text: str) -> dict[str, Any]:
    """Name -> literal, macros resolved; what is no literal is left out."""
    found: dict[str, str] = {}
    for line in _statements(text):
        if match := _BINDING.match(line):
            found[match[1]] = match[2].strip()
    values = {}
    for name, written in found.items():
        seen = 0
        while written.startswith("%") and seen < 10:
            written, seen = found.get(written[1:].split("/")[-1], found.get(written[1:], "")), (
                seen + 1
            )  # fmt: skip
        try:
            values[name] = ast.literal_eval(written)
        except (ValueError, SyntaxError):
            continue
    return values


def _statements(text: str) -> list[str]:
    """Lines without comments; a value goes on after a backslash and within brackets."""
    statements, current = [], ""
    for raw in text.splitlines():
        line = raw if "'" in raw or '"' in raw else raw.split("#")[0]
        current += line.rstrip().removesuffix("\\")
        opened = sum(map(current.count, "([{")) - sum(map(current.count, ")]}"))
        if not raw.rstrip().endswith("\\") and opened <= 0:
            statements.append(current.strip())
            current = ""
    return statements
