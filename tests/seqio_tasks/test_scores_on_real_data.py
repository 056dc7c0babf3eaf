"""seqio's Evaluator on real examples: the values of t5jax's own metrics of the same answers."""

import pytest

from t5jax.data import registry
from t5jax.evaluation.examples import load_task_examples
from t5jax.seqio_tasks import register
from tests.seqio_tasks.equality_table import runs

NAMES = (
    *("glue_cola_v002", "glue_mrpc_v002", "glue_stsb_v002", "glue_wnli_v002_simple_eval"),
    *("super_glue_wsc_v102_simple_eval", "super_glue_cb_v102", "super_glue_multirc_v102"),
    *("super_glue_copa_v102", "squad_v010_allanswers", "squad_v010_allanswers_span"),
    *("multi30k_deen", "scitldr_v001", "sst2_templates_v001"),
)
COUNT = 40
LENGTHS = {"inputs": 700, "targets": 200}


@pytest.fixture(scope="module")
def real_runs(real_data, tmp_path_factory):
    found = runs(real_data, tmp_path_factory.mktemp("real"))
    return {name: data for name, split, data in found if split == "validation"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_t5jax(seqio, real_runs, name):
    data = real_runs[name]
    task = load_task_examples(registry.find_task(name, data), data, "validation", COUNT)
    assert task is not None
    answers = [task.examples[i // 3 * 3].targets for i in range(len(task.examples))]
    ids = [data.vocabulary.encode(text).tolist() for text in answers]
    texts = [data.vocabulary.decode(row) for row in ids]
    expected = {}
    for metric in task.metrics:
        expected |= metric(task.postprocessed_targets(), task.postprocessed_predictions(texts))
    assert len(set(answers)) > 1
    assert any(0 < value < 100 for value in expected.values())
    assert by_seqio(seqio, name, data, ids) == pytest.approx(expected, nan_ok=True)


def by_seqio(seqio, name, data, ids):
    register([name], vocabulary=data.vocabulary, datasets_dir=data.datasets_dir)
    evaluator = seqio.Evaluator(
        name,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        eval_split="validation",
        sequence_length=LENGTHS,
        num_examples=COUNT,
    )
    longest = max(map(len, ids))
    padded = [[*row, *[1] * (longest + 1 - len(row))] for row in ids]
    found, _ = evaluator.evaluate(
        compute_metrics=True,
        step=1,
        predict_fn=lambda dataset: [
            (int(number), padded[int(number)]) for number, _ in dataset.as_numpy_iterator()
        ],
    )
    return {k: float(getattr(v, "value", v)) for k, v in found.result()[name].items()}
