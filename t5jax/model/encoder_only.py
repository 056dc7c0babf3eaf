"""An encoder with logits at every position: BERT's architecture with T5's blocks.

Devlin et al. 2019 (arXiv:1810.04805), section 3.1; what is predicted are the tokens that the loss
weights, those hidden behind the mask token.
"""

import jax
from flax import nnx

from t5jax.model.attention import Mask
from t5jax.model.config import T5Config
from t5jax.model.encoder_decoder import Stack
from t5jax.model.token_model import TokenModel, is_packed, segment_ids
from t5jax.types import Batch


class EncoderOnly(TokenModel):
    """Every position sees its whole segment and predicts its own token."""

    def add_stacks(self, cfg: T5Config, rngs: nnx.Rngs) -> None:
        self.encoder = Stack(cfg, cfg.num_encoder_layers, rngs=rngs)

    def hidden(self, batch: Batch, keys_B: jax.Array | None = None) -> jax.Array:
        segments_BS = segment_ids(batch, "encoder", "encoder_input_tokens", self.pad_id)
        x_BSD = self.embed(batch["encoder_input_tokens"])
        mask = Mask(segments_BS, segments_BS, padded_at_end=not is_packed(batch, "encoder"))
        return self.encoder(x_BSD, mask, keys_B=keys_B)
