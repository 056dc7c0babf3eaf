"""SQuAD's and TriviaQA's normal forms and scores; the published SQuAD v1.1 dev results."""

import gzip
import json

import pytest

from t5jax.metrics.question_answering import (
    normalize_squad,
    normalize_trivia_qa,
    normalize_unicode,
    span_squad,
    squad,
    token_f1,
    trivia_qa,
    unicode_answers,
)


@pytest.mark.parametrize(
    ("text", "of_squad", "of_trivia_qa"),
    [
        ("The  Quince, an Apple\tand a Pear!", "quince apple and pear", "quince apple and pear"),
        ("don't", "dont", "don t"),
        ("well-known_author", "wellknownauthor", "well known author"),
        ("‘Mint’ ´`", "‘mint’ ´", "mint"),
        ("A.N. Other", "other", "n other"),  # the point goes first, so "an" is an article
        ("theatre and anthem", "theatre and anthem", "theatre and anthem"),
        ("ÉTÉ «the»", "été « »", "été « »"),
        ("the", "", ""),
    ],
)
def test_normal_forms(text, of_squad, of_trivia_qa):
    assert normalize_squad(text) == of_squad
    assert normalize_trivia_qa(text) == of_trivia_qa


def test_token_f1_by_hand():
    assert token_f1("red red barn", "red barn door old") == pytest.approx(2 * 2 / (3 + 4))
    assert token_f1("red", "red red red") == pytest.approx(2 / 4)
    assert token_f1("barn", "door") == 0.0
    assert token_f1("", "") == 0.0


def test_squad_takes_each_maximum_over_the_answers_by_itself():
    targets = [["the red barn", "barn"], ["river bank"], ["nine", "9"]]
    predictions = ["Barn.", "the bank of river Aln", "ten"]
    # EM 1 0 0; F1 1, then 2 shared of 2 and 4 words (article gone), then 0.
    assert squad(targets, predictions) == {
        "em": pytest.approx(100 / 3),
        "f1": pytest.approx(100 * (1 + 2 * 2 / (2 + 4)) / 3),
    }
    assert squad(["barn"], ["a barn"]) == {"em": 100.0, "f1": 100.0}


def test_an_empty_answer_matches_but_has_no_words_to_share():
    assert squad([["the"]], [""]) == {"em": 100.0, "f1": 0.0}


def test_trivia_qa_separates_what_squad_joins():
    assert trivia_qa([["well known"]], ["well-known"]) == {"em": 100.0, "f1": 100.0}
    assert squad([["well known"]], ["well-known"]) == {"em": 0.0, "f1": 0.0}


def test_span_squad_reads_positions_of_words():
    context = "The barn (red, old) stands; near-by the river."
    #          0   1     2    3    4       5    6  7   8
    targets = [{"context": context, "answers": ["old stands near by", "nothing"]}] * 5
    texts = ["start: 3 end: 6", "start: 4 end: 6", "start: three end: 6", "", "start: 9 end: 12"]
    scores = span_squad(targets, texts)
    assert scores["em"] == pytest.approx(100 / 5)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 * 3 / (3 + 4)) / 5)


def questions(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    return {
        question["id"]: [answer["text"] for answer in question["answers"]]
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }


@pytest.mark.parametrize(
    ("system", "published"),
    [
        ("logistic_regression", (40.1, 51.0)),
        ("rnet_plus_ensemble", (82.5, 88.5)),
        ("bert_ensemble", (86.2, 92.2)),
    ],
)
def test_published_scores_on_the_squad_dev_set(real_data, system, published):
    answers = questions(real_data / "squad/dev-v1.1.json.gz")
    assert len(answers) == 10570
    folder = real_data / "metrics/squad_v1.1"
    with gzip.open(folder / f"predictions.{system}.json.gz", "rt", encoding="utf-8") as file:
        predictions = json.load(file)
    expected = json.loads((folder / "expected_scores.json").read_text())[system]
    texts = [predictions.get(key, "") for key in answers]  # one system left a question out
    scores = squad(list(answers.values()), texts)
    assert scores["em"] == pytest.approx(expected["exact_match"], rel=1e-12)
    assert scores["f1"] == pytest.approx(expected["f1"], rel=1e-12)
    assert (round(scores["em"], 1), round(scores["f1"], 1)) == published


def test_answers_of_any_script():
    assert normalize_unicode("Der «ALTE» Fluß — e\u0301té!") == "der alte fluß été"
    assert normalize_unicode("今天，很好。ok") == "今 天 很 好 ok"
    assert normalize_unicode("$5") == "5"
    assert normalize_unicode("☂") == "☂"
    targets, predictions = [["今天很好。"], ["«Новый год»"], ["été"]], ["今天", "новый год", "ete"]
    assert squad(targets, predictions) == {"em": 0.0, "f1": 0.0}
    # Two of four characters; the same without quotation marks; another word.
    assert unicode_answers(targets, predictions) == {
        "em": pytest.approx(100 / 3),
        "f1": pytest.approx(100 * (2 / 3 + 1) / 3),
    }


def test_notes_on_answers_that_normalisation_does_not_see():
    assert squad.notes([["red barn"], ["the", "mint"]], ["x", "y"]) == []
    (note,) = squad.notes([["The"], ["a mill"]], ["x", "y"])
    assert note.startswith("EM and F1: of 1 of 2 targets normalisation leaves nothing")
    (note,) = trivia_qa.notes([["今天"], ["ab"]], ["x", "y"])
    assert "50% of the answers' letters" in note
    assert "t5jax.metrics.unicode_answers" in note
    assert unicode_answers.notes([["今天"]], ["x"]) == []


@pytest.mark.parametrize("answer", ["नमस्ते।", "متى؟", "¿cuándo", "“red”", "«да»"])
def test_punctuation_that_squad_keeps_is_noted(answer):
    bare = normalize_unicode(answer)
    assert squad([[answer]], [bare])["em"] == 0.0  # so it is with the published script
    assert unicode_answers([[answer]], [bare]) == {"em": 100.0, "f1": 100.0}
    (note,) = squad.notes([[answer], ["a barn"]], ["x", "y"])
    assert note.startswith("EM and F1: 1 of 2 targets keep punctuation that is not ASCII's")
    assert unicode_answers.notes([[answer]], ["x"]) == []
    assert squad.notes([[answer], *[["a barn"]] * 10], ["x"] * 11) == []  # one of eleven
