"""Submission files: their names, columns and labels, as the two benchmarks require them."""

import json

import numpy as np
import pytest

from t5jax.data.registry import builtin
from t5jax.data.tasks.task import ExampleTask
from t5jax.errors import DataError
from t5jax.evaluation import submission
from t5jax.evaluation.examples import EvaluationExample, TaskExamples
from t5jax.evaluation.predictions import TaskPrediction
from t5jax.evaluation.submission import SUBMISSION_FORMATS, write_submission


def task_examples(name: str, examples: list[dict]) -> TaskExamples:
    task = builtin.find_in_table(name)
    assert isinstance(task, ExampleTask)
    assert task.postprocess is not None
    evaluated = [
        EvaluationExample("?", e.get("targets", "<unk>"), np.ones(1, np.int32), e) for e in examples
    ]
    return TaskExamples(
        task=name,
        examples=evaluated,
        num_truncated=0,
        postprocess=task.postprocess,
        metrics=(),
        score_metrics=(),
        choices=task.choices,
    )


def submit(folder, name, examples, texts):
    predictions = [TaskPrediction(text, 0.0) for text in texts]
    made = write_submission(folder, task_examples(name, examples), predictions)
    assert made is not None
    file, replaced = made
    return file.name, file.read_text().splitlines(), replaced


ROWS = [{"idx": 4}, {"idx": 5}, {"idx": 7}]


@pytest.mark.parametrize(
    ("name", "texts", "file", "predictions"),
    [
        ("glue_cola_v002", ["acceptable", "unacceptable", "so so"], "CoLA.tsv", ["1", "0", "0"]),
        ("glue_sst2_v002", ["positive", "negative", "positive"], "SST-2.tsv", ["1", "0", "1"]),
        ("glue_stsb_v002", ["3.8", "7.0", "much"], "STS-B.tsv", ["3.800", "5.000", "0.000"]),
        (
            "glue_mnli_mismatched_v002",
            ["neutral", "contradiction", "entailment"],
            "MNLI-mm.tsv",
            ["neutral", "contradiction", "entailment"],
        ),
        ("glue_rte_v002", ["not_entailment"] * 3, "RTE.tsv", ["not_entailment"] * 3),
    ],
)
def test_glue(name, texts, file, predictions, tmp_path):
    name, lines, replaced = submit(tmp_path, name, ROWS, texts)
    assert name == file
    assert lines == [
        "index\tprediction",
        *(f"{row['idx']}\t{label}" for row, label in zip(ROWS, predictions, strict=True)),
    ]
    assert replaced == (texts[-1] in ("so so", "much"))


@pytest.mark.parametrize(
    ("name", "texts", "file", "labels"),
    [
        (
            "super_glue_boolq_v102",
            ["True", "False", "?"],
            "BoolQ.jsonl",
            ["true", "false", "false"],
        ),
        ("super_glue_copa_v102", ["choice2", "choice1", "choice2"], "COPA.jsonl", [1, 0, 1]),
        ("super_glue_cb_v102", ["neutral"] * 3, "CB.jsonl", ["neutral"] * 3),
        ("super_glue_wic_v102", ["False", "True", "True"], "WiC.jsonl", ["false", "true", "true"]),
        ("super_glue_axg_v102", ["entailment"] * 3, "AX-g.jsonl", ["entailment"] * 3),
    ],
)
def test_superglue(name, texts, file, labels, tmp_path):
    found, lines, _ = submit(tmp_path, name, ROWS, texts)
    assert found == file
    assert [json.loads(line) for line in lines] == [
        {"idx": row["idx"], "label": label} for row, label in zip(ROWS, labels, strict=True)
    ]


def test_superglue_wsc_says_whether_the_referent_is_the_one_asked_about(tmp_path):
    rows = [{"idx": 1, "targets": "the cat"}, {"idx": 2, "targets": "Anna"}]
    name, lines, _ = submit(tmp_path, "super_glue_wsc_v102_simple_eval", rows, ["cat", "Bob"])
    assert name == "WSC.jsonl"
    assert [json.loads(line)["label"] for line in lines] == ["True", "False"]


def test_superglue_record_takes_the_query_and_the_text(tmp_path):
    row = {"idx/passage": 3, "idx/query": 11, "answers": []}
    _, lines, _ = submit(tmp_path, "super_glue_record_v102", [row], ["Zoë"])
    assert lines == ['{"idx": 11, "label": "Zoë"}']
    _, (line,), _ = submit(tmp_path, "super_glue_record_v102", [row], ["Zoë\u2028\x85\r\nX"])
    assert json.loads(line)["label"] == "Zoë\u2028\x85\r\nX"


def test_superglue_multirc_nests_answers_in_questions_in_passages(tmp_path):
    places = [(0, 0, 0), (0, 0, 1), (0, 3, 2), (5, 4, 3)]
    names = ("idx/paragraph", "idx/question", "idx/answer")
    rows = [dict(zip(names, place, strict=True)) for place in places]
    _, lines, _ = submit(
        tmp_path, "super_glue_multirc_v102", rows, ["True", "False", "True", "True"]
    )
    assert [json.loads(line) for line in lines] == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
                    {"idx": 3, "answers": [{"idx": 2, "label": 1}]},
                ]
            },
        },
        {"idx": 5, "passage": {"questions": [{"idx": 4, "answers": [{"idx": 3, "label": 1}]}]}},
    ]


def test_every_format_is_of_a_task_and_sentinels_count_as_the_task(tmp_path):
    assert all(isinstance(builtin.find_in_table(name), ExampleTask) for name in SUBMISSION_FORMATS)
    name = "super_glue_boolq_v102_1_sentinel"
    row = {"idx": 4, "targets": "<extra_id_0> False"}
    found, lines, _ = submit(tmp_path, name, [row], ["<extra_id_0> True"])
    assert (found, json.loads(lines[0])["label"]) == ("BoolQ.jsonl", "true")


def test_rows_need_their_number_and_other_tasks_have_no_format(tmp_path):
    with pytest.raises(DataError, match="idx = None: a submission needs the row's number"):
        submit(tmp_path, "glue_cola_v002", [{"idx": None}], ["acceptable"])
    task = task_examples("squad_v010_allanswers", [{"answers": ["x"]}])
    assert write_submission(tmp_path, task, [TaskPrediction("x", 0.0)]) is None


@pytest.mark.parametrize("value", ["a\tb", "a\nb", "a\u2028", ""])
def test_a_table_takes_no_tabs_and_line_ends(value):
    with pytest.raises(DataError, match=r"the prediction of row 3 is .*no place for tabs"):
        list(submission._tsv([{"idx": 3}], [value]))
