"""ROUGE by hand, against rouge_score, and against the values of T5's own test."""

import functools
import inspect
import json
import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from t5jax.errors import ConfigError
from t5jax.metrics.confidence import with_confidence
from t5jax.metrics.summarization import rouge


def test_by_hand():
    target, prediction = "red barn by the river", "the barn by the river"
    # Unigrams: 4 shared of 5 and 5; bigrams: 3 of 4 and 4; longest common subsequence: 4.
    scores = rouge([target, "mint"], [prediction, "salt"])
    assert scores == {
        "rouge1": pytest.approx(50 * 4 / 5),
        "rouge2": pytest.approx(50 * 3 / 4),
        "rougeLsum": pytest.approx(50 * 4 / 5),
    }


def test_a_spaced_full_stop_ends_a_sentence():
    target, prediction = "red barn . old mill", "old mill . red barn"
    # Sentence by sentence both are found; as one line only one half would be.
    assert rouge([target], [prediction])["rougeLsum"] == pytest.approx(100)
    one_line = RougeScorer(["rougeLsum"]).score(target, prediction)["rougeLsum"].fmeasure
    assert one_line == pytest.approx(0.5)


def test_the_best_of_several_references_for_each_kind():
    targets = [["red barn door", "a barn"]]
    assert rouge(targets, ["barn"])["rouge1"] == pytest.approx(100 * 2 / 3)
    assert rouge([["mint"], ["salt", "sea salt"]], ["mint", "sea salt"])["rouge1"] == 100.0


SAME = {
    "Russian": "Сегодня хорошая погода",
    "Hindi": "आज मौसम अच्छा है",
    "Chinese": "今天天气很好",
    "Arabic": "الطقس جميل اليوم",
    "Thai": "วันนี้อากาศดี",
    "Greek": "Καλή μέρα σήμερα",
}


@pytest.mark.parametrize("language", SAME)
def test_identical_text_of_any_script_is_100_by_the_other_tokenizers(language, caplog):
    text = SAME[language]
    kinds = ("rouge1", "rouge2", "rougeLsum")
    for tokenizer in ("unicode", "characters"):
        assert rouge(tokenizer=tokenizer)([text], [text]) == dict.fromkeys(kinds, 100.0)
    assert not caplog.messages
    assert rouge([text], [text]) == dict.fromkeys(kinds, 0.0)
    (said,) = caplog.messages
    assert "1 of 1 references have no token under tokenizer 'default'" in said
    assert "rouge(tokenizer='unicode')" in said


def test_accents_and_vowel_signs_are_not_cut():
    assert rouge(["está"], ["est"])["rouge1"] == 100.0
    assert rouge(["está"], ["est"], tokenizer="unicode")["rouge1"] == 0.0
    assert rouge(tokenizer="characters")(["está"], ["est"])["rouge1"] == pytest.approx(600 / 7)
    composed, apart = "este caf\u00e9", "este cafe\u0301"
    assert rouge(tokenizer="unicode")([composed], [apart])["rouge2"] == 100.0
    # One word of three has another vowel sign.
    scores = rouge(tokenizer="unicode")(["आज मौसम अच्छा"], ["आज मौसम अच्छी"])
    assert scores["rouge1"] == pytest.approx(200 / 3)


def test_tokenizers_agree_on_english():
    targets = ["The red barn by the river . It's 3.5 miles", "mint"]
    predictions = ["A barn by the river . It's 3 miles", "salt"]
    assert rouge(tokenizer="unicode")(targets, predictions) == rouge(targets, predictions)
    assert rouge(tokenizer="default")(targets, predictions) == rouge(targets, predictions)
    assert rouge.notes(targets, predictions) == []


def test_notes_say_what_the_tokenizer_leaves_out():
    references = ["plain text", ["ещё", "also plain"], "!?"]
    (note,) = rouge.notes(references, ["x"] * 3)
    assert note.startswith("ROUGE: 2 of 4 references have no token under tokenizer 'default'")
    (note,) = rouge.notes(["está aquí"], ["x"])
    assert note.startswith("ROUGE: tokenizer 'default' leaves out 25% of the letters of 1 ref")
    stated, note = rouge(tokenizer="unicode").notes(references, ["x"] * 3)
    assert stated == "ROUGE by tokenizer 'unicode'"
    assert note.startswith("ROUGE: 1 of 4 references have no token under tokenizer 'unicode'")


def test_other_types_are_those_of_rouge_score():
    target, prediction = "red barn . old mill by the river", "old mill . red barn by a river"
    types = ("rouge3", "rougeL", "rouge1")
    ours = rouge(types=types)([target], [prediction])
    lines = [text.replace(" . ", " .\n") for text in (target, prediction)]
    expected = RougeScorer(list(types)).score(*lines)
    assert ours == {name: pytest.approx(100 * expected[name].fmeasure) for name in types}
    assert list(rouge(types="rouge2")([target], [prediction])) == ["rouge2"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenizer": "nonsense"}, "tokenizer='nonsense'.*: one of 'default', 'unicode', 'char"),
        ({"types": ("rouge1", "rougeX")}, "of 'rouge1' to 'rouge9', 'rougeL' and 'rougeLsum'"),
        ({"types": ("rouge0",)}, "of 'rouge1' to 'rouge9'"),
        ({"types": ()}, "one type or more"),
        ({"types": ("rouge1", "rouge1")}, "none of them twice"),
        ({"tokeniser": "unicode"}, "unexpected keyword argument 'tokeniser'; it takes tokenizer"),
    ],
)
def test_settings_are_refused_when_the_metric_is_made(settings, words):
    with pytest.raises(ConfigError, match=words):
        rouge(**settings)
    with pytest.raises(ConfigError, match=words):
        rouge(["a"], ["a"], **settings)


def test_targets_without_predictions_are_refused():
    with pytest.raises(ConfigError, match="give targets and predictions"):
        rouge(["a"])
    partial = functools.partial(rouge, tokenizer="unicode")
    assert list(inspect.signature(partial).parameters)[:2] == ["targets", "predictions"]
    assert partial(["é"], ["é"])["rouge1"] == 100.0


def test_t5s_own_test_files(real_data):
    folder = real_data / "metrics/rouge_t5"
    targets = (folder / "target_large.txt").read_text().splitlines()
    predictions = (folder / "prediction_large.txt").read_text().splitlines()
    assert len(targets) == len(predictions) == 1000
    expected = json.loads((folder / "expected_bootstrap_results.json").read_text())
    estimates = with_confidence(rouge, targets, predictions)
    assert estimates.keys() == expected.keys()
    scorer = RougeScorer(list(expected))
    lines = [
        scorer.score(t.replace(" . ", " .\n"), p.replace(" . ", " .\n"))
        for t, p in zip(targets, predictions, strict=True)
    ]
    for name, published in expected.items():
        estimate, fs = estimates[name], [line[name].fmeasure for line in lines]
        assert estimate.value == pytest.approx(100 * np.mean(fs), rel=1e-12)
        assert estimate.low < published < estimate.high
        assert abs(estimate.value - published) < 0.05
        # The published value is the median of a bootstrap: its noise is far below the interval's.
        half = 1.96 * 100 * np.std(fs) / math.sqrt(1000)
        assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)
