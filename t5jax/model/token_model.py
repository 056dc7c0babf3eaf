"""Base class of the models: token embedding and logits.

Shape suffixes: B rows, T length, D emb_dim, V vocab.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.model.config import T5Config
from t5jax.model.embedding import embed_tokens
from t5jax.model.layers import fan_in_truncated, new_param
from t5jax.model.matmul import TransposedParam, small_batch_matmul
from t5jax.sharding import constrain
from t5jax.types import Batch


class TokenModel(nnx.Module):
    """Token embedding, the stacks of a subclass, and logits.

    Embedding and logits are tied in Raffel et al. 2020, not in T5 1.1.
    """

    def __init__(self, cfg: T5Config, *, rngs: nnx.Rngs):
        D, V = cfg.emb_dim, cfg.vocab_size
        self.token_embedder = new_param(rngs, jax.nn.initializers.normal(1.0), vocab=V, embed=D)
        self.add_stacks(cfg, rngs)
        if not cfg.tied_embeddings:
            self.logits_dense = new_param(rngs, fan_in_truncated, embed=D, vocab=V)
        self.tied = cfg.tied_embeddings
        self.pad_id, self.eos_id = cfg.pad_id, cfg.eos_id
        self.decoder_start_id = cfg.decoder_start_id
        self.softmax_size = cfg.softmax_size

    def add_stacks(self, cfg: T5Config, rngs: nnx.Rngs) -> None:
        """Makes the stacks between embedding and logits."""
        raise NotImplementedError

    def hidden(self, batch: Batch, keys_B: jax.Array | None = None) -> jax.Array:
        """Output [B, T, D] at every position that predicts a token, as the final norm leaves it."""
        raise NotImplementedError

    def __call__(self, batch: Batch, keys_B: jax.Array | None = None) -> jax.Array:
        """Teacher-forced logits, float32 [B, T, V], of a batch of seqio's features.

        `keys_B` turns dropout on. Packed batches carry `*_segment_ids`; without them every row is
        one segment and `pad_id` is padding.
        """
        hidden_BTD, table_DV = self.hidden_and_table(batch, keys_B)
        return constrain(logits(hidden_BTD, table_DV), "batch", None, "vocab")

    def hidden_and_table(self, batch: Batch, keys_B: jax.Array | None = None):
        """Output [B, T, D] and the logits table [D, V], for a loss that computes logits in
        chunks."""
        return self._scaled(self.hidden(batch, keys_B)), self.logits_table()

    def embed(self, tokens: jax.Array) -> jax.Array:
        return embed_tokens(self.token_embedder[...], tokens, self.compute_dtype)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """Of all parameters but the token table, which training leaves in float32."""
        stack = self.encoder if hasattr(self, "encoder") else self.decoder  # pyright: ignore
        return stack.final_norm.scale[...].dtype

    def logits_table(self) -> jax.Array:
        """[D, V]; V is `softmax_size`, the whole table unless the config says otherwise."""
        table_DV = self.token_embedder[...].T if self.tied else self.logits_dense[...]
        table_DV = table_DV.astype(self.compute_dtype)
        return table_DV[:, : self.softmax_size] if self.softmax_size else table_DV

    def _scaled(self, x: jax.Array) -> jax.Array:
        return x * (x.shape[-1] ** -0.5) if self.tied else x


def logits(hidden: jax.Array, table_DV: jax.Array) -> jax.Array:
    """Operands in the compute dtype, accumulated and returned in float32."""
    return jnp.einsum("...D,DV->...V", hidden, table_DV, preferred_element_type=jnp.float32)


def logits_of_rows(hidden_RD: jax.Array, table: nnx.Param) -> jax.Array:
    """`logits` with the table of `DecodeWeights`."""
    if isinstance(table, TransposedParam):
        return small_batch_matmul(hidden_RD, table[...], jnp.float32)
    return logits(hidden_RD, table[...])


def segment_ids(batch: Batch, side: str, tokens: str, pad_id: int) -> jax.Array:
    """Packed batches carry segment ids; in others every row is one segment, and padding is 0."""
    return batch.get(f"{side}_segment_ids", is_token(batch[tokens], pad_id).astype(jnp.int32))


def is_packed(batch: Batch, side: str) -> bool:
    """Whether rows may have several segments. In other batches padding is at a row's end alone:
    nowhere else is `pad_id` let into a row."""
    return f"{side}_segment_ids" in batch


def is_token(tokens: jax.Array, pad_id: int) -> jax.Array:
    """bool: False at padding. The id 0 is a token where another one pads."""
    return tokens != pad_id


def shifted_right(targets_BT: jax.Array, start_id: int) -> jax.Array:
    """What a decoder reads that predicts the targets: `start_id`, then all but the last of them."""
    return jnp.pad(targets_BT, ((0, 0), (1, 0)), constant_values=start_id)[:, :-1]
