"""From a model to text: the likeliest tokens, samples, beams, and what the model thinks of a text.

config.py       DecodingConfig: how outputs are chosen
stepping.py     one position after another, with what was computed before; several models as one
adjusting.py    what is done to the logits before a token is chosen
choosing.py     greedy decoding and sampling
beams.py        beam search
scoring.py      log-likelihood of given targets
generator.py    many inputs, of any length, on any mesh
"""

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.generator import Generated, Generator, Scored

__all__ = ["DecodingConfig", "Generated", "Generator", "Scored"]
