"""Configuration of task evaluation: which examples, how predictions are made and scored."""

import dataclasses
from typing import Literal, get_args

from t5jax.errors import ConfigError

Ranking = Literal["never", "total", "per_token"]


@dataclasses.dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """How tasks are evaluated, in training and by `t5jax evaluate`.

    Predictions are decoded, as the section `decoding` says. With `ranking` the prediction for a
    task that has choices is the choice with the highest log-likelihood, in total or per token.
    """

    every_steps: int = 0  # interval of evaluation in training; 0: never
    num_examples: int | None = None  # the first ones of each task; None: the whole split
    batch_size: int = 32  # global, over all hosts
    ranking: Ranking = "never"
    confidence_level: float = 0.95
    bootstrap_samples: int = 1000  # for metrics whose interval has no formula; 0: no intervals

    def __post_init__(self) -> None:
        for name, least in (("every_steps", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"evaluation.{name} = {getattr(self, name)}: at least {least}")
        if self.bootstrap_samples != 0 and self.bootstrap_samples < 100:
            raise ConfigError(
                f"evaluation.bootstrap_samples = {self.bootstrap_samples}: at least 100, or 0 for "
                "no intervals"
            )
        if self.num_examples is not None and self.num_examples < 1:
            raise ConfigError(f"evaluation.num_examples = {self.num_examples}: at least 1, or None")
        if self.ranking not in get_args(Ranking):
            raise ConfigError(
                f"evaluation.ranking = {self.ranking!r}: one of {', '.join(get_args(Ranking))}"
            )
        if not 0.0 < self.confidence_level < 1.0:
            raise ConfigError(
                f"evaluation.confidence_level = {self.confidence_level}: between 0 and 1"
            )
