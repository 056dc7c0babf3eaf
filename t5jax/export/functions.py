"""The exported functions, predict and score, of fixed lengths and any number of rows.

Shape suffixes: B rows (b in the export: any number), K outputs of a row, S input length, T output
length, U target length.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.decoding import DecodingConfig
from t5jax.decoding.beam_search import beam_search
from t5jax.decoding.decode_state import Request, init_decode_state
from t5jax.decoding.sampling import greedy_or_sample
from t5jax.decoding.scoring import score_targets
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model
from t5jax.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFunctions:
    """Decoding and scoring with one model, its parameters an argument."""

    model: T5Config
    decoding: DecodingConfig
    num_ids: int  # of the vocabulary
    inputs_length: int
    targets_length: int

    def __post_init__(self) -> None:
        if self.decoding.temperature:
            raise ConfigError(
                f"decoding.temperature = {self.decoding.temperature}: an export cannot sample; "
                "set it to 0 (and top_k, top_p, num_outputs), for greedy decoding or beams"
            )
        for name in ("inputs_length", "targets_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: at least 1")

    @functools.cached_property
    def _defs(self) -> tuple[nnx.GraphDef]:
        # The fastest attention of this machine may not exist where the export runs.
        portable = "einsum" if self.model.attention == "auto" else self.model.attention
        model = dataclasses.replace(self.model, attention=portable)
        return (nnx.graphdef(abstract_model(model)),)

    def predict(self, params: Params, tokens_BS: jax.Array) -> dict[str, jax.Array]:
        """tokens int32 [B, K, T], padding after the end, best first; scores float32 [B, K]: see
        `decoding.sampling` and `decoding.beam_search`. Inputs are int32 with EOS; the
        model's `pad_id` is padding."""
        B = tokens_BS.shape[0]
        no_prefix = jnp.zeros((B, 0), jnp.int32)
        request = Request(tokens_BS, no_prefix, jnp.zeros(B, jnp.int32))
        state = init_decode_state(self._defs, (params,), request, self.decoding, self.num_ids)
        method = beam_search if self.decoding.num_beams > 1 else greedy_or_sample
        tokens_BKT, scores_BK = method(state, request, self.decoding)
        return {"tokens": tokens_BKT, "scores": scores_BK}

    def score(
        self, params: Params, tokens_BS: jax.Array, targets_BU: jax.Array
    ) -> dict[str, jax.Array]:
        """scores float32 [B, U]: log-likelihood of each token of the targets, 0 at padding."""
        scores = score_targets(self._defs, (params,), tokens_BS, targets_BU)
        return {"scores": scores}

    @property
    def arguments(self) -> dict[str, tuple[int, ...]]:
        """Length of each argument, params left out, by function."""
        return {
            "predict": (self.inputs_length,),
            "score": (self.inputs_length, self.targets_length),
        }
