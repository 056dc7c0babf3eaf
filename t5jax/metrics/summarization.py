"""ROUGE-1, ROUGE-2 and ROUGE-Lsum of summaries: mean F-measures, in percent.

The scorer is rouge_score (no stemming), as in T5; T5 reports the median of a random bootstrap,
t5jax the mean, which is deterministic. Intervals: `t5jax.metrics.confidence`.
"""

from collections.abc import Sequence

import numpy as np

from t5jax.metrics.sums import SumMetric, check_texts, percentages, references

_KINDS = ("rouge1", "rouge2", "rougeLsum")


def _rouge_scores(targets: Sequence, predictions: Sequence) -> np.ndarray:
    """float64 [N, 4]: the F-measure in [0, 1] of each kind, and 1; the best over references."""
    from rouge_score.rouge_scorer import RougeScorer

    check_texts(predictions, "prediction")
    scorer = RougeScorer(list(_KINDS))
    scores_N4 = np.ones((len(predictions), len(_KINDS) + 1))
    for i, (texts, text) in enumerate(zip(references(targets), predictions, strict=True)):
        score = scorer.score_multi([_sentence_lines(t) for t in texts], _sentence_lines(text))
        scores_N4[i, :-1] = [score[kind].fmeasure for kind in _KINDS]
    return scores_N4


def _sentence_lines(text: str) -> str:
    """One sentence a line, as ROUGE-Lsum requires."""
    return text.replace(" . ", " .\n")


rouge = SumMetric(names=_KINDS, statistics=_rouge_scores, score=percentages)
