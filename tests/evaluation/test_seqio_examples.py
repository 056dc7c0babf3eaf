"""Evaluation of a task registered with seqio, compared with seqio's own Evaluator."""

import functools

import numpy as np
import pytest

from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.evaluator import build_evaluator
from tests.evaluation import tiny_evaluation as tiny

NAME = "tiny_seqio_task"


def matches(targets, predictions):
    """Numbers that say which target met which prediction."""
    shared = [
        len(set(t["text"]) & set(p["text"])) for t, p in zip(targets, predictions, strict=True)
    ]
    return {"shared": float(np.mean(shared)), "numbers": sum(t["number"] for t in targets)}


def mean_score(targets, scores):
    return {"score": float(np.mean(scores))}


def postprocess(text, example=None, is_target=False):
    return {"text": text, "number": int(example["number"])}


def register(**changes):
    from t5jax.data.seqio_bridge.vocabularies import TextVocabulary

    seqio, tf = import_seqio(), import_tensorflow()

    def rows(split, shuffle_files=False, seed=None):
        made = tf.data.Dataset.range(7)
        return made.map(
            lambda n: {
                "inputs": tf.strings.join(["what is ", tf.strings.as_string(n), "?"]),
                "targets": tf.strings.join(["it is ", tf.strings.as_string(n * n)]),
                "number": n,
            }
        )

    feature = seqio.Feature(TextVocabulary(tiny.VOCABULARY), add_eos=True)
    fields = {
        "source": seqio.FunctionDataSource(rows, splits=["validation"]),
        "preprocessors": [
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        "postprocess_fn": postprocess,
        "metric_fns": [matches, mean_score],
        "output_features": {"inputs": feature, "targets": feature},
    }
    if NAME in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(NAME)
    return seqio.TaskRegistry.add(NAME, **(fields | changes))


def padded(ids):
    return [*ids.tolist(), *[tiny.VOCABULARY.eos_id] * (tiny.DECODING.max_length + 1 - len(ids))]


def by_seqio():
    """The metrics that seqio's Evaluator finds, for a model of which it knows no more than the
    function."""
    seqio = import_seqio()
    evaluator = seqio.Evaluator(
        NAME,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        eval_split="validation",
        sequence_length={"inputs": 31, "targets": 24},
    )

    def each(dataset, answer):
        for number, row in dataset.as_numpy_iterator():
            inputs, targets = (
                row[f"{side}_tokens"][: np.count_nonzero(row[f"{side}_tokens"])]
                for side in ("encoder_input", "decoder_target")
            )
            yield int(number), answer(inputs.astype(np.int32), targets.astype(np.int32))

    generate = lambda inputs, _: tiny.generator().generate([inputs], tiny.DECODING)[0][0].ids
    score = lambda inputs, targets: tiny.generator().score([inputs], [targets])[0].total
    found, _ = evaluator.evaluate(
        compute_metrics=True,
        step=1,
        predict_fn=lambda dataset: [(n, padded(ids)) for n, ids in each(dataset, generate)],
        score_fn=lambda dataset: list(each(dataset, score)),
    )
    return {
        name: float(getattr(value, "value", value)) for name, value in found.result()[NAME].items()
    }


def evaluator():
    data = tiny.data(NAME, targets_length=24)
    return build_evaluator(data, tiny.DECODING, EvaluationConfig(batch_size=4), "validation")


@pytest.mark.slow
def test_values_are_those_of_seqio():
    register()
    opened = evaluator()
    assert opened is not None
    assert [x.inputs for x in opened.tasks[0].examples] == [f"what is {n}?" for n in range(7)]
    values = opened.evaluate(tiny.program(), tiny.placed(), 1).values
    expected = by_seqio()
    assert expected.keys() == {"shared", "numbers", "score"}
    assert values == {f"{NAME}/{k}": pytest.approx(v, abs=1e-5) for k, v in expected.items()}
    assert 0 < expected["shared"] < 10


@pytest.mark.parametrize("step", ["append_eos_after_trim", "append_eos"])
def test_inputs_are_truncated_and_ended_as_seqio_does_it(step):
    seqio = import_seqio()
    ending = getattr(seqio.preprocessors, step)
    task = register(preprocessors=[seqio.preprocessors.tokenize, ending])
    data = tiny.data(NAME, inputs_length=10, targets_length=24)
    opened = build_evaluator(data, tiny.DECODING, EvaluationConfig(), "validation")
    lengths = {"inputs": 10, "targets": 24}
    rows = task.get_dataset(lengths, "validation", shuffle=False).as_numpy_iterator()
    examples = opened.tasks[0].examples
    for example, row in zip(examples, rows, strict=True):
        assert example.ids.tolist() == row["inputs"].tolist()
    assert (examples[0].ids[-1] == 1) == (step == "append_eos_after_trim"), "all are truncated"
    assert opened.tasks[0].num_truncated == 7


def test_metrics_of_another_form_are_refused():
    register(metric_fns=[lambda targets, answers: {}])
    with pytest.raises(ConfigError, match=f"task {NAME}: Metric functions must have positional"):
        evaluator()


def test_a_task_without_metrics_has_no_evaluator():
    register(metric_fns=[])
    assert evaluator() is None


def test_steps_that_fail_are_named_by_task():
    from t5jax.errors import DataError

    seqio = import_seqio()
    broken = functools.partial(seqio.preprocessors.rekey, key_map={"inputs": "nothing"})
    register(preprocessors=[broken, seqio.preprocessors.tokenize])
    with pytest.raises(DataError, match=f"task {NAME}, split 'validation'"):
        evaluator()
