"""Model configuration of the T5 family: T5Config and one function per published size.

Numbers: T5 1.0 from Raffel et al. 2020 (JMLR 21/140) section 2.1 and 3.6, its architectures from
section 3.2; the others from the released configurations of T5 1.1, mT5, umT5 and ByT5.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

from t5jax.errors import ConfigError
from t5jax.types import EOS_ID, PAD_ID

Architecture = Literal[
    "encoder_decoder",
    "shared_encoder_decoder",  # the encoder is the decoder without its cross-attention
    "decoder_only",  # language model: causal over inputs EOS targets EOS
    "prefix_lm",  # the same, with all inputs visible to one another
    "encoder_only",  # BERT: predicts what is masked
]
AttentionImplementation = Literal[
    "auto",  # the fastest on the platform of the mesh
    "einsum",  # the reference
    "rowwise",  # CPU: a row's scores stay in cache
    "pallas",  # TPU: our own kernels, for any mask and length
    "cudnn",  # GPU: cuDNN's fused kernels, in bfloat16, for rows that are not packed
    "triton",  # GPU: our own kernels, for any mask and length
]
Dtype = Literal["auto", "bfloat16", "float32"]
Remat = Literal["auto", "none", "dots", "full"]
REMAT_POLICIES = get_args(Remat)[1:]  # each needs less memory than the one before, and more time
_LACKING = {"encoder": ("decoder_only", "prefix_lm"), "decoder": ("encoder_only",)}
ACTIVATION_NAMES = ("linear", "relu", "gelu", "gelu_exact", "silu", "sigmoid", "tanh")


@dataclasses.dataclass(kw_only=True, slots=True)
class T5Config:
    """Architecture and sizes, and (below the line) how they are computed, which changes no result
    by more than rounding."""

    architecture: Architecture = "encoder_decoder"
    vocab_size: int = 32128  # rows of the embedding table: at least the vocabulary's ids
    # Rows of the table that have a probability, in training and in scores: at least the
    # vocabulary's ids. 0: all of them, spare ones too, as in T5 and transformers.
    softmax_size: int = 0
    pad_id: int = PAD_ID  # fills rows up and is never read; -1 where no id of the table is for it
    eos_id: int = EOS_ID  # ends an output
    decoder_start_id: int = PAD_ID  # what the decoder reads first
    emb_dim: int = 512
    num_heads: int = 6
    head_dim: int = 64  # not emb_dim / num_heads: see T5 1.1 small, 3B, 11B, ByT5
    mlp_dim: int = 1024
    num_encoder_layers: int = 8  # 0 where the architecture has no encoder
    num_decoder_layers: int = 8  # 0 where it has no decoder
    mlp_activations: tuple[str, ...] = ("gelu", "linear")  # two: gated (GLU variants), one: plain
    tied_embeddings: bool = False  # logits from the token embedding, scaled by emb_dim**-0.5
    relpos_num_buckets: int = 32
    relpos_max_distance: int = 128
    per_layer_relative_bias: bool = False  # umT5; otherwise one table per stack
    adapter_dim: int = 0  # inner width of an adapter at the end of every block; 0: none
    prompt_length: int = 0  # learned vectors in front of the encoder's input; 0: none
    dropout_rate: float = 0.0
    # ---- how it is computed; "auto": by platform, model and memory (run/auto.py)
    dtype: Dtype = "auto"  # of activations and of weights in use
    attention: AttentionImplementation = "auto"
    # Of the scan over layers; compile time grows with it.
    unroll_layers: int | Literal["auto", "all"] = "auto"
    remat: Remat = "auto"  # what the backward pass computes again

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            optional = field.default == 0 or field.name.endswith("coder_layers")
            if field.name in _SPECIAL_IDS:
                continue
            if field.type is int and value < (least := 0 if optional else 1):
                raise ConfigError(f"model.{field.name} = {value}: must be at least {least}")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ConfigError(f"model.dropout_rate = {self.dropout_rate}: must be in [0, 1)")
        if len(self.mlp_activations) not in (1, 2):
            raise ConfigError(
                f"model.mlp_activations = {self.mlp_activations}: give one activation, "
                'or two for a gated MLP, e.g. ("gelu", "linear")'
            )
        for name in self.mlp_activations:
            if name not in ACTIVATION_NAMES:
                raise ConfigError(
                    f"model.mlp_activations: {name!r} is not one of {', '.join(ACTIVATION_NAMES)}"
                )
        if self.relpos_num_buckets % 4:
            raise ConfigError(
                f"model.relpos_num_buckets = {self.relpos_num_buckets}: must be a multiple of 4 "
                "(two directions, each half exact and half logarithmic)"
            )
        if self.relpos_max_distance <= self.relpos_num_buckets // 2:
            raise ConfigError(
                f"model.relpos_max_distance = {self.relpos_max_distance}: must be more than "
                f"{self.relpos_num_buckets // 2}, the distances with a bucket of their own"
            )
        for name, kind in (
            ("architecture", Architecture),
            ("dtype", Dtype),
            ("attention", AttentionImplementation),
            ("remat", Remat),
        ):
            if getattr(self, name) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                why = " (T5's activations overflow in float16)" if name == "dtype" else ""
                raise ConfigError(
                    f"model.{name} = {getattr(self, name)!r}: choose one of {choices}{why}"
                )
        self._check_stacks()
        self._check_ids()
        unroll = self.unroll_layers
        if unroll not in ("auto", "all") and (not isinstance(unroll, int) or unroll < 1):
            raise ConfigError(f"model.unroll_layers = {unroll!r}: at least 1, 'all' or 'auto'")

    def _check_ids(self) -> None:
        """Raises ConfigError for a special id without a row, and for padding that is a token."""
        for name, least in _SPECIAL_IDS.items():
            value = getattr(self, name)
            if not least <= value < self.vocab_size:
                raise ConfigError(
                    f"model.{name} = {value}: must be from {least} to {self.vocab_size - 1}, the "
                    "rows of the table (model.vocab_size)"
                )
        if self.pad_id == self.eos_id:
            raise ConfigError(
                f"model.pad_id = {self.pad_id} is model.eos_id, too: what ends an output would not "
                "be read; set model.pad_id = -1, which pads with no token at all"
            )
        if self.softmax_size > self.vocab_size:
            raise ConfigError(
                f"model.softmax_size = {self.softmax_size}: the table has model.vocab_size = "
                f"{self.vocab_size} rows; set fewer, or 0 for all"
            )

    def _check_stacks(self) -> None:
        """Raises ConfigError for a missing stack, or one that the architecture does not have."""
        for stack, lacking in _LACKING.items():
            name, layers = f"num_{stack}_layers", getattr(self, f"num_{stack}_layers")
            if self.architecture in lacking and layers != 0:
                raise ConfigError(
                    f"model.{name} = {layers}: model.architecture = {self.architecture!r} has no "
                    f"{stack}; set model.{name} = 0"
                )
            if self.architecture not in lacking and layers < 1:
                raise ConfigError(
                    f"model.{name} = {layers}: must be at least 1 with model.architecture = "
                    f"{self.architecture!r}"
                )
        if self.prompt_length and not (self.num_encoder_layers and self.num_decoder_layers):
            raise ConfigError(
                f"model.prompt_length = {self.prompt_length}: a prompt stands in front of an "
                f"encoder-decoder's input, model.architecture = {self.architecture!r} has none; "
                "set model.prompt_length = 0"
            )
        if self.architecture == "shared_encoder_decoder" and (
            self.num_encoder_layers != self.num_decoder_layers
        ):
            raise ConfigError(
                f"model.num_encoder_layers = {self.num_encoder_layers}, model.num_decoder_layers = "
                f"{self.num_decoder_layers}: model.architecture = 'shared_encoder_decoder' has the "
                "same layers in both, so set the same number"
            )


_SPECIAL_IDS = {"pad_id": -1, "eos_id": 0, "decoder_start_id": 0}  # name -> the least
_COMPUTING = ("dropout_rate", "dtype", "attention", "unroll_layers", "remat")


def architecture_differences(one: T5Config, other: T5Config) -> list[tuple[str, Any, Any]]:
    """(field, value of one, value of the other) of the fields that determine the parameters."""
    names = [field.name for field in dataclasses.fields(T5Config) if field.name not in _COMPUTING]
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in names]
    return [found for found in pairs if found[1] != found[2]]


def _t5_1_0(**shape) -> T5Config:
    return T5Config(
        **{"mlp_activations": ("relu",), "tied_embeddings": True, "dropout_rate": 0.1, **shape}
    )


def _stack(layers: int, emb: int, mlp: int, heads: int, head_dim: int = 64) -> dict[str, int]:
    return {
        "num_encoder_layers": layers,
        "num_decoder_layers": layers,
        "emb_dim": emb,
        "mlp_dim": mlp,
        "num_heads": heads,
        "head_dim": head_dim,
    }


_GATED = {
    "small": _stack(8, 512, 1024, 6),
    "base": _stack(12, 768, 2048, 12),
    "large": _stack(24, 1024, 2816, 16),
    "xl": _stack(24, 2048, 5120, 32),
    "xxl": _stack(24, 4096, 10240, 64),
}


def t5_small(**changes) -> T5Config:
    """T5 1.0 small, 60,506,624 parameters."""
    return _t5_1_0(**{**_stack(6, 512, 2048, 8), **changes})


def t5_base(**changes) -> T5Config:
    """T5 1.0 base, 222,903,552 parameters."""
    return _t5_1_0(**{**_stack(12, 768, 3072, 12), **changes})


def t5_base_shared(**changes) -> T5Config:
    """T5 1.0 base whose encoder is its decoder, 137,949,312 parameters."""
    return t5_base(**{"architecture": "shared_encoder_decoder", **changes})


def t5_base_6_layers(**changes) -> T5Config:
    """Half of T5 1.0 base in depth: 6 + 6 layers, 123,790,080 parameters."""
    return t5_base(**{"num_encoder_layers": 6, "num_decoder_layers": 6, **changes})


def t5_base_decoder_only(**changes) -> T5Config:
    """A language model: T5 1.0 base's decoder, no cross-attention, 109,628,544 parameters."""
    return t5_base(**{"architecture": "decoder_only", "num_encoder_layers": 0, **changes})


def t5_base_prefix_lm(**changes) -> T5Config:
    """The same as a prefix LM, 109,628,544 parameters."""
    return t5_base(**{"architecture": "prefix_lm", "num_encoder_layers": 0, **changes})


def t5_base_encoder_only(**changes) -> T5Config:
    """BERT base's shape: T5 1.0 base's encoder with logits, 109,628,544 parameters."""
    return t5_base(**{"architecture": "encoder_only", "num_decoder_layers": 0, **changes})


def t5_large(**changes) -> T5Config:
    """T5 1.0 large, 737,668,096 parameters."""
    return _t5_1_0(**{**_stack(24, 1024, 4096, 16), **changes})


def t5_3b(**changes) -> T5Config:
    """T5 1.0 3B, 2,851,598,336 parameters."""
    return _t5_1_0(**{**_stack(24, 1024, 16384, 32, head_dim=128), **changes})


def t5_11b(**changes) -> T5Config:
    """T5 1.0 11B, 11,307,321,344 parameters."""
    return _t5_1_0(**{**_stack(24, 1024, 65536, 128, head_dim=128), **changes})


def t5_1_1_small(**changes) -> T5Config:
    """T5 1.1 small (also LM-adapted and FLAN-T5), 76,961,152 parameters."""
    return T5Config(**{**_GATED["small"], **changes})


def t5_1_1_base(**changes) -> T5Config:
    """T5 1.1 base (also LM-adapted and FLAN-T5), 247,577,856 parameters."""
    return T5Config(**{**_GATED["base"], **changes})


def t5_1_1_large(**changes) -> T5Config:
    """T5 1.1 large (also LM-adapted and FLAN-T5), 783,150,080 parameters."""
    return T5Config(**{**_GATED["large"], **changes})


def t5_1_1_xl(**changes) -> T5Config:
    """T5 1.1 xl (also LM-adapted and FLAN-T5), 2,849,757,184 parameters."""
    return T5Config(**{**_GATED["xl"], **changes})


def t5_1_1_xxl(**changes) -> T5Config:
    """T5 1.1 xxl (also LM-adapted and FLAN-T5), 11,135,332,352 parameters."""
    return T5Config(**{**_GATED["xxl"], **changes})


def _mt5(size: str, changes: dict) -> T5Config:
    return T5Config(**{**_GATED[size], "vocab_size": 250112, **changes})


def _umt5(size: str, changes: dict) -> T5Config:
    shape = {"vocab_size": 256384, "per_layer_relative_bias": True}
    return T5Config(**{**_GATED[size], **shape, **changes})


def _byt5(encoder: int, decoder: int, emb: int, mlp: int, heads: int, changes: dict) -> T5Config:
    shape = _stack(encoder, emb, mlp, heads) | {"num_decoder_layers": decoder, "vocab_size": 384}
    return T5Config(**{**shape, **changes})


def mt5_small(**changes) -> T5Config:
    """mT5 small, 300,176,768 parameters."""
    return _mt5("small", changes)


def mt5_base(**changes) -> T5Config:
    """mT5 base, 582,401,280 parameters."""
    return _mt5("base", changes)


def mt5_large(**changes) -> T5Config:
    """mT5 large, 1,229,581,312 parameters."""
    return _mt5("large", changes)


def mt5_xl(**changes) -> T5Config:
    """mT5 xl, 3,742,619,648 parameters."""
    return _mt5("xl", changes)


def mt5_xxl(**changes) -> T5Config:
    """mT5 xxl, 12,921,057,280 parameters."""
    return _mt5("xxl", changes)


def umt5_small(**changes) -> T5Config:
    """umT5 small, 306,601,984 parameters."""
    return _umt5("small", changes)


def umt5_base(**changes) -> T5Config:
    """umT5 base, 592,043,520 parameters."""
    return _umt5("base", changes)


def umt5_xl(**changes) -> T5Config:
    """umT5 xl, 3,768,356,864 parameters."""
    return _umt5("xl", changes)


def umt5_xxl(**changes) -> T5Config:
    """umT5 xxl, 12,972,531,712 parameters."""
    return _umt5("xxl", changes)


def byt5_small(**changes) -> T5Config:
    """ByT5 small, 299,637,760 parameters."""
    return _byt5(12, 4, 1472, 3584, 6, changes)


def byt5_base(**changes) -> T5Config:
    """ByT5 base, 581,653,248 parameters."""
    return _byt5(18, 6, 1536, 3968, 12, changes)


def byt5_large(**changes) -> T5Config:
    """ByT5 large, 1,228,183,552 parameters."""
    return _byt5(36, 12, 1536, 3840, 16, changes)


def byt5_xl(**changes) -> T5Config:
    """ByT5 xl, 3,737,801,728 parameters."""
    return _byt5(36, 12, 2560, 6720, 32, changes)


def byt5_xxl(**changes) -> T5Config:
    """ByT5 xxl, 12,906,899,328 parameters."""
    return _byt5(36, 12, 4672, 12352, 64, changes)


_1_1 = {
    "small": t5_1_1_small,
    "base": t5_1_1_base,
    "large": t5_1_1_large,
    "xl": t5_1_1_xl,
    "xxl": t5_1_1_xxl,
}

SIZES: dict[str, Callable[..., T5Config]] = {
    **{f.__name__: f for f in (t5_small, t5_base, t5_large, t5_3b, t5_11b)},
    **{f.__name__: f for f in (t5_base_shared, t5_base_6_layers)},  # section 3.2 of the paper
    **{f.__name__: f for f in (t5_base_decoder_only, t5_base_prefix_lm, t5_base_encoder_only)},
    **{f"t5_1_1_{size}": f for size, f in _1_1.items()},
    **{f"t5_lm_adapt_{size}": f for size, f in _1_1.items()},
    **{f"flan_t5_{size}": f for size, f in _1_1.items()},
    **{f.__name__: f for f in (mt5_small, mt5_base, mt5_large, mt5_xl, mt5_xxl)},
    **{f.__name__: f for f in (umt5_small, umt5_base, umt5_xl, umt5_xxl)},
    **{f.__name__: f for f in (byt5_small, byt5_base, byt5_large, byt5_xl, byt5_xxl)},
}
