"""Metrics of tasks registered with seqio on given predictions, against seqio's own Evaluator: every
form that seqio's tasks have, called once; metrics that fail beside those that do not."""

import collections
import functools

import flax
import numpy as np
import pytest

from t5jax.data.registry import find_task
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import load_task_examples
from t5jax.evaluation.predictions import TaskPrediction
from t5jax.evaluation.scores import score_predictions
from tests.evaluation import tiny_evaluation as tiny

NAME = "tiny_seqio_metrics"
NUM, CHOICES = 9, 3  # rows are (question, choice) pairs
TEXTS = ["it is 0", "it is 7", "", "nothing", "it is 16", "it was 25", "?", "it is 49", "it"]
SCORES = [-0.5, -1.25, -3.0, -0.125, -2.0, -0.75, -4.0, -0.25, -1.5]
TARGET_SCORES = [-3.0, -1.0, -2.0, -0.5, -0.75, -2.5, -4.0, -4.5, -0.25]


def rank_classification(targets, scores, num_classes=None):
    """As T0's: of the rows of a question the one with the highest score is chosen."""
    assert isinstance(scores, np.ndarray)
    rows = collections.defaultdict(dict)
    for (question, choice, is_right), score in zip(targets, scores, strict=True):
        rows[question][choice] = (score, is_right)
    assert all(len(choices) == num_classes for choices in rows.values()), "a choice is missing"
    chosen = [max(choices.values()) for choices in rows.values()]
    return {"accuracy": 100 * np.mean([is_right for _, is_right in chosen])}


def weighted(targets, predictions, aux_values):
    """Matches, weighted with the probability of the prediction."""
    same = [t[0] == len(p) for t, p in zip(targets, predictions, strict=True)]
    return {"weighted": float((np.exp(aux_values["scores"]) * np.array(same)).sum())}


def lengths(targets, predictions):
    seqio = import_seqio()
    return {
        "length": seqio.metrics.Scalar(np.mean([len(p) for p in predictions])),
        "first": seqio.metrics.Text(predictions[0]),
    }


def postprocess(text, example=None, is_target=False):
    if not is_target:
        return text
    return int(example["question"]), int(example["choice"]), bool(example["is_right"])


@functools.cache
def metric_objects():
    """A metric of token ids, one of scores, one of both; a collecting one over a function."""
    metrics = import_seqio().metrics

    class OfModel(metrics.Metric):
        @classmethod
        def from_model_output(cls, inputs, model_output, features, target_field_name="targets",
                              mask=None, indices_2d=None):  # fmt: skip
            return cls(**cls.totals(list(inputs), model_output, features[target_field_name]))

        def compute(self):
            return {self.name: self.total / self.count}

    @flax.struct.dataclass
    class Tokens(OfModel):
        """Share of the targets' tokens that are predicted at their place."""

        total: float = 0.0
        count: int = 1
        name: str = "tokens"
        model_output_type: metrics.ModelOutputType = metrics.ModelOutputType.PREDICTION

        @staticmethod
        def totals(inputs, output, feature):
            assert output.ndim == 2
            targets = np.zeros((len(inputs), 30), np.int64)
            padded = np.zeros_like(targets)
            for row, example in zip(targets, inputs, strict=True):
                row[: len(example["targets"])] = example["targets"]
            padded[:, : output.shape[1]] = np.asarray(output)[:, :30]
            real = targets != feature.vocabulary.pad_id
            return {"total": (real & (padded == targets)).sum(), "count": real.sum()}

    @flax.struct.dataclass
    class Likelihood(OfModel):
        """Mean log-likelihood of a target's character."""

        total: float = 0.0
        count: int = 1
        name: str = "likelihood"
        model_output_type: metrics.ModelOutputType = metrics.ModelOutputType.SCORE

        @staticmethod
        def totals(inputs, output, feature):
            count = sum(len(example["targets_pretokenized"]) for example in inputs)
            return {"total": output.sum(), "count": count}

    @flax.struct.dataclass
    class Confidence(OfModel):
        """Score of a prediction by its tokens."""

        total: float = 0.0
        count: int = 1
        name: str = "confidence"
        model_output_type: metrics.ModelOutputType = metrics.ModelOutputType.PREDICTION_WITH_AUX

        @staticmethod
        def totals(inputs, output, feature):
            ids, aux = output
            return {"total": aux["scores"].sum(), "count": (ids > feature.vocabulary.eos_id).sum()}

    legacy = metrics.PassthroughLegacyMetric.from_metric_fn(lengths, postprocess)
    return Tokens(), Likelihood(), Confidence(), legacy.empty()


def register(**changes):
    from t5jax.data.seqio_bridge.vocabularies import TextVocabulary

    seqio, tf = import_seqio(), import_tensorflow()

    def rows(split, shuffle_files=False, seed=None):
        return tf.data.Dataset.range(NUM).map(
            lambda n: {
                "inputs": tf.strings.join(["what is ", tf.strings.as_string(n), "?"]),
                "targets": tf.strings.join(["it is ", tf.strings.as_string(n * n)]),
                "question": n // CHOICES,
                "choice": n % CHOICES,
                "is_right": n % CHOICES == (n // CHOICES + 1) % CHOICES,
            }
        )

    feature = seqio.Feature(TextVocabulary(tiny.VOCABULARY), add_eos=True)
    if NAME in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(NAME)
    seqio.TaskRegistry.add(
        NAME,
        source=seqio.FunctionDataSource(rows, splits=["validation"]),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features={"inputs": feature, "targets": feature},
        **({"postprocess_fn": postprocess} | changes),
    )


def ids_of(text):
    return [*tiny.VOCABULARY.encode(text).tolist(), tiny.VOCABULARY.eos_id]


def by_seqio():
    """The numbers that seqio's Evaluator finds for these predictions and scores."""
    seqio = import_seqio()
    evaluator = seqio.Evaluator(
        NAME,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        eval_split="validation",
        sequence_length={"inputs": 31, "targets": 24},
    )
    longest = max(len(ids_of(text)) for text in TEXTS)
    padded = [ids_of(text) + [0] * (longest - len(ids_of(text))) for text in TEXTS]
    found, _ = evaluator.evaluate(
        compute_metrics=True,
        step=1,
        predict_fn=lambda dataset: list(enumerate(padded)),
        score_fn=lambda dataset: list(enumerate(TARGET_SCORES)),
        predict_with_aux_fn=lambda dataset: (list(enumerate(padded)), {"scores": list(SCORES)}),
    )
    values = {k: getattr(v, "value", v) for k, v in found.result()[NAME].items() if k != "first"}
    return {name: float(value) for name, value in values.items()}


def scored():
    data = tiny.data(NAME, targets_length=24)
    examples = load_task_examples(find_task(NAME, data), data, "validation")
    assert [x.targets for x in examples.examples] == [f"it is {n * n}" for n in range(NUM)]
    predictions = [
        TaskPrediction(text, score, target_score, ids=ids_of(text))
        for text, score, target_score in zip(TEXTS, SCORES, TARGET_SCORES, strict=True)
    ]
    return score_predictions(examples, predictions, EvaluationConfig(bootstrap_samples=100))


def numbers(scores):
    return {line.metric: line.value for line in scores.lines if line.error is None}


def errors(scores):
    return {line.metric: line.error for line in scores.lines if line.error is not None}


def test_every_form_of_metric_has_the_value_that_seqio_finds():
    functions = [weighted, functools.partial(rank_classification, num_classes=CHOICES)]
    register(metric_fns=functions, metric_objs=list(metric_objects()))
    expected = by_seqio()
    assert expected.keys() == {
        "tokens", "likelihood", "confidence", "length", "weighted", "accuracy"
    }  # fmt: skip
    scores = scored()
    assert errors(scores) == {}
    assert numbers(scores) == pytest.approx(expected, rel=1e-6)
    assert expected["accuracy"] == pytest.approx(100 / 3), "of three questions one is right"
    assert all(np.isnan([line.low, line.high]).all() for line in scores.lines)


def test_foreign_metrics_are_called_once():
    calls = []

    def counted(targets, predictions):
        calls.append((list(targets), list(predictions)))
        return {"counted": len(predictions)}

    register(metric_fns=[counted])
    assert numbers(scored()) == {"counted": NUM}
    assert [targets[0] for targets, _ in calls] == [(0, 0, False)]
    assert [predictions for _, predictions in calls] == [TEXTS]


def test_functions_may_change_what_they_are_given():
    """seqio makes the examples anew for each of them."""

    def popped(text, example=None, is_target=False):
        question = example.pop("question")
        example["inputs"][:] = 0
        return (int(question), int(example["choice"]), True) if is_target else text

    def emptied(targets, predictions):
        found = {"emptied": float(len(targets) + len(predictions))}
        targets.sort(reverse=True)
        targets.clear()
        predictions.clear()
        return found

    def first(targets, predictions):
        return {"first": float(10 * targets[0][0] + targets[1][1]), "of": len(predictions)}

    register(postprocess_fn=popped, metric_fns=[emptied, first])
    scores = scored()
    assert errors(scores) == {}
    assert numbers(scores) == {"emptied": 2.0 * NUM, "first": 1.0, "of": NUM}


def test_a_legacy_metric_object_does_not_keep_the_targets_of_another_split():
    metrics = import_seqio().metrics

    def right(targets, predictions):
        return {"right": float(sum(t == p for t, p in zip(targets, predictions, strict=True)))}

    asked = metrics.LegacyMetric.empty(right, lambda text, example, is_target: text)
    register(metric_objs=[asked])
    assert numbers(scored()) == {"right": 3.0}
    data = tiny.data(NAME, targets_length=24)
    examples = load_task_examples(find_task(NAME, data), data, "validation", num_examples=2)
    predictions = [TaskPrediction("it is 0", 0.0, ids=ids_of("it is 0")) for _ in range(2)]
    again = score_predictions(examples, predictions, EvaluationConfig())
    assert errors(again) == {}
    assert numbers(again) == {"right": 1.0}


def test_values_for_loggers_alone_and_metrics_without_a_value_are_said():
    register(metric_fns=[lengths, lambda targets, predictions: {}])
    assert scored().notes == [
        f"{NAME}: its metric lengths gave first (Text): not in this table",
        f"{NAME}: its metric <lambda> gave no value",
    ]


def test_one_that_fails_leaves_the_others():
    def asserts(targets, predictions):
        raise AssertionError("no reference")

    def same_name(targets, predictions):
        return {"length": 3.0}

    def undefined(targets, predictions):
        return {"undefined": float("nan"), "defined": 1}

    register(metric_fns=[lengths, asserts, same_name, undefined, lambda targets, predictions: 0.5])
    scores = scored()
    assert numbers(scores) == {"length": pytest.approx(np.mean([len(x) for x in TEXTS])),
                               "defined": 1.0}  # fmt: skip
    assert errors(scores) == {
        "asserts": "AssertionError: no reference",
        "same_name": "ValueError: another metric of the task gives length too",
        "undefined": "ValueError: it returned NaN for undefined",
        "<lambda>": "TypeError: it returned float 0.5, not a mapping {name: number}",
    }


def test_objects_of_other_outputs_are_refused():
    metrics = import_seqio().metrics
    kind = metrics.ModelOutputType.SCORE_WITH_INTERMEDIATES

    @flax.struct.dataclass
    class Intermediates(metrics.Metric):
        model_output_type: metrics.ModelOutputType = kind

    register(metric_objs=[Intermediates()])
    with pytest.raises(ConfigError, match="Intermediates is made of SCORE_WITH_INTERMEDIATES"):
        scored()
    register(metric_objs=[object()])
    with pytest.raises(ConfigError, match="its metric object object is made of None"):
        scored()
