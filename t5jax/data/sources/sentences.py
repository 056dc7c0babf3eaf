"""Splitting English text into sentences by punctuation, enough to count and compare them.

C4 was made with NLTK's punkt, a trained model that has to be fetched; the two disagree on
abbreviations and on sentences without capitals.
"""

import re

# A stop, what may close after it, white space, and a sign that something new begins.
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+[\"'“‘(\[]*[^\Wa-z_])")
_LAST_WORD = re.compile(r"[\w.]+\Z")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        """mr mrs ms dr prof st jr sr vs etc e.g i.e no inc ltd co corp dept fig gen rep sen rev u.s
        u.k jan feb mar apr jun jul aug sep sept oct nov dec""",
    )
)


def split_sentences(line: str) -> list[str]:
    """The sentences of a line, without the white space between them; none in a blank line."""
    sentences, start = [], 0
    for end in _END.finditer(line):
        if end[0] == "." and _is_abbreviation(line[start : end.start()]):
            continue
        sentences.append(line[start : end.end()].strip())
        start = end.end()
    rest = line[start:].strip()
    return [*sentences, rest] if rest else sentences


def _is_abbreviation(before: str) -> bool:
    """Whether text before a full stop ends with an abbreviation or an initial."""
    word = _LAST_WORD.search(before)
    if not word:
        return False
    return word[0].lower() in _ABBREVIATIONS or (len(word[0]) == 1 and word[0].isupper())
