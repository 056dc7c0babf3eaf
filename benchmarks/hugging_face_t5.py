"""T5 of Hugging Face's transformers as the other side of a benchmark, set up as T5 1.1 is."""

import torch
import transformers

from t5jax.model.config import T5Config


def flush_denormals() -> None:
    """Denormal numbers are 0 in PyTorch, as they always are in programs of XLA's CPU back end.

    To be called before PyTorch computes anything: its threads take the setting over when they
    start. Raises RuntimeError where a processor cannot, or a thread has not.
    """
    if not torch.set_flush_denormal(True) or not flushes_denormals():
        raise RuntimeError("PyTorch does not flush denormal numbers to 0 on this machine")


def flushes_denormals() -> bool:
    """Whether a product that only denormal numbers can hold is 0 in all threads."""
    return not bool(torch.any(torch.full((2**22,), 1e-37) * 1e-5))


def make_hugging_face_t5(
    cfg: T5Config, *, dropout_rate: float = 0.0
) -> transformers.T5ForConditionalGeneration:
    """The model of `cfg`'s sizes with random weights and SDPA attention, its logits from a table of
    their own at the scale that T5 gives them, so that its loss starts at about ln(vocab_size).

    transformers 5 ties the two tables of every T5 that it makes, with logits 22 times too large for
    T5 1.1 (a loss of 200), whose softmax is full of denormal numbers.
    """
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=cfg.vocab_size,
            d_model=cfg.emb_dim,
            d_kv=cfg.head_dim,
            d_ff=cfg.mlp_dim,
            num_layers=cfg.num_encoder_layers,
            num_decoder_layers=cfg.num_decoder_layers,
            num_heads=cfg.num_heads,
            relative_attention_num_buckets=cfg.relpos_num_buckets,
            relative_attention_max_distance=cfg.relpos_max_distance,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,  # which only says that the logits are not scaled
            dropout_rate=dropout_rate,
            decoder_start_token_id=0,
            attn_implementation="sdpa",
        )
    )
    table = torch.randn(cfg.vocab_size, cfg.emb_dim) * cfg.emb_dim**-0.5
    model.lm_head.weight = torch.nn.Parameter(table)
    model.config.tie_word_embeddings = False
    for stack in (model, model.encoder, model.decoder):
        assert stack.config._attn_implementation == "sdpa", stack.config._attn_implementation
    return model
