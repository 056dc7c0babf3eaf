"""Keys of Hugging Face's config.json and generation_config.json: every one is used, known to change
nothing, or refused by name.
"""

from collections.abc import Collection, Mapping
from typing import Any

from t5jax.errors import ConfigError

# What transformers does not read when it computes logits of a T5, or what changes no number.
_UNREAD = "transformers' T5 does not read it"
_BOOKKEEPING = "says where the model comes from"
_HEAD = "belongs to a classification head"
_OUTPUT = "says what else is returned"
_SPEED = "changes how, not what, is computed"
HARMLESS = {
    "architectures": "the weights say which model it is",
    "transformers_version": _BOOKKEEPING,
    "name_or_path": _BOOKKEEPING,
    "finetuning_task": _BOOKKEEPING,
    "dtype": "the weights' own is read",
    "torch_dtype": "the weights' own is read",
    "use_bfloat16": "the weights' own is read",
    "tokenizer_class": "the tokenizer's files say which it is",
    "n_positions": "relative positions have no limit",
    "max_position_embeddings": "relative positions have no limit",
    "scalable_attention": _UNREAD,
    "output_past": _UNREAD,
    "sep_token_id": _UNREAD,
    "cls_token_id": _UNREAD,
    "mask_token_id": _UNREAD,
    "unk_token_id": "the tokenizer's is read",
    "initializer_factor": "of fresh weights",
    "classifier_dropout": _HEAD,
    "id2label": _HEAD,
    "label2id": _HEAD,
    "num_labels": _HEAD,
    "problem_type": _HEAD,
    "return_dict": _OUTPUT,
    "output_attentions": _OUTPUT,
    "output_hidden_states": _OUTPUT,
    "output_scores": _OUTPUT,
    "output_logits": _OUTPUT,
    "return_dict_in_generate": _OUTPUT,
    "torchscript": _SPEED,
    "use_cache": _SPEED,
    "gradient_checkpointing": _SPEED,
    "chunk_size_feed_forward": _SPEED,
    "attn_implementation": _SPEED,
    "tf_legacy_loss": "of TensorFlow's training loss",
}
# Harmless with these values; with any other they change the function.
_HARMLESS_AS = {
    "add_cross_attention": (False, True),  # an encoder-decoder has it
    "cross_attention_hidden_size": (),
    "is_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, []),
    "quantization_config": (),
    "rope_scaling": (),
}
_REASONS = {
    "quantization_config": "t5jax reads weights of float32, bfloat16 and float16: save the model "
    "dequantized with transformers",
    "tie_encoder_decoder": "the stacks would share their layers; save the model with untied stacks",
    "pruned_heads": "heads were pruned, and every head is read here",
}


def check_keys(
    config: Mapping[str, Any], known: Collection[str], where: str, ignored: Collection[str] = ()
) -> None:
    """Raises ConfigError for the first key that is neither used (`known`) nor harmless nor named in
    `ignored`. A key with null as its value is not set; one that begins with _ is bookkeeping."""
    for key, value in config.items():
        if key in known or key in HARMLESS or key in ignored or key.startswith("_"):
            continue
        if value is None or value in _HARMLESS_AS.get(key, ()):
            continue
        why = _REASONS.get(key, "t5jax does not know it, and it may change what the model computes")
        raise ConfigError(
            f"{where}: {key} is {value!r}: {why}. Where it changes nothing, convert with "
            f"--ignore-key {key}"
        )
