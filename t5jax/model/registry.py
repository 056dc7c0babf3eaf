"""Registry of architectures: config -> model, abstract model, initial parameters."""

import jax
from flax import nnx

from t5jax.model.computation import resolve_computation
from t5jax.model.config import Architecture, T5Config
from t5jax.model.decoder_only import DecoderOnly, PrefixDecoderOnly
from t5jax.model.encoder_decoder import EncoderDecoder
from t5jax.model.encoder_only import EncoderOnly
from t5jax.model.shared_encoder_decoder import SharedEncoderDecoder
from t5jax.model.token_model import TokenModel
from t5jax.sharding import platform_in_program
from t5jax.types import Params

MODULES: dict[Architecture, type[TokenModel]] = {
    "encoder_decoder": EncoderDecoder,
    "shared_encoder_decoder": SharedEncoderDecoder,
    "decoder_only": DecoderOnly,
    "prefix_lm": PrefixDecoderOnly,
    "encoder_only": EncoderOnly,
}


def make_model(cfg: T5Config, rngs: nnx.Rngs) -> TokenModel:
    """The config's model with fresh float32 parameters."""
    cfg = resolve_computation(cfg, platform_in_program())
    return MODULES[cfg.architecture](cfg, rngs=rngs)


def abstract_model(cfg: T5Config) -> TokenModel:
    """The model with shapes in place of arrays."""
    return nnx.eval_shape(lambda: make_model(cfg, nnx.Rngs(params=0)))


def init_params(cfg: T5Config, key: jax.Array) -> Params:
    """Fresh float32 parameters."""
    return nnx.to_pure_dict(nnx.state(make_model(cfg, nnx.Rngs(params=key)), nnx.Param))
