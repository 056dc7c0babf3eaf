"""BLEU (by sacrebleu) and chrF of translations, over the corpus.

A target is the reference or a list of references of one segment.
"""

import collections
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from t5jax.errors import ConfigError
from t5jax.metrics.arguments import check_choice, check_flag, checked_arguments
from t5jax.metrics.contract import describe, is_metric_failure
from t5jax.metrics.sums import SumMetric, check_texts, references
from t5jax.metrics.words import share_without_spaces

# sacrebleu's tokenizers that split no words, or only Chinese ones.
_FOR_SPACED_TEXT = ("none", "13a", "intl", "zh")
_EXTRAS = {
    "ja-mecab": "MeCab (pip install 'sacrebleu[ja]')",
    "ko-mecab": "MeCab-ko (pip install 'sacrebleu[ko]')",
}
_SHARE_WORTH_A_NOTE = 0.1  # of letters
_MAX_ORDER = 4  # BLEU-4: n-grams of 1 to 4 tokens
_CHRF_ORDER, _CHRF_BETA = 6, 2.0  # chrF2 of Popović 2016, characters without white space


@checked_arguments
def sacre_bleu(*, tokenize: str = "intl", lowercase: bool = False) -> SumMetric:
    """BLEU in percent under the name "bleu", with sacrebleu's exponential smoothing.

    `tokenize` is one of sacrebleu's tokenizers: T5 reports "intl", WMT "13a". Text without spaces
    between words needs one that finds them: "zh" for Chinese, "ja-mecab" for Japanese, "ko-mecab"
    for Korean, "char", or "flores200" for any language. Raises ConfigError for an unknown one, and
    for one whose package or model file is not there.
    """
    _check_tokenizer(tokenize)
    check_flag("sacre_bleu", "lowercase", lowercase)
    return SumMetric(
        names=("bleu",),
        statistics=functools.partial(_bleu_statistics, tokenize=tokenize, lowercase=lowercase),
        score=_bleu,
        caveats=functools.partial(_unsplit, tokenize=tokenize),
        packages=("sacrebleu",),
    )


def _check_tokenizer(tokenize: Any) -> None:
    if tokenize in (*_FOR_SPACED_TEXT, "char"):  # they need nothing but sacrebleu
        return
    from sacrebleu.metrics.bleu import BLEU

    check_choice("sacre_bleu", "tokenize", tokenize, tuple(BLEU.TOKENIZERS))
    try:
        BLEU(tokenize=tokenize)
    except BaseException as error:
        if not is_metric_failure(error):
            raise
        needed = _EXTRAS.get(tokenize, "a model file that sacrebleu downloads to ~/.sacrebleu")
        raise ConfigError(
            f"sacre_bleu(tokenize={tokenize!r}) needs {needed}: {describe(error)}"
        ) from error


def _unsplit(targets: Sequence, predictions: Sequence, *, tokenize: str) -> list[str]:
    """A note on references whose words the tokenizer cannot find, or all of which are too short."""
    from sacrebleu.metrics.bleu import BLEU

    split = BLEU(tokenize=tokenize).tokenizer
    texts = [text for texts in references(targets) for text in texts]
    if tokenize in _FOR_SPACED_TEXT:
        words = (word for text in texts for word in split(text).split())
        share = share_without_spaces(words, least=2)
        if share >= _SHARE_WORTH_A_NOTE:
            return [
                f"BLEU: {share:.0%} of the references' letters are of scripts without spaces "
                f"between words, which tokenizer {tokenize!r} does not split: a whole phrase is "
                f"one word; sacre_bleu(tokenize=…) with {_splitting(tokenize)} does"
            ]
    if any(len(split(text).split()) >= _MAX_ORDER for text in texts):
        return []
    return [
        f"BLEU: all {len(texts)} references have fewer than {_MAX_ORDER} words under tokenizer "
        f"{tokenize!r}, so that no 4-gram is ever right: it is 0 whatever is predicted; "
        "t5jax.metrics.chrf counts characters"
    ]


def _splitting(tokenize: str) -> str:
    """The tokenizers that would find the words."""
    others = "'ja-mecab', 'char' or 'flores200'"
    return others if tokenize == "zh" else f"'zh' for Chinese, {others}"


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
