"""Score function of attention: what a query and a key of one pair of positions score.

It is a value, not a function, so that kernels know at compile time what they leave out.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScoreFunction:
    """score = soft_cap(q k) + bias + mask. T5's has neither cap nor window.

    `window`: a query sees keys at most this many positions before or after it (sliding window
    attention, Beltagy et al. 2020). `soft_cap`: q k is bounded to ±soft_cap by a tanh (Gemma 2).
    """

    window: int | None = None
    soft_cap: float | None = None

    def capped(self, products: jax.Array) -> jax.Array:
        """Products of queries and keys, bounded; the same array without a cap."""
        if self.soft_cap is None:
            return products
        return self.soft_cap * jnp.tanh(products / self.soft_cap)


PLAIN = ScoreFunction()
