"""MultiRC's two scores and ReCoRD's, on paper and on the real files."""

import gzip
import json

import numpy as np
import pytest

from t5jax.metrics.grouped import group_exact_match, multirc_f1, record

# Three questions of 3, 2 and 1 answers, interleaved as a shuffled split would be.
TARGETS = [
    {"value": 1, "group": 11},
    {"value": 0, "group": 12},
    {"value": 0, "group": 11},
    {"value": 1, "group": 13},
    {"value": 1, "group": 11},
    {"value": 1, "group": 12},
]


def values(*labels):
    return [{"value": label} for label in labels]


def test_multirc_on_paper():
    # Question 11: 1 0 1 against 1 0 0, wrong; 12: 0 1 against 0 1, right; 13: 1 against no class.
    predictions = values(1, 0, 0, -1, 0, 1)
    assert group_exact_match(TARGETS, predictions) == {"exact_match": pytest.approx(100 / 3)}
    # TP: two of the four positives; FN: the other two; no FP.
    assert multirc_f1(TARGETS, predictions) == {"f1": pytest.approx(100 * 4 / (4 + 2))}


def test_one_wrong_answer_spoils_its_question_wherever_it_stands():
    right = [t["value"] for t in TARGETS]
    for i, target in enumerate(TARGETS):
        labels = [*right[:i], 1 - right[i], *right[i + 1 :]]
        assert group_exact_match(TARGETS, values(*labels))["exact_match"] == pytest.approx(200 / 3)
        # FN or FP of four positives and two negatives.
        expected = 6 / (6 + 1) if target["value"] else 8 / (8 + 1)
        assert multirc_f1(TARGETS, values(*labels))["f1"] == pytest.approx(100 * expected)


def test_record_on_paper_counts_a_query_once_by_its_first_example():
    targets = [
        {"value": ["Aln", "the River Aln"], "group": (4, 0)},
        {"value": ["Mill Lane"], "group": [4, 1]},  # lists of numbers name groups as well
        {"value": ["Aln", "the River Aln"], "group": (4, 0)},
        {"value": ["Bury"], "group": (5, 0)},
        {"value": ["Mill Lane"], "group": [4, 1]},
    ]
    predictions = values("river aln", "Lane", "nobody", "Bury.", "Mill Lane")
    # EM: 1, 0, 1. F1: 1, then 1 word of 1 and 2, then 1.
    expected = {"em": pytest.approx(200 / 3), "f1": pytest.approx(100 * (1 + 2 / 3 + 1) / 3)}
    assert record(targets, predictions) == expected
    backwards = record(targets[::-1], predictions[::-1])  # "nobody" comes before "river aln"
    assert backwards == {"em": pytest.approx(200 / 3), "f1": pytest.approx(200 / 3)}


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_real_multirc(real_data):
    targets = [
        {"value": answer["label"], "group": question["idx"]}
        for row in rows(real_data / "superglue/MultiRC/validation.jsonl.gz")
        for question in row["passage"]["questions"]
        for answer in question["answers"]
    ]
    questions = {t["group"] for t in targets}
    assert (len(targets) > 4000, len(questions)) == (True, 887)
    right = values(*[t["value"] for t in targets])
    assert group_exact_match(targets, right) == {"exact_match": 100.0}
    assert multirc_f1(targets, right) == {"f1": 100.0}
    share = np.mean([t["value"] for t in targets])
    all_true = multirc_f1(targets, values(*[1] * len(targets)))["f1"]
    assert all_true == pytest.approx(100 * 2 * share / (1 + share))
    shuffled = np.random.default_rng(3).permutation(len(targets))
    noise = values(*[t["value"] ^ (i % 7 == 0) for i, t in enumerate(targets)])
    of = [group_exact_match(targets, noise), multirc_f1(targets, noise)]
    again = [targets[i] for i in shuffled], [noise[i] for i in shuffled]
    assert [group_exact_match(*again), multirc_f1(*again)] == of
    wrong = {t["group"] for i, t in enumerate(targets) if i % 7 == 0}
    assert of[0]["exact_match"] == pytest.approx(100 * (887 - len(wrong)) / 887)


def test_real_record(real_data):
    queries = [
        ([answer["text"] for answer in query["answers"]], (row["idx"], query["idx"]))
        for row in rows(real_data / "superglue/ReCoRD/train_64.jsonl.gz")
        for query in row["qas"]
    ]
    once = [{"value": answers, "group": group} for answers, group in queries]
    assert len(once) == len({t["group"] for t in once}) > 50
    assert record(once, values(*[t["value"][-1] for t in once])) == {"em": 100.0, "f1": 100.0}
    # One example for each answer, as in training: the same score.
    repeated = [t for t in once for _ in t["value"]]
    assert len(repeated) > len(once)
    texts = [t["value"][0] if t["group"][1] % 3 else "somebody else" for t in repeated]
    first = [t["value"][0] if t["group"][1] % 3 else "somebody else" for t in once]
    scores = record(repeated, values(*texts))
    assert scores == record(once, values(*first))
    assert 30 < scores["em"] < 90
