"""GLUE's tasks: inputs and targets character for character, classes back from text, the metrics."""

import dataclasses

import numpy as np
import pytest

from t5jax.data.benchmarks.glue import TASKS
from t5jax.data.config import DataConfig
from t5jax.data.records import BadColumn, Rejected, Row
from t5jax.data.registry.texts import TaskDocuments
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import DataError
from t5jax.evaluation.examples import load_task_examples

BY_NAME = {task.name: task for task in TASKS}
NLI = {"premise": "Ann paid.", "hypothesis": "Ann slept.", "idx": 3}
PAIR = {"sentence1": "It rained.", "sentence2": "It was wet.", "idx": 5}

# task, row, inputs, targets by label
CASES = [
    (
        "glue_cola_v002",
        {"sentence": "Kim left early.", "idx": 7},
        "cola sentence: Kim left early.",
        ["unacceptable", "acceptable"],
    ),
    (
        "glue_sst2_v002",
        {"sentence": "a warm little film ", "idx": 0},
        "sst2 sentence: a warm little film ",
        ["negative", "positive"],
    ),
    (
        "glue_mrpc_v002",
        PAIR,
        "mrpc sentence1: It rained. sentence2: It was wet.",
        ["not_equivalent", "equivalent"],
    ),
    (
        "glue_qqp_v002",
        {"question2": "Is it?", "question1": "Was it?", "idx": 1},
        "qqp question1: Was it? question2: Is it?",
        ["not_duplicate", "duplicate"],
    ),
    *[
        (
            name,
            NLI,
            "mnli hypothesis: Ann slept. premise: Ann paid.",
            ["entailment", "neutral", "contradiction"],
        )
        for name in (
            "glue_mnli_v002",
            "glue_mnli_matched_v002",
            "glue_mnli_mismatched_v002",
            "glue_ax_v002",
        )
    ],
    (
        "glue_qnli_v002",
        {"sentence": "Ann paid.", "question": "Who paid?", "idx": 2},
        "qnli question: Who paid? sentence: Ann paid.",
        ["entailment", "not_entailment"],
    ),
    (
        "glue_rte_v002",
        PAIR,
        "rte sentence1: It rained. sentence2: It was wet.",
        ["entailment", "not_entailment"],
    ),
    (
        "glue_wnli_v002",
        PAIR,
        "wnli sentence1: It rained. sentence2: It was wet.",
        ["not_entailment", "entailment"],
    ),
]


@pytest.mark.parametrize(("name", "row", "inputs", "targets"), CASES)
def test_examples_and_classes(name, row, inputs, targets):
    task = BY_NAME[name]
    for label, target in [*enumerate(targets), (-1, "<unk>")]:
        (example,) = task.examples(Row({**row, "label": label}, "made, line 1"))
        assert example == {"inputs": inputs, "targets": target, "idx": row["idx"]}
        assert task.postprocess(target, example=example, is_target=True) == label
    assert task.postprocess(targets[0].upper(), example=example, is_target=False) == -1
    assert task.choices(example) == targets


@pytest.mark.parametrize("label", [3, "maybe", -2, 1.5])
def test_label_outside_the_classes_is_a_bad_column(label):
    with pytest.raises(BadColumn, match="label"):
        list(BY_NAME["glue_mrpc_v002"].examples(Row({**PAIR, "label": label}, "p")))


def test_missing_column_is_named():
    with pytest.raises(BadColumn, match="'question2'"):
        list(BY_NAME["glue_qqp_v002"].examples(Row({"question1": "?", "label": 0}, "p")))
    with pytest.raises(BadColumn, match="'label'"):
        list(BY_NAME["glue_cola_v002"].examples(Row({"sentence": "x"}, "p")))


def test_stsb_rounds_to_steps_of_a_fifth():
    scores = [3.8, 0.0, 5.0, 2.5, 3.5, 1.9, 4.75, 0.1, 3.25, -1.0, -0.0]
    expected = ["3.8", "0.0", "5.0", "2.4", "3.6", "2.0", "4.8", "0.0", "3.2", "-1.0", "0.0"]
    task = BY_NAME["glue_stsb_v002"]
    made = [next(iter(task.examples(Row({**PAIR, "label": score}, "p")))) for score in scores]
    assert [example["targets"] for example in made] == expected
    assert made[0]["inputs"] == "stsb sentence1: It rained. sentence2: It was wet."
    for text, value in [("3.8", 3.8), ("a lot", -1.0), ("", -1.0), ("nan", -1.0)]:
        assert task.postprocess(text, example=made[0], is_target=False) == value


@pytest.mark.parametrize(
    "label", [float("nan"), float("inf"), 5.2, -0.2, -2, 50, None, "", "3.8", True]
)
def test_stsb_has_no_text_for_what_is_no_similarity(label):
    with pytest.raises(BadColumn, match=rf"column 'label' is {label!r}.* number"):
        list(BY_NAME["glue_stsb_v002"].examples(Row({**PAIR, "label": label}, "p")))


@pytest.mark.parametrize("cell", ["nan", "", "NaN", "inf", "5.25", "-0.5", "-"])
def test_a_damaged_score_in_a_file_is_named_with_its_row(cell, tmp_path):
    folder = tmp_path / "glue" / "STS-B"
    folder.mkdir(parents=True)
    rows = ["sentence1\tsentence2\tscore", "A\tB\t3.8", f"C\tD\t{cell}", "E\tF\t0.2"]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    settings = {"vocabulary": ByteVocabulary(), "inputs_length": 99, "targets_length": 9}
    data = DataConfig(
        mixture="glue_stsb_v002", datasets_dir=str(tmp_path), cache_dir=None, **settings
    )
    texts = TaskDocuments("glue_stsb_v002", data)
    (shard,) = texts.shards("train")
    with pytest.raises(DataError, match=rf"train\.tsv, line 3: .*'?{cell}'? ?.*number"):
        list(texts.examples("train", shard, Rejected()))
    skipping = dataclasses.replace(data, on_bad_record="skip", max_bad_fraction=0.5)
    rejected = Rejected()
    examples = TaskDocuments("glue_stsb_v002", skipping).examples("train", shard, rejected)
    assert [example["targets"] for example in examples] == ["3.8", "0.2"]
    assert rejected.records == 1


def test_stsb_rows_without_a_score_are_refused_in_training_alone(tmp_path):
    folder = tmp_path / "glue" / "STS-B"
    folder.mkdir(parents=True)
    head = "sentence1\tsentence2\tscore\n"
    (folder / "train.tsv").write_text(head + "A\tB\t3.8\nC\tD\t-1\n")
    (folder / "dev.tsv").write_text(head + "A\tB\t1.0\nC\tD\t-1.0\n")
    (folder / "test.tsv").write_text("sentence1\tsentence2\nA\tB\n")
    data = DataConfig(
        mixture="glue_stsb_v002",
        datasets_dir=str(tmp_path),
        cache_dir=None,
        vocabulary=ByteVocabulary(),
        inputs_length=99,
        targets_length=9,
    )
    texts, task = TaskDocuments("glue_stsb_v002", data), BY_NAME["glue_stsb_v002"]
    with pytest.raises(DataError, match=r"train\.tsv, line 3: the row has no label"):
        list(texts.examples("train", *texts.shards("train")))
    with pytest.raises(DataError, match=r"dev\.tsv, line 3: no label .* where other rows"):
        load_task_examples(task, data, "validation")
    test = load_task_examples(task, data, "test")
    assert len(test.examples) == 1
    assert not test.has_targets  # predictions for a submission
    skipping = dataclasses.replace(data, on_bad_record="skip", max_bad_fraction=0.5)
    assert len(load_task_examples(task, skipping, "validation").examples) == 1


def test_stsb_rounds_as_tensorflow():
    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    scores = np.linspace(0, 5, 1237, dtype=np.float32)
    expected = tf.strings.as_string(tf.round(tf.constant(scores) * 5) / 5, precision=1).numpy()
    task = BY_NAME["glue_stsb_v002"]
    ours = [
        next(iter(task.examples(Row({**PAIR, "label": float(score)}, "p"))))["targets"]
        for score in scores
    ]
    assert ours == [text.decode() for text in expected]
    assert len(set(ours)) == 26


def test_metrics_equal_t5s():
    names = {
        task.name: {key for metric in task.metrics for key in metric([1, 0, 1], [1, 0, 0])}
        for task in TASKS
    }
    assert names["glue_cola_v002"] == {"matthews_corrcoef"}
    assert names["glue_mrpc_v002"] == names["glue_qqp_v002"] == {"f1", "accuracy"}
    assert names["glue_stsb_v002"] == {"pearson_corrcoef", "spearman_corrcoef"}
    assert names["glue_ax_v002"] == set()
    rest = {"sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli"}
    assert all(names[f"glue_{key}_v002"] == {"accuracy"} for key in rest)


def test_splits_without_training_have_no_examples_to_mix():
    for task in TASKS:
        assert (task.num_examples == 0) == ("train" not in task.splits) == (not task.train_splits)
