"""Dot-product attention with T5's position bias: one file an implementation, one signature."""

from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.dispatch import dot_product_attention
from t5jax.model.attention.mask import MASKED, Mask
from t5jax.model.attention.score import ScoreFunction

__all__ = ["MASKED", "Mask", "PositionBias", "ScoreFunction", "dot_product_attention"]
