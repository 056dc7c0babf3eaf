"""SuperGLUE's tasks: exact texts, what the grouped metrics get, the sentinel variants."""

import pytest

from t5jax.data.benchmarks.superglue import MULTIRC, RECORD, TASKS
from t5jax.data.records import BadColumn, Row

BY_NAME = {task.name: task for task in TASKS}
NLI = {"premise": "Bo ran.", "hypothesis": "Bo sat.", "idx": 4}
YES_NO = ["False", "True"]

CASES = [
    (
        "super_glue_boolq_v102",
        {"question": "is tea hot", "passage": "Tea -- Tea is made with hot water.", "idx": 1},
        "boolq passage: Tea -- Tea is made with hot water. question: is tea hot",
        YES_NO,
    ),
    (
        "super_glue_cb_v102",
        NLI,
        "cb hypothesis: Bo sat. premise: Bo ran.",
        ["entailment", "contradiction", "neutral"],
    ),
    (
        "super_glue_copa_v102",
        {
            "premise": "It froze.",
            "choice1": "Pipes burst.",
            "choice2": "Tea boiled.",
            "question": "effect",
            "idx": 2,
        },
        "copa choice1: Pipes burst. choice2: Tea boiled. premise: It froze. question: effect",
        ["choice1", "choice2"],
    ),
    (
        "super_glue_rte_v102",
        NLI,
        "rte hypothesis: Bo sat. premise: Bo ran.",
        ["entailment", "not_entailment"],
    ),
    (
        "super_glue_axg_v102",
        NLI,
        "rte hypothesis: Bo sat. premise: Bo ran.",
        ["entailment", "not_entailment"],
    ),
    (
        "super_glue_axb_v102",
        {"sentence1": "Bo ran.", "sentence2": "Bo sat.", "idx": 6},
        "rte hypothesis: Bo sat. premise: Bo ran.",
        ["entailment", "not_entailment"],
    ),
    (
        "super_glue_wic_v102",
        {"word": "bank", "sentence2": "By the bank.", "sentence1": "A bank failed.", "idx": 9},
        "wic sentence1: A bank failed. sentence2: By the bank. word: bank",
        YES_NO,
    ),
]


@pytest.mark.parametrize(("name", "row", "inputs", "targets"), CASES)
def test_examples_and_classes(name, row, inputs, targets):
    task, sentinel = BY_NAME[name], BY_NAME[f"{name}_1_sentinel"]
    for label, target in enumerate(targets):
        labelled = Row({**row, "label": label}, "made, line 1")
        (example,) = task.examples(labelled)
        assert example == {"inputs": inputs, "targets": target, "idx": row["idx"]}
        assert task.postprocess(target, example=example, is_target=False) == label
        (filled,) = sentinel.examples(labelled)
        assert filled["inputs"] == f"{inputs} <extra_id_0>"
        assert filled["targets"] == f"<extra_id_0> {target}"
        for text in (filled["targets"], f"<extra_id_0>{target}", target):
            assert sentinel.postprocess(text, example=filled, is_target=False) == label
    assert task.choices(example) == targets
    assert sentinel.choices(filled) == [f"<extra_id_0> {target}" for target in targets]


MULTIRC_LINE = {
    "idx": 11,
    "passage": {
        "text": "<b>Sent 1: </b>Mia baked.<br>She sang.",
        "questions": [
            {
                "question": "Who sang?",
                "idx": 31,
                "answers": [
                    {"text": "Mia", "idx": 70, "label": 1},
                    {"text": "Tom", "idx": 71, "label": 0},
                ],
            },
            {"question": "Who baked?", "idx": 32, "answers": [{"text": "Mia", "idx": 72}]},
        ],
    },
}


def test_multirc_is_one_example_per_answer_grouped_by_question():
    task = BY_NAME["super_glue_multirc_v102"]
    rows = list(MULTIRC.adapt(Row(MULTIRC_LINE, "val.jsonl, line 4"), 3))
    assert [row.place for row in rows][1] == "val.jsonl, line 4, question 31, answer 71"
    examples = [example for row in rows for example in task.examples(row)]
    assert [example["inputs"] for example in examples] == [
        "multirc question: Who sang? answer: Mia paragraph: Sent 1: Mia baked. She sang.",
        "multirc question: Who sang? answer: Tom paragraph: Sent 1: Mia baked. She sang.",
        "multirc question: Who baked? answer: Mia paragraph: Sent 1: Mia baked. She sang.",
    ]
    assert [example["targets"] for example in examples] == ["True", "False", "<unk>"]
    post = task.postprocess
    assert post("True", example=examples[0], is_target=True) == {"value": 1, "group": 31}
    assert post("perhaps", example=examples[0], is_target=False) == {"value": -1}
    targets = [post(e["targets"], example=e, is_target=True) for e in examples[:2]]
    right = [post(e["targets"], example=e, is_target=False) for e in examples[:2]]
    scores = [metric(targets, right) for metric in task.metrics]
    assert scores == [{"f1": 100.0}, {"exact_match": 100.0}]
    half = [metric(targets, [right[0], right[0]]) for metric in task.metrics]
    assert half[1] == {"exact_match": 0.0}  # one of the question's two answers is wrong


RECORD_LINE = {
    "idx": 5,
    "passage": {
        "text": 'Ada met Bob. "Hi"\n@highlight\nAda is tall\n@highlight\nBob left',
        "entities": [{"start": 8, "end": 10}, {"start": 0, "end": 2}, {"start": 29, "end": 31}],
    },
    "qas": [
        {
            "query": "@placeholder smiled.",
            "idx": 21,
            "answers": [{"text": "Bob"}, {"text": "Ada"}, {"text": "Bob"}],
        },
        {"query": "@placeholder slept.", "idx": 22},
    ],
}


def test_record_repeats_training_queries_and_evaluates_each_once():
    task = BY_NAME["super_glue_record_v102"]
    answered, open_query = RECORD.adapt(Row(RECORD_LINE, "train.jsonl, line 6"), 5)
    assert answered["entities"] == ["Ada", "Bob"]
    inputs = (
        "record query: @placeholder smiled. entities: Ada, Bob passage: "
        'Ada met Bob. "Hi" Ada is tall. Bob left'
    )
    training = list(task.examples(answered))
    assert [(e["inputs"], e["targets"]) for e in training] == [(inputs, "Ada"), (inputs, "Bob")]
    (evaluated,) = task.eval_examples(answered)
    assert evaluated == training[0]
    (unknown,) = task.examples(open_query)
    assert unknown["targets"] == "<unk>"
    target = task.postprocess("Ada", example=evaluated, is_target=True)
    assert target == {"value": ["Ada", "Bob"], "group": (5, 21)}
    prediction = task.postprocess("the bob", example=evaluated, is_target=False)
    assert task.metrics[0]([target], [prediction]) == {"em": 100.0, "f1": 100.0}


def test_malformed_nested_files_are_refused():
    for line in ({"passage": "text"}, {"passage": {"text": "x", "questions": [1]}}):
        with pytest.raises(BadColumn):
            list(MULTIRC.adapt(Row(line, "p"), 0))
    broken = {"passage": {"text": "Ada", "entities": [{"start": 0}]}, "qas": []}
    with pytest.raises(BadColumn, match="entity"):
        list(RECORD.adapt(Row(broken, "p"), 0))


def test_metric_names():
    row = [0, 1, 2]
    names = [key for metric in BY_NAME["super_glue_cb_v102"].metrics for key in metric(row, row)]
    assert names == ["mean_3class_f1", "accuracy"]


def test_every_plain_task_has_its_sentinel_variant_under_seqios_name():
    plain = {task.name for task in TASKS if "sentinel" not in task.name}
    variants = {task.name for task in TASKS} - plain
    assert len(plain) == len(variants) == 12
    assert {name.replace("_1_sentinel", "") for name in variants} == plain
    assert "super_glue_wsc_v102_simple_1_sentinel_train" in variants
    assert "super_glue_wsc_v102_simple_1_sentinel_eval" in variants
    assert "dpr_v001_simple_1_sentinel" in variants
