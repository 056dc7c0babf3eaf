"""ROUGE-1, ROUGE-2 and ROUGE-Lsum of summaries: mean F-measures, in percent.

The scorer is rouge_score (no stemming), as in T5; T5 reports the median of a random bootstrap,
t5jax the mean, which is deterministic. Intervals: `t5jax.metrics.confidence`.

Its published tokenizer keeps a to z and 0 to 9 alone: it sees nothing of Russian or Chinese, and
`est` of `está`. `rouge(tokenizer="unicode")` reads words of any script, `"characters"` letters.
"""

import dataclasses
import functools
import inspect
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from t5jax.errors import ConfigError
from t5jax.metrics.arguments import check_choice, checked_arguments
from t5jax.metrics.sums import SumMetric, check_texts, percentages, references
from t5jax.metrics.words import characters, letters, unicode_words

RougeTokenizer = Literal["default", "unicode", "characters"]
_KINDS = ("rouge1", "rouge2", "rougeLsum")
_TOKENS: dict[str, Callable[[str], list[str]]] = {
    "unicode": unicode_words,
    "characters": characters,
}
_SHARE_WORTH_A_NOTE = 0.01  # of a reference's letters
_log = logging.getLogger("t5jax")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rouge(SumMetric):
    """ROUGE by one tokenizer; called with settings it is ROUGE by others.

    `rouge(targets, predictions)` computes, `rouge(tokenizer="unicode")` and
    `rouge(types=("rouge1", "rougeL"))` make another metric, `rouge(targets, predictions,
    tokenizer="unicode")` does both. Raises ConfigError for a setting that there is not.
    """

    tokenizer: RougeTokenizer = "default"

    def __call__(
        self, targets: Sequence | None = None, predictions: Sequence | None = None, **settings: Any
    ) -> Any:
        metric = _make_rouge(**settings) if settings else self
        if targets is None and predictions is None:
            return metric
        if targets is None or predictions is None:
            raise ConfigError("rouge: give targets and predictions, or settings alone")
        values = SumMetric.__call__(metric, targets, predictions)
        for note in SumMetric.notes(metric, targets, predictions):
            _log.warning("%s", note)
        return values

    def notes(self, targets: Sequence, predictions: Sequence) -> list[str]:
        """What the tokenizer cannot see of the references, and which it is, if not the published
        one."""
        stated = [] if self.tokenizer == "default" else [f"ROUGE by tokenizer {self.tokenizer!r}"]
        return stated + SumMetric.notes(self, targets, predictions)

    # What seqio and `metrics.contract` read: a metric of the first two.
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("targets", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("predictions", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("tokenizer", inspect.Parameter.KEYWORD_ONLY, default=None),
            inspect.Parameter("types", inspect.Parameter.KEYWORD_ONLY, default=None),
        ]
    )


@checked_arguments
def _make_rouge(*, tokenizer: RougeTokenizer = "default", types: Sequence[str] = _KINDS) -> Rouge:
    check_choice("rouge", "tokenizer", tokenizer, get_args(RougeTokenizer))
    kinds = (types,) if isinstance(types, str) else tuple(types)
    for kind in kinds:
        if not isinstance(kind, str) or not re.fullmatch("rouge([1-9]|L|Lsum)", kind):
            raise ConfigError(
                f"rouge(types={types!r}): of 'rouge1' to 'rouge9', 'rougeL' and 'rougeLsum'"
            )
    if not kinds or len(set(kinds)) < len(kinds):
        raise ConfigError(f"rouge(types={types!r}): one type or more, none of them twice")
    return Rouge(
        names=kinds,
        statistics=functools.partial(_rouge_scores, kinds=kinds, tokenizer=tokenizer),
        score=percentages,
        caveats=functools.partial(_unseen, tokenizer=tokenizer),
        packages=("rouge_score",),
        tokenizer=tokenizer,
    )


class _Tokens:
    """A tokenizer as rouge_score calls it."""

    def __init__(self, tokenize: Callable[[str], list[str]]):
        self.tokenize = tokenize


def _rouge_scores(
    targets: Sequence, predictions: Sequence, *, kinds: tuple[str, ...], tokenizer: RougeTokenizer
) -> np.ndarray:
    """float64 [N, 4]: the F-measure in [0, 1] of each kind, and 1; the best over references."""
    from rouge_score.rouge_scorer import RougeScorer

    check_texts(predictions, "prediction")
    # None is rouge_score's own.
    tokens = None if tokenizer == "default" else _Tokens(_TOKENS[tokenizer])
    scorer = RougeScorer(list(kinds), tokenizer=tokens)
    scores_NK = np.ones((len(predictions), len(kinds) + 1))
    for i, (texts, text) in enumerate(zip(references(targets), predictions, strict=True)):
        score = scorer.score_multi([_sentence_lines(t) for t in texts], _sentence_lines(text))
        scores_NK[i, :-1] = [score[kind].fmeasure for kind in kinds]
    return scores_NK


def _sentence_lines(text: str) -> str:
    """One sentence a line, as ROUGE-Lsum requires."""
    return text.replace(" . ", " .\n")


def _unseen(targets: Sequence, predictions: Sequence, *, tokenizer: RougeTokenizer) -> list[str]:
    """What the tokenizer leaves out of the references."""
    kept, all_letters, empty = 0, 0, 0
    texts = [text for some in references(targets) for text in some]
    for text in texts:
        of_text = letters(text)
        seen = re.sub("[^a-z0-9]", "", text.lower()) if tokenizer == "default" else of_text
        all_letters += len(of_text)
        kept += min(len(seen), len(of_text))
        empty += not seen
    left_out = 1 - kept / all_letters if all_letters else 0.0
    others = "'unicode' and 'characters' read every script: rouge(tokenizer='unicode')"
    if empty:
        advice = f"; {others}" if left_out else ""
        return [
            f"ROUGE: {empty} of {len(texts)} references have no token under tokenizer "
            f"{tokenizer!r}: theirs is 0 whatever is predicted{advice}"
        ]
    if left_out < _SHARE_WORTH_A_NOTE:
        return []
    return [
        f"ROUGE: tokenizer {tokenizer!r} leaves out {left_out:.0%} of the letters of "
        f"{len(texts)} references; {others}"
    ]


rouge = _make_rouge()
