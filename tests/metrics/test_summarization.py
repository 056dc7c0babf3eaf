"""ROUGE by hand, against rouge_score, and against the values of T5's own test."""

import json
import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

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
