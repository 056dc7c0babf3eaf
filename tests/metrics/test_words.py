"""Words and characters of many scripts, against the published ROUGE's for ASCII and by hand."""

import unicodedata

import numpy as np
import pytest
from rouge_score.tokenize import tokenize

from t5jax.metrics.words import characters, letters, share_without_spaces, unicode_words


def test_of_ascii_text_the_words_are_the_published_ones():
    generator = np.random.default_rng(3)
    for size in range(1, 60):
        text = "".join(map(chr, generator.integers(9, 127, size)))
        assert unicode_words(text) == tokenize(text, None)
        # The path for other text gives the same.
        assert unicode_words(text + " ж") == [*tokenize(text, None), "ж"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Сегодня хорошая погода.", ["сегодня", "хорошая", "погода"]),
        ("मौसम अच्छा है।", ["मौसम", "अच्छा", "है"]),  # vowel signs and virama are marks
        ("வணக்கம் உலகம்", ["வணக்கம்", "உலகம்"]),
        ("الطقس جَمِيل", ["الطقس", "جَمِيل"]),
        ("می\u200cخواهم", ["میخواهم"]),  # an invisible joiner does not part words
        ("Ça va, ÉTÉ?", ["ça", "va", "été"]),
        ("so\u00adft e\u0301te\u0301", ["soft", "été"]),
        ("今天很好。3个", ["今", "天", "很", "好", "3", "个"]),
        ("東京タワーは高い", ["東", "京", "タワー", "は", "高", "い"]),
        ("ไทย ดีมาก", ["ไ", "ท", "ย", "ดี", "ม", "า", "ก"]),
        ("한국어 좋다", ["한국어", "좋다"]),
        (unicodedata.normalize("NFD", "한국어 좋다"), ["한국어", "좋다"]),
        ("snake_case 3.5 don't", ["snake", "case", "3", "5", "don", "t"]),
        ("🙂 — …", []),
        ("", []),
    ],
)
def test_words_by_hand(text, words):
    assert unicode_words(text) == words


def test_characters_keep_their_marks():
    assert characters("अच्छा") == ["अ", "च्", "छा"]
    assert characters("e\u0301té, A1") == ["é", "t", "é", "a", "1"]
    assert characters("今天 ok") == ["今", "天", "o", "k"]
    assert characters("Plain text.") == list("plaintext")


def test_letters_and_the_share_without_spaces():
    assert letters("A-b 今,é!") == "ab今é"
    assert share_without_spaces(["ab", "今天"]) == 0.5
    assert share_without_spaces(["ab", "жя"]) == 0.0
    assert share_without_spaces([]) == 0.0
