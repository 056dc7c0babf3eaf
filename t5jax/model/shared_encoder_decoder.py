"""Encoder-decoder with parameters shared between encoder and decoder.

Raffel et al. 2020, section 3.2.2: as many parameters as a language model of the same depth, as much
work as an encoder-decoder. What coincides is what has the same name in Mesh TensorFlow
(`bi_v1_shared.gin`): self-attention, MLP, their norms, the final norm and the position bias, whose
buckets the encoder reads in both directions; cross-attention and its norm are the decoder's alone.
"""

from flax import nnx

from t5jax.model.config import T5Config
from t5jax.model.encoder_decoder import EncoderDecoder, Stack


class SharedEncoderDecoder(EncoderDecoder):
    """`decoder` is both stacks."""

    def add_stacks(self, cfg: T5Config, rngs: nnx.Rngs) -> None:
        self.decoder = Stack(cfg, cfg.num_decoder_layers, cross_attention=True, rngs=rngs)
        self.add_prompt(cfg, rngs)

    @property
    def encoder_stack(self) -> Stack:
        return self.decoder
