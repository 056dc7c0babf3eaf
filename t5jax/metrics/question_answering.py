"""Exact match and token F1 of short answers (SQuAD v1.1, TriviaQA), the best over all answers.

Both texts are normalised: lower case, without punctuation and the articles a, an, the, single
spaces. The two benchmarks differ in the punctuation and in its replacement (evaluate-v1.1.py of
Rajpurkar et al. 2016; triviaqa_evaluation.py of Joshi et al. 2017). Both are made for English: they
know no punctuation but ASCII's, and words are what stands between spaces. `unicode_answers` is the
same for any script.
"""

import collections
import functools
import re
import string
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from t5jax.metrics.sums import SumMetric, check_texts, field, percentages, references
from t5jax.metrics.words import share_without_spaces, unicode_words

_SHARE_WORTH_A_NOTE = 0.1  # of letters
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SQUAD_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TRIVIA_QA_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´", " "))


def normalize_squad(text: str) -> str:
    """SQuAD's normal form: ASCII punctuation vanishes (`don't` -> `dont`)."""
    return _without_articles(text.lower().translate(_SQUAD_PUNCTUATION))


def normalize_trivia_qa(text: str) -> str:
    """TriviaQA's: punctuation, typographic quotes too, becomes a space (`don't` -> `don t`)."""
    return _without_articles(text.lower().translate(_TRIVIA_QA_PUNCTUATION))


def normalize_unicode(text: str) -> str:
    """For any script: composed (NFC), lower case, without Unicode's punctuation; words, and each
    character of scripts that have no spaces between words, are separated by single spaces."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c for c in composed if unicodedata.category(c)[0] != "P")
    return " ".join(word for part in kept.split() for word in unicode_words(part) or [part.lower()])


def _without_articles(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text).split())


def token_f1(target: str, prediction: str) -> float:
    """F1 in [0, 1] of two bags of words; 0 when they share none (so also when both are empty)."""
    target_words, predicted_words = target.split(), prediction.split()
    shared = (collections.Counter(target_words) & collections.Counter(predicted_words)).total()
    return 2.0 * shared / (len(target_words) + len(predicted_words)) if shared else 0.0


def best_over_answers(
    targets: Sequence, predictions: Sequence, *, normalize: Callable[[str], str]
) -> np.ndarray:
    """float64 [N, 3]: exact match and F1 (each its maximum over the answers), and 1.

    A target is a string or a list of them. Raises DataError for a target without answers.
    """
    check_texts(predictions, "prediction")
    scores_N3 = np.ones((len(predictions), 3))
    for i, (answers, text) in enumerate(zip(references(targets), predictions, strict=True)):
        prediction = normalize(text)
        normal = {normalize(answer) for answer in answers}
        scores_N3[i, 0] = prediction in normal
        scores_N3[i, 1] = max(token_f1(answer, prediction) for answer in normal)
    return scores_N3


def answers_metric(normalize: Callable[[str], str]) -> SumMetric:
    """Exact match "em" and "f1" in percent, over texts normalised by `normalize`.

    Targets are lists of answers, predictions strings.
    """
    return SumMetric(
        names=("em", "f1"),
        statistics=functools.partial(best_over_answers, normalize=normalize),
        score=percentages,
        shares=("em",),
        caveats=functools.partial(_unseen, normalize=normalize),
    )


def _unseen(
    targets: Sequence, predictions: Sequence, *, normalize: Callable[[str], str]
) -> list[str]:
    """Notes on answers of which normalisation leaves nothing, and on text without spaces."""
    answers_N, notes = references(targets), []
    empty = sum(not any(normalize(answer) for answer in answers) for answers in answers_N)
    if empty:
        notes.append(
            f"EM and F1: of {empty} of {len(answers_N)} targets normalisation leaves nothing (only "
            "articles or punctuation): an empty prediction is right"
        )
    marked = sum(any(_has_marks(normalize(answer)) for answer in answers) for answers in answers_N)
    if marked and marked >= _SHARE_WORTH_A_NOTE * len(answers_N):
        notes.append(
            f"EM and F1: {marked} of {len(answers_N)} targets keep punctuation that is not ASCII's "
            "(such as ¿ । ، “), so that a prediction without it is wrong; "
            "t5jax.metrics.unicode_answers leaves all punctuation out"
        )
    share = share_without_spaces(answer for answers in answers_N for answer in answers)
    if share >= _SHARE_WORTH_A_NOTE and normalize is not normalize_unicode:
        notes.append(
            f"EM and F1: {share:.0%} of the answers' letters are of scripts without spaces between "
            "words, where F1 is all or nothing; t5jax.metrics.unicode_answers counts characters"
        )
    return notes


def _has_marks(text: str) -> bool:
    return not text.isascii() and any(unicodedata.category(c)[0] == "P" for c in text)


squad = answers_metric(normalize_squad)
trivia_qa = answers_metric(normalize_trivia_qa)
unicode_answers = answers_metric(normalize_unicode)


def _span_scores(targets: Sequence, predictions: Sequence) -> np.ndarray:
    check_texts(predictions, "prediction")
    contexts = field(targets, "context", "target")
    texts = [_span_text(c, p) for c, p in zip(contexts, predictions, strict=True)]
    return best_over_answers(field(targets, "answers", "target"), texts, normalize=normalize_squad)


def _span_text(context: str, prediction: str) -> str:
    """The words of the context in the span `start: 3 end: 6`; empty for any other prediction."""
    words = words_of(prediction)
    if len(words) < 4 or not (words[1].isdecimal() and words[3].isdecimal()):
        return ""
    return " ".join(words_of(context)[int(words[1]) : int(words[3]) + 1])


def words_of(text: str) -> list[str]:
    """Words without punctuation, as `span_squad` counts them."""
    return re.sub(r"\W", " ", text).split()


# SQuAD with predicted word positions: a target is a dict of `answers` and `context`, a prediction
# is `start: 3 end: 6`, the first and last word of the span, counted from 0 in the context.
span_squad = SumMetric(
    names=("em", "f1"), statistics=_span_scores, score=percentages, shares=("em",)
)
