"""UL2's mixture of denoisers: Tay et al. 2022 (arXiv:2205.05131), section 3.1.2 and table 1.

R: short spans, little noise; X: long spans or much noise; S: a prefix LM. Every row's inputs begin
with its mode token. With 100 sentinels, X-denoising of spans of 3 tokens at a rate of 0.5 fits
inputs of up to 403 tokens (mode token not counted); longer ones want more `extra_ids`.
"""

from typing import NamedTuple

from t5jax.data.objectives.base import Objective
from t5jax.data.objectives.language_modeling import PrefixLM
from t5jax.data.objectives.span_corruption import SpanCorruption

_S_RATE = 0.2  # the share of S-denoising; the others have equal parts of the rest


class Denoiser(NamedTuple):
    """One task of the mixture: `mode` is the text in front of its inputs."""

    name: str
    mode: str
    objective: Objective
    rate: float


def _spans(name: str, mode: str, mean: float, density: float) -> Denoiser:
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    return Denoiser(name, mode, objective, (1.0 - _S_RATE) / 6)


UL2_DENOISERS = (
    _spans("r_span_3_15", "[NLU]", 3.0, 0.15),
    _spans("r_span_8_15", "[NLU]", 8.0, 0.15),
    Denoiser("s_prefix_lm_25", "[S2S]", PrefixLM(suffix_fraction=0.25), _S_RATE),
    _spans("x_span_3_50", "[NLG]", 3.0, 0.5),
    _spans("x_span_8_50", "[NLG]", 8.0, 0.5),
    _spans("x_span_64_15", "[NLG]", 64.0, 0.15),
    _spans("x_span_64_50", "[NLG]", 64.0, 0.5),
)
