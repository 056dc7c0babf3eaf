"""Matching of predicted noun phrases with the referent, for WSC (Winograd schemas) as in T5.

T5 predicts the referent as text. Case and determiners are ignored, and a part of the phrase
matches, but "Bob" does not match "Bob's hat".
"""

# fmt: off
_DETERMINERS = frozenset({
    "a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that",
    "the", "their", "these", "this", "those", "which", "whose", "your",
})
# fmt: on
NO_ANSWER = -1


def wsc_simple_match(prediction: str, reference: str) -> bool:
    """True when the words of one phrase are among those of the other, both lower-cased and without
    determiners, and either both or neither hold an apostrophe. An empty prediction never matches.
    """
    predicted, referent = _without_determiners(prediction), _without_determiners(reference)
    if not predicted or ("'" in predicted) != ("'" in referent):
        return False
    predicted_words, referent_words = set(predicted.split(" ")), set(referent.split(" "))
    return predicted_words <= referent_words or referent_words <= predicted_words


def wsc_simple_label(prediction: str, reference: str) -> int:
    """The predicted label: 1 for a match, 0 for another phrase, and for a prediction without words
    NO_ANSWER, which differs from both labels.
    """
    if not _without_determiners(prediction):
        return NO_ANSWER
    return int(wsc_simple_match(prediction, reference))


def _without_determiners(text: str) -> str:
    # Single spaces only, as in the published rule: a run of them leaves an empty word.
    return " ".join(w for w in text.strip().lower().split(" ") if w not in _DETERMINERS)
