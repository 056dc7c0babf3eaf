"""Which pronoun a WNLI pair is about, and which phrase the hypothesis puts in its place.

WNLI's hypothesis repeats the part of the premise around a pronoun with a noun phrase instead of it.
The pronoun whose neighbours agree best with the hypothesis is the one meant, and what stands
between those neighbours there is the phrase (the rule of `wnli_simple` in T5's published
preprocessors; its authors checked dev and test by hand).
"""

import re

from t5jax.data.records import BadColumn

_PRONOUNS = frozenset(["he", "she", "they", "it", "her", "his", "their", "them", "him"])
_ARTICLES = ("a", "an", "the")
_END_MARKS = (".", ",", "!", "?")


def pronoun_and_referent(premise: str, hypothesis: str) -> tuple[str, str]:
    """(premise with the pronoun as *it*, phrase of the hypothesis).

    The phrase is empty where the hypothesis does not repeat the pronoun's neighbours (1 of the 71
    validation rows, as in T5). Raises BadColumn when the premise has no pronoun.
    """
    premise_words, hypothesis_words = _clean_words(premise), _clean_words(hypothesis)
    positions = [i for i, word in enumerate(premise_words) if word in _PRONOUNS]
    if not positions:
        raise BadColumn(f"sentence1 has no pronoun: {premise!r}")
    # max keeps the first of equals, as T5 does.
    best = max(positions, key=lambda i: sum(_overlap(premise_words, hypothesis_words, i)))
    phrase = _replacement(premise_words, hypothesis_words, best)
    return _mark(premise, best), _as_written(_from_last_article(phrase), hypothesis)


def _clean_words(text: str) -> list[str]:
    words = [word[:-1] if word.endswith(_END_MARKS) else word for word in text.lower().split(" ")]
    return [word for word in words if word]


def _overlap(premise: list[str], hypothesis: list[str], position: int) -> tuple[int, int]:
    """How many words right before and right after the pronoun the hypothesis has in a row."""
    before = _longest_prefix(premise[:position][::-1], hypothesis[::-1])
    return before, _longest_prefix(premise[position + 1 :], hypothesis)


def _longest_prefix(words: list[str], text_words: list[str]) -> int:
    text = " ".join(text_words)
    for length in range(len(words), 0, -1):
        if " ".join(words[:length]) in text:
            return length
    return 0


def _replacement(premise: list[str], hypothesis: list[str], position: int) -> str:
    before, after = _overlap(premise, hypothesis, position)
    if not before + after:
        return ""
    left = re.escape(" ".join(premise[position - before : position]))
    right = re.escape(" ".join(premise[position + 1 : position + 1 + after]))
    text = " ".join(hypothesis)
    between = " ".join(part for part in (left, "(.+)", right) if part)
    to_right = " ".join(part for part in ("^(.+)", right) if part)
    from_left = " ".join(part for part in (left, "(.+)$") if part)
    for pattern in (between, to_right, from_left):
        if match := re.search(pattern, text):
            return match[1]
    return ""


def _from_last_article(phrase: str) -> str:
    """The match may begin too early, with the start of the hypothesis."""
    words = phrase.split(" ")
    return " ".join(words[max([words.index(a) for a in _ARTICLES if a in words], default=0) :])


def _as_written(phrase: str, hypothesis: str) -> str:
    """The phrase with the hypothesis's capitals and punctuation, not possessive."""
    pattern = " ".join(rf"{re.escape(word)}[.,?!]?" for word in phrase.split(" "))
    match = re.search(pattern, hypothesis, re.IGNORECASE)
    if match is None:
        raise BadColumn(f"{phrase!r} is not in sentence2, {hypothesis!r}")
    written = match[0][:-1] if match[0].endswith(_END_MARKS) else match[0]
    return re.sub(r"'s?\Z", "", written)


def _mark(premise: str, position: int) -> str:
    words = premise.split(" ")
    word = words[position]
    marked = f"*{word[:-1]}* {word[-1]}" if word.endswith(_END_MARKS) else f"*{word}*"
    return " ".join([*words[:position], marked, *words[position + 1 :]])
