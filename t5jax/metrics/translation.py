"""BLEU (by sacrebleu) and chrF of translations, over the corpus.

A target is the reference or a list of references of one segment.
"""

import collections
import functools
from collections.abc import Sequence

import numpy as np

from t5jax.metrics.sums import SumMetric, check_texts, references

_MAX_ORDER = 4  # BLEU-4: n-grams of 1 to 4 tokens
_CHRF_ORDER, _CHRF_BETA = 6, 2.0  # chrF2 of Popović 2016, characters without white space


def sacre_bleu(*, tokenize: str = "intl", lowercase: bool = False) -> SumMetric:
    """BLEU in percent under the name "bleu", with sacrebleu's exponential smoothing.

    `tokenize` is one of sacrebleu's tokenizers: T5 reports "intl", WMT "13a".
    """
    statistics = functools.partial(_bleu_statistics, tokenize=tokenize, lowercase=lowercase)
    return SumMetric(names=("bleu",), statistics=statistics, score=_bleu)


def _bleu_statistics(
    targets: Sequence, predictions: Sequence, *, tokenize: str, lowercase: bool
) -> np.ndarray:
    """float64 [N, 10]: n-gram matches, n-grams (4 each), length, length of the closest reference.

    BLEU of a corpus is a function of these sums (Papineni et al. 2002).
    """
    from sacrebleu.metrics.bleu import BLEU

    check_texts(predictions, "prediction")
    # effective_order touches only the segment's own score, which is not used, and a warning.
    scorer = BLEU(tokenize=tokenize, lowercase=lowercase, force=True, effective_order=True)
    scores = [
        scorer.sentence_score(text, texts)
        for text, texts in zip(predictions, references(targets), strict=True)
    ]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], np.float64)


def _bleu(sums_K: np.ndarray) -> tuple[float]:
    from sacrebleu.metrics.bleu import BLEU

    counts = [round(x) for x in sums_K]
    score = BLEU.compute_bleu(
        correct=counts[:_MAX_ORDER],
        total=counts[_MAX_ORDER : 2 * _MAX_ORDER],
        sys_len=counts[-2],
        ref_len=counts[-1],
        smooth_method="exp",
    )
    return (score.score,)


bleu = sacre_bleu()


def _chrf_statistics(targets: Sequence, predictions: Sequence) -> np.ndarray:
    """float64 [N, 3 * 6]: counts of n-grams of the prediction, of the reference, and shared ones,
    of 1 to 6 characters, against the reference with the highest chrF.
    """
    check_texts(predictions, "prediction")
    rows = []
    for text, texts in zip(predictions, references(targets), strict=True):
        candidates = [_shared_ngrams(text, reference) for reference in texts]
        rows.append(max(candidates, key=lambda row: _chrf(row)[0]))
    return np.stack(rows)


def _shared_ngrams(text: str, reference: str) -> np.ndarray:
    counts = []
    for ours, theirs in zip(_ngrams(text), _ngrams(reference), strict=True):
        # An order for which the reference is too short does not count.
        counts += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return np.array(counts, np.float64)


def _ngrams(text: str) -> list[collections.Counter]:
    characters = "".join(text.split())
    return [
        collections.Counter(characters[i : i + n] for i in range(len(characters) - n + 1))
        for n in range(1, _CHRF_ORDER + 1)
    ]


def _chrf(sums_K: np.ndarray) -> tuple[float]:
    """F-beta of precision and recall, averaged over the orders that both texts have."""
    predicted_O, reference_O, shared_O = sums_K.reshape(-1, 3).T
    counts_O = (predicted_O > 0) & (reference_O > 0)
    if not shared_O[counts_O].any():
        return (0.0,)
    precision = (shared_O[counts_O] / predicted_O[counts_O]).mean()
    recall = (shared_O[counts_O] / reference_O[counts_O]).mean()
    weight = _CHRF_BETA**2
    return (100.0 * (1 + weight) * precision * recall / (weight * precision + recall),)


# chrF in percent, as sacrebleu's chrF2 (case, no word n-grams).
chrf = SumMetric(names=("chrf",), statistics=_chrf_statistics, score=_chrf)
