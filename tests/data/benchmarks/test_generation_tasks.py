"""Summaries and translations: the prefixes, the columns, the languages."""

import pytest

from t5jax.data.benchmarks import summarization, translation
from t5jax.data.records import BadColumn, Row
from t5jax.errors import ConfigError

BY_NAME = {task.name: task for task in (*summarization.TASKS, *translation.TASKS)}


@pytest.mark.parametrize(
    ("name", "article", "summary"),
    [
        ("cnn_dailymail_v002", "article", "highlights"),
        ("xsum_v110", "document", "summary"),
        ("scitldr_v001", "document", "summary"),
    ],
)
def test_summaries(name, article, summary):
    row = Row({article: "Rain fell.\nIt stopped.", summary: "Wet .\nDry .", "id": "a1"}, "p")
    (example,) = BY_NAME[name].examples(row)
    assert example["inputs"] == "summarize: Rain fell.\nIt stopped."
    assert example["targets"] == "Wet .\nDry ."
    scores = BY_NAME[name].metrics[0]([example["targets"]], ["Wet . Dry ."])
    assert scores["rouge1"] == pytest.approx(100.0)
    with pytest.raises(BadColumn, match=article):
        list(BY_NAME[name].examples(Row({summary: "x"}, "p")))


SENTENCES = {"en": "Good day.", "de": "Guten Tag.", "fr": "Bonjour.", "ro": "Bună ziua."}


@pytest.mark.parametrize(
    ("name", "inputs", "target"),
    [
        ("wmt14_ende_v003", "translate English to German: Good day.", "de"),
        ("wmt_t2t_ende_v003", "translate English to German: Good day.", "de"),
        ("wmt19_ende_v003", "translate English to German: Good day.", "de"),
        ("wmt14_enfr_v003", "translate English to French: Good day.", "fr"),
        ("wmt15_enfr_v003", "translate English to French: Good day.", "fr"),
        ("wmt16_enro_v003", "translate English to Romanian: Good day.", "ro"),
        ("multi30k_ende", "translate English to German: Good day.", "de"),
        ("multi30k_enfr", "translate English to French: Good day.", "fr"),
        ("multi30k_deen", "translate German to English: Guten Tag.", "en"),
    ],
)
def test_translations(name, inputs, target):
    flat = Row(SENTENCES, "p")
    nested = Row({"translation": SENTENCES}, "p")
    for row in (flat, nested):
        (canonical,) = translation.translation_columns(row, 0)
        (example,) = BY_NAME[name].examples(canonical)
        assert example == {"inputs": inputs, "targets": SENTENCES[target]}
    one = "Ein ganz gewöhnlicher Satz mit Wörtern."
    assert BY_NAME[name].metrics[0]([one], [one])["bleu"] == pytest.approx(100.0)


def test_every_task_has_a_case():
    assert len(BY_NAME) == 3 + 9


def test_language_codes():
    assert translation.language_name("zh-cn") == "Chinese"
    with pytest.raises(ConfigError, match="'xx'"):
        translation.translation("x", "en", "xx", translation.MULTI30K)
