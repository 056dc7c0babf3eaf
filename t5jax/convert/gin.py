"""Model settings of the gin file beside a T5X or Mesh TensorFlow checkpoint.

Only Python literals and macros of them are parsed; the rest of such a file (configurables,
references) does not concern the model's shapes.
"""

import ast
import pathlib
import re
from typing import Any

_BINDING = re.compile(r"^([\w./@]+)\s*=\s*(.+)$", re.DOTALL)

# Suffix of a binding's name -> field of T5Config.
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


def find_gin_file(directory: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    """The gin file beside a checkpoint: in its directory or the one above."""
    files = [parent / name for parent in (directory, directory.parent) for name in names]
    return next((file for file in files if file.is_file()), None)


def parse_gin_settings(text: str) -> dict[str, Any]:
    """Fields of T5Config that the file binds."""
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
    """Name -> literal, macros resolved; values that are no literals are left out."""
    expressions: dict[str, str] = {}
    for line in _statements(text):
        if match := _BINDING.match(line):
            expressions[match[1]] = match[2].strip()
    values = {}
    for name, expression in expressions.items():
        for _ in range(10):  # nested macros; a cycle ends as no literal
            if not expression.startswith("%"):
                break
            macro = expression[1:]
            expression = expressions.get(macro.split("/")[-1], expressions.get(macro, ""))
        try:
            values[name] = ast.literal_eval(expression)
        except (ValueError, SyntaxError):
            continue
    return values


def _statements(text: str) -> list[str]:
    """Lines without comments; a value continues after a backslash and within brackets."""
    statements, current = [], ""
    for raw in text.splitlines():
        line = raw if "'" in raw or '"' in raw else raw.split("#")[0]
        current += line.rstrip().removesuffix("\\")
        opened = sum(map(current.count, "([{")) - sum(map(current.count, ")]}"))
        if not raw.rstrip().endswith("\\") and opened <= 0:
            statements.append(current.strip())
            current = ""
    return statements
