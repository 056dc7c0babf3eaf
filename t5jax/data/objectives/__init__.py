"""Self-supervised objectives: inputs and targets of unlabelled text, corrupted or split.

base.py               the protocol: lengths, check, apply
noise_masks.py        which tokens are noise: random spans, i.i.d., regular spans
codes.py              what replaces noise tokens in the inputs, and the others in the targets
denoising.py          a noise mask, a code of inputs and one of targets
span_corruption.py    T5's objective
language_modeling.py  language model, full LM, prefix LM, packed prefix LM
named.py              the table of names, and `parse_objective`
ul2.py                UL2's seven denoisers
"""

from t5jax.data.objectives.base import (
    Coded,
    Objective,
    ObjectiveLengths,
    lengths_of,
    objective_code,
)
from t5jax.data.objectives.codes import unique_sentinels
from t5jax.data.objectives.denoising import Denoising, SpanLengths
from t5jax.data.objectives.language_modeling import (
    FullLanguageModel,
    LanguageModel,
    PackedPrefixLM,
    PrefixLM,
)
from t5jax.data.objectives.named import OBJECTIVES, objective_from_dict, parse_objective
from t5jax.data.objectives.noise_masks import IidNoise, RandomSpans, RegularSpans, random_spans
from t5jax.data.objectives.span_corruption import SpanCorruption
from t5jax.data.objectives.ul2 import UL2_DENOISERS, Denoiser

__all__ = [
    "OBJECTIVES",
    "UL2_DENOISERS",
    "Coded",
    "Denoiser",
    "Denoising",
    "FullLanguageModel",
    "IidNoise",
    "LanguageModel",
    "Objective",
    "ObjectiveLengths",
    "PackedPrefixLM",
    "PrefixLM",
    "RandomSpans",
    "RegularSpans",
    "SpanCorruption",
    "SpanLengths",
    "lengths_of",
    "objective_code",
    "objective_from_dict",
    "parse_objective",
    "random_spans",
    "unique_sentinels",
]
