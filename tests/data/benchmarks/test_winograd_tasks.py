"""WSC, DPR and WNLI in T5's form: which pronoun is marked, what counts as its referent."""

import pytest

from t5jax.data.benchmarks.glue import TASKS as GLUE
from t5jax.data.benchmarks.superglue import DPR, TASKS, WSC
from t5jax.data.records import BadColumn, Row

BY_NAME = {task.name: task for task in (*TASKS, *GLUE)}
TRAIN = BY_NAME["super_glue_wsc_v102_simple_train"]
EVAL = BY_NAME["super_glue_wsc_v102_simple_eval"]


def wsc_line(text, pronoun, index, referent, referent_index=0, label=True):
    target = {
        "span1_text": referent,
        "span1_index": referent_index,
        "span2_text": pronoun,
        "span2_index": index,
    }
    return Row({"text": text, "target": target, "idx": 8, "label": label}, "p")


def only(rows):
    (row,) = rows
    return row


@pytest.mark.parametrize(
    ("text", "pronoun", "index", "inputs"),
    [
        ("Ida told Una that he lied.", "he", 4, "wsc: Ida told Una that *he* lied."),
        ("Ida told Una that he lied.", "he", 5, "wsc: Ida told Una that *he* lied."),  # points by
        ('He said "good for him," twice.', "him", 4, 'wsc: He said "good for *him* ," twice.'),
        ("He saw him and him .", "him", 4, "wsc: He saw him and *him* ."),
        ("They left.", "They", 0, "wsc: *They* left."),
    ],
)
def test_wsc_marks_the_pronoun(text, pronoun, index, inputs):
    row = only(WSC.adapt(wsc_line(text, pronoun, index, "Ida"), 0))
    example = only(EVAL.examples(row))
    assert (example["inputs"], example["targets"], example["label"]) == (inputs, "Ida", 1)


def test_wsc_trains_on_right_referents_only():
    wrong = only(WSC.adapt(wsc_line("Ida saw Una as she fell.", "she", 4, "Una", 2, False), 0))
    assert list(TRAIN.examples(wrong)) == []
    assert only(EVAL.examples(wrong))["label"] == 0
    right = only(WSC.adapt(wsc_line("Ida saw Una as she fell.", "she", 4, "Una", 2), 0))
    assert only(TRAIN.examples(right))["targets"] == "Una"


def test_wsc_spans_are_written_as_in_the_text():
    row = only(WSC.adapt(wsc_line("We fed the cat so it slept.", "it", 5, "The cat.", 2), 0))
    assert row["span1_text"] == "the cat"


def test_wsc_without_its_pronoun():
    with pytest.raises(BadColumn, match="'she'"):
        list(EVAL.examples(only(WSC.adapt(wsc_line("Ida fell.", "she", 1, "Ida"), 0))))


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ("the fuzzy cat", 1),
        ("Cat", 1),
        ("a very fuzzy cat", 1),
        ("dog", 0),
        ("the cat's hat", 0),
    ],
)
def test_referents_are_compared_by_their_words(prediction, label):
    for variant in ("", "_1_sentinel"):
        task = BY_NAME[f"super_glue_wsc_v102_simple{variant}_eval"]
        line = wsc_line("The fuzzy cat ate as it was fed.", "it", 5, "The fuzzy cat")
        example = only(task.examples(only(WSC.adapt(line, 0))))
        assert task.postprocess(prediction, example=example, is_target=False) == label
        assert task.postprocess(example["targets"], example=example, is_target=True) == 1
        assert task.metrics[0]([1], [label]) == {"accuracy": 100.0 * label}


def test_dpr_takes_the_first_free_standing_pronoun():
    line = {
        "sentence": "There he met the cook, so he, not the cook, ate.",
        "pronoun": "he",
        "candidates": ["the guest", "the cook"],
        "answer": "the guest",
    }
    task = BY_NAME["dpr_v001_simple"]
    example = only(task.examples(only(DPR.adapt(Row(line, "p"), 0))))
    assert example == {
        "inputs": "wsc: There *he* met the cook, so he, not the cook, ate.",
        "targets": "the guest",
    }
    labelled = only(DPR.adapt(Row({**line, "label": 1}, "p"), 0))
    assert only(task.examples(labelled))["targets"] == "the cook"
    sentinel = BY_NAME["dpr_v001_simple_1_sentinel"]
    filled = only(sentinel.examples(labelled))
    assert sentinel.postprocess(filled["targets"], example=filled, is_target=True) == "the cook"
    with pytest.raises(BadColumn, match="none of the candidates"):
        list(DPR.adapt(Row({**line, "answer": "a waiter"}, "p"), 0))


@pytest.mark.parametrize(
    ("premise", "hypothesis", "inputs", "referent"),
    [
        (
            "The ox drank the soup. It was salty.",
            "The soup was salty.",
            "wsc: The ox drank the soup. *It* was salty.",
            "The soup",
        ),
        (
            "Lou hid the map in a box since it was torn.",
            "The map was torn.",
            "wsc: Lou hid the map in a box since *it* was torn.",
            "The map",
        ),
        (
            "Ken called Max, but nobody answered him.",
            "Nobody answered Ken.",
            "wsc: Ken called Max, but nobody answered *him* .",
            "Ken",
        ),
        (
            "Eve met Zoe and then her bus came.",
            "Zoe's bus came.",
            "wsc: Eve met Zoe and then *her* bus came.",
            "Zoe",
        ),
        (
            "He looked over the hedge, where they had been.",
            "Nobody at all.",
            "wsc: *He* looked over the hedge, where they had been.",
            "",
        ),
    ],
)
def test_wnli_finds_pronoun_and_phrase(premise, hypothesis, inputs, referent):
    task = BY_NAME["glue_wnli_v002_simple_eval"]
    row = Row({"sentence1": premise, "sentence2": hypothesis, "label": 1, "idx": 3}, "p")
    example = only(task.examples(row))
    assert (example["inputs"], example["targets"]) == (inputs, referent)
    assert task.postprocess("", example=example, is_target=True) == 1


def test_wnli_without_a_pronoun():
    row = Row({"sentence1": "Eve ran.", "sentence2": "Eve ran.", "label": 0}, "p")
    with pytest.raises(BadColumn, match="no pronoun"):
        list(BY_NAME["glue_wnli_v002_simple_eval"].examples(row))
