"""Decoding: greedy, sampling, beam search, and target log-likelihoods.

config.py             DecodingConfig: the method and its settings
decode_state.py       one decoding step with its KV cache; several models as an ensemble
logits_processors.py  what changes logits before a token is chosen, top-k and top-p
sampling.py           greedy decoding and sampling
beam_search.py        beam search
scoring.py            log-likelihood of given targets
generator.py          batches of inputs of any length, on any mesh
"""

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.generator import Generated, Generator, Scored

__all__ = ["DecodingConfig", "Generated", "Generator", "Scored"]
