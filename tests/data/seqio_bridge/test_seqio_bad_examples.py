"""A step of a task registered with seqio fails on some examples: refused by place, or left out of
stores and evaluations under the policy."""

import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.records import Rejected
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.build import build_cache
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import DataError
from t5jax.evaluation.examples import load_task_examples

NUMBERS = ["1", "2", "three", "4", "five", "6", "7"]


@pytest.fixture(scope="module")
def task():
    """Its step reads a number, which two of seven rows do not have."""
    seqio, tensorflow = import_seqio(), import_tensorflow()

    def rows(split, shuffle_files, seed=None):
        del split, shuffle_files, seed
        return tensorflow.data.Dataset.from_tensor_slices({"n": NUMBERS})

    def doubled(dataset):
        def step(row):
            twice = 2 * tensorflow.strings.to_number(row["n"], tensorflow.int32)
            return {"inputs": row["n"], "targets": tensorflow.strings.as_string(twice)}

        return dataset.map(step)

    vocabulary = seqio.ByteVocabulary(extra_ids=100)
    seqio.TaskRegistry.add(
        "doubled_numbers",
        source=seqio.FunctionDataSource(rows, splits=("train", "validation")),
        preprocessors=[
            doubled,
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={k: seqio.Feature(vocabulary) for k in ("inputs", "targets")},
        metric_fns=[lambda targets, predictions: {"n": float(len(targets))}],
    )
    yield "doubled_numbers"
    seqio.TaskRegistry.remove("doubled_numbers")


def data_config(task, policy, share=0.5):
    return DataConfig(
        mixture=task, vocabulary=ByteVocabulary(extra_ids=100), targets_length=9, cache_dir=None,
        on_bad_record=policy, max_bad_fraction=share,
    )  # fmt: skip


def test_refused_with_the_example_before(task):
    data = data_config(task, "error")
    texts = task_documents(registry.find_task(task, data), data)
    with pytest.raises(
        DataError, match=r"doubled_numbers, split 'train', after example 1: .*three"
    ):
        list(texts.documents("train", "all"))


def test_left_out_and_counted(task, tmp_path):
    data = data_config(task, "skip")
    texts, rejected = task_documents(registry.find_task(task, data), data), Rejected()
    targets = [
        data.vocabulary.decode(x["targets"]) for x in texts.documents("train", "all", rejected)
    ]
    assert targets == ["2", "4", "8", "12", "14"]
    assert (rejected.records, rejected.damaged_files) == (2, 0)
    assert "after example 1" in rejected.places[0]
    assert "three" in rejected.places[0]
    info = build_cache(texts, "train", tmp_path, vocabulary=data.vocabulary)
    assert info.documents == 5
    strict = task_documents(registry.find_task(task, data), data_config(task, "skip", 0.2))
    with pytest.raises(DataError, match="2 of 7 records are bad"):
        list(strict.documents("train", "all"))


def test_left_out_of_an_evaluation(task, caplog):
    data = data_config(task, "skip")
    loaded = load_task_examples(registry.find_task(task, data), data, "validation")
    assert [x.targets for x in loaded.examples] == ["2", "4", "8", "12", "14"]
    assert "2 records left out, the first: task doubled_numbers" in caplog.text
