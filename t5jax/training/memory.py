"""Memory of a train step by arithmetic: what is resident, and activations that wait for the
backward pass.

An estimate that needs no compiler; `t5jax plan` has the compiler's own numbers.

Shape suffixes: B rows, S encoder length, T decoder length, D emb_dim, J num_heads * head_dim, F
mlp_dim, N heads, V vocab.
"""

import dataclasses
import math
from typing import Any

import jax

from t5jax.model.config import T5Config
from t5jax.training.chunked_loss import chunks_by_size
from t5jax.training.losses import Loss
from t5jax.training.steps import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes of one device."""

    state: float  # parameters and optimizer state
    gradients: float  # float32, of the parameters that train
    activations_of_row: float
    logits: float = 0.0  # of the chunk of tokens whose logits exist at a time

    def total(self, rows: int, num_microbatches: int) -> float:
        """Of a step with `rows` rows in a microbatch; gradients of several are summed in a second
        copy."""
        copies = 1 if num_microbatches == 1 else 2
        resident = self.state + copies * self.gradients
        return resident + rows * self.activations_of_row + self.logits


def resident_bytes(program: Program) -> tuple[float, float]:
    """(parameters and optimizer state, gradients) of one device, as they are sharded."""
    return device_bytes(program.abstract_state), device_bytes(program.trained)


def device_bytes(tree: Any) -> float:
    """Bytes of the shards of abstract arrays that one device holds."""
    return float(sum(map(shard_bytes, jax.tree.leaves(tree))))


def shard_bytes(x: jax.ShapeDtypeStruct) -> int:
    assert x.sharding is not None
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def activation_bytes(
    cfg: T5Config, encoder_length: int, decoder_length: int, *, remat: str, scores: bool
) -> float:
    """What one row keeps for the backward pass, without logits."""
    S, T, D = encoder_length, decoder_length, cfg.emb_dim
    item = 4 if cfg.dtype == "float32" else 2
    encoder = cfg.num_encoder_layers * _layer(cfg, S, S, remat, item, scores)
    decoder = cfg.num_decoder_layers * _layer(cfg, T, T, remat, item, scores)
    if cfg.num_encoder_layers and cfg.num_decoder_layers:
        decoder += cfg.num_decoder_layers * _attention(cfg, T, S, remat, item, scores)
    # Of one layer all is there while its gradient is computed.
    working = max(_layer(cfg, length, length, "none", item, scores) for length in (S, T) if length)
    return encoder + decoder + (working if remat != "none" else 0.0) + item * D * (S + T)


def logits_bytes(vocab_size: int, num_tokens: int, num_chunks: int | None = None) -> float:
    """Float32 logits and their gradient of one chunk of a device's tokens in a microbatch; None:
    the loss's own number of chunks."""
    chunks = num_chunks or chunks_by_size(num_tokens, vocab_size)
    return 2.0 * 4 * -(-num_tokens // chunks) * vocab_size


def stores_scores(platform: str, num_devices: int) -> bool:
    """Whether attention stores them, as einsum does: on several CPU devices alone."""
    return platform == "cpu" and num_devices > 1


def step_bytes(
    cfg: T5Config,
    loss: Loss,
    lengths: tuple[int, int],
    *,
    state: float,
    gradients: float,
    rows: int,
    num_microbatches: int,
    remat: str,
    scores: bool,
) -> float:
    """Of a train step on one device, with `rows` rows of these (encoder, decoder) lengths in a
    microbatch."""
    chunks = getattr(loss, "num_chunks", 1)
    memory = StepMemory(
        state=state,
        gradients=gradients,
        activations_of_row=activation_bytes(cfg, *lengths, remat=remat, scores=scores),
        logits=logits_bytes(
            cfg.vocab_size,
            rows * (lengths[1] or lengths[0]),
            None if chunks == "auto" else chunks,
        ),
    )
    return memory.total(rows, num_microbatches)


def _layer(cfg: T5Config, T: int, S: int, remat: str, item: int, scores: bool) -> float:
    """Bytes of one row in a block's self-attention and MLP."""
    D, F = cfg.emb_dim, cfg.mlp_dim
    matrices = len(cfg.mlp_activations)
    # The block's input; the outputs of its products; what norms and activations make of them.
    mlp = {"full": 0, "dots": matrices * F + D, "none": (2 * matrices + 1) * F + 3 * D}[remat]
    return item * T * (D + mlp) + _attention(cfg, T, S, remat, item, scores)


def _attention(cfg: T5Config, T: int, S: int, remat: str, item: int, scores: bool) -> float:
    D, J = cfg.emb_dim, cfg.num_heads * cfg.head_dim
    if remat == "full":
        return 0.0
    kept = item * (2 * T * J + 2 * S * J + T * D + (2 * T * D if remat == "none" else 0))
    # Products of two activations are computed again under "dots".
    stored = cfg.num_heads * T * S * (4 + item) if scores and remat == "none" else 0
    return kept + stored
