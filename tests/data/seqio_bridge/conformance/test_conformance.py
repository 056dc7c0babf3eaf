"""seqio's published task forms: rows, examples and metrics equal to seqio's own, by every way."""

import numpy as np
import pytest

from t5jax.data.config import DataConfig
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import (
    checked_tasks,
    resolve,
    resolve_definitions,
    write_serialised,
)
from t5jax.data.registry.texts import task_documents
from t5jax.data.rng import derive_seed
from t5jax.data.store.build import build_cache
from t5jax.data.store.directories import cache_directory
from t5jax.data.tensorflow_import import import_seqio
from t5jax.data.vocabularies.train import train_sentencepiece
from t5jax.errors import ConfigError
from t5jax.evaluation.examples import load_task_examples
from tests.data.pipeline.loaders import open_in_order, open_loader
from tests.marks import slow_but

NAMES = (
    "t0", "t0_score_eval", "t0_fully_cached", "flan", "flan_live", "span", "prompt_tuning",
    "sentinels", "closed_book", "required", "no_eos", "eos_by_tokenize", "half", "tail", "left",
    "early_lengths", "without_seed", "more_features", "lm", "lm_live",
)  # fmt: skip
LIVE = (
    "t0_fully_cached", "flan_live", "span", "sentinels", "half", "tail", "left", "without_seed",
    "lm_live",
)  # fmt: skip
STORED = tuple(name for name in NAMES if name not in LIVE)
CACHED_BY_SEQIO = ("t0_fully_cached", "required")
EVALUATED = tuple(name for name in NAMES if name not in CACHED_BY_SEQIO)


@pytest.fixture(scope="module")
def seqio():
    return import_seqio()


@pytest.fixture(scope="module")
def forms(tmp_path_factory, seqio):
    from tests.data.seqio_bridge.conformance import forms

    path = str(tmp_path_factory.mktemp("vocabulary") / "small.model")
    lines = [*forms.QUESTIONS, *forms.CHOICES, "trivia question: Answer: Now say: Q. YES NO"] * 9
    vocabulary = train_sentencepiece(lines, path, vocab_size=60)
    forms.register(seqio.SentencePieceVocabulary(path, extra_ids=vocabulary.extra_ids))
    forms.VOCABULARY = vocabulary
    yield forms
    forms.remove()


def data_of(forms, name, **settings) -> DataConfig:
    settings = {"pack": False, "cache_dir": None} | settings
    return DataConfig(
        mixture=forms.FORMS[name].name,
        vocabulary=forms.VOCABULARY,
        inputs_length=forms.LENGTHS["inputs"],
        targets_length=forms.LENGTHS["targets"],
        **settings,
    )


def converter_of_seqio(forms, form):
    """(the feature converter of the form's architecture, the lengths of its features)."""
    seqio = import_seqio()
    if form.architecture == "decoder_only":
        return seqio.LMFeatureConverter(pack=False), {"targets": forms.LENGTHS["targets"]}
    return seqio.EncDecFeatureConverter(pack=False), forms.LENGTHS


def batches_of_seqio(forms, name, split="train", seed=None):
    """Rows as seqio's feature converter makes them of what its task gives."""
    form = forms.FORMS[name]
    converter, lengths = converter_of_seqio(forms, form)
    dataset = examples_of_seqio(forms, name, split, seed)
    only = dict.fromkeys(lengths)
    dataset = dataset.map(lambda x: {name: x[name] for name in only})
    rows = list(converter(dataset, lengths).as_numpy_iterator())
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def examples_of_seqio(forms, name, split, seed):
    """The task's own data set; where it requires seqio's cache, from what it would cache."""
    task = import_seqio().get_mixture_or_task(forms.FORMS[name].name)
    if not task.requires_caching:
        seed = seed if forms.FORMS[name].takes_seed else None
        return task.get_dataset(forms.LENGTHS, split, shuffle=False, seed=seed)
    seqio = import_seqio()
    cached = task.preprocess_precache(task.source.get_dataset(split, shuffle=False))
    found = task.preprocess_postcache(cached, sequence_length=forms.LENGTHS)
    return seqio.utils.trim_dataset(found, forms.LENGTHS, task.output_features)


def assert_equal(ours, theirs):
    assert ours.keys() >= theirs.keys()
    for key in theirs:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


# ---- rows


@pytest.mark.parametrize("name", slow_but(["t0_score_eval", "flan"], STORED))
def test_rows_from_a_store_are_those_of_seqio(forms, tmp_path, name):
    data = data_of(forms, name, cache_dir=str(tmp_path))
    (task,) = checked_tasks(data)
    assert task.not_cacheable is None
    directory = cache_directory(tmp_path, task.name, "train")
    build_cache(task_documents(task, data), "train", directory, vocabulary=data.vocabulary)
    architecture = forms.FORMS[name].architecture
    write_serialised(resolve_definitions(find_definitions(data), data, architecture))
    loader = open_in_order(data, "train", architecture=architecture, batch_size=64)[task.name]
    theirs = batches_of_seqio(forms, name, seed=0 if name == "flan" else None)
    assert loader.num_rows == len(theirs["decoder_target_tokens"]) > 13
    rows = loader.rows(0)
    assert_equal({key: x[: loader.num_rows] for key, x in rows.items()}, theirs)


@pytest.mark.parametrize("name", slow_but(["t0", "t0_fully_cached", "half", "lm"], NAMES))
def test_live_rows_in_order_are_those_of_seqio(forms, name):
    """Validation during training without a store: the steps' random numbers are of a fixed seed."""
    data = data_of(forms, name)
    architecture = forms.FORMS[name].architecture
    loader = open_in_order(data, "train", architecture=architecture, batch_size=64)
    (loader,) = loader.values()
    theirs = batches_of_seqio(forms, name, seed=seed_of(forms, name, epoch=0))
    rows = {key: x[: loader.num_rows] for key, x in loader.rows(0).items()}
    assert_equal(rows, theirs)


@pytest.mark.parametrize("name", slow_but(["half"], ["t0", "flan_live", "span", "half", "lm_live"]))
def test_an_epoch_of_live_training_has_the_rows_of_seqio(forms, name):
    data = data_of(forms, name)
    form = forms.FORMS[name]
    theirs = [batches_of_seqio(forms, name, seed=seed_of(forms, name, epoch=e)) for e in range(2)]
    size = len(theirs[0]["decoder_target_tokens"])
    loader = open_loader(data, batch_size=size, architecture=form.architecture)
    for epoch, expected in enumerate(theirs):
        ours = loader.rows(epoch)
        assert sorted(joined(ours, expected)) == sorted(joined(expected, expected))
    assert form.random != (joined(theirs[0], theirs[0]) == joined(theirs[1], theirs[1]))


def joined(batch, like):
    arrays = [batch[key] for key in sorted(like)]
    return [tuple(np.concatenate(row).tolist()) for row in zip(*arrays, strict=True)]


def seed_of(forms, name, epoch):
    """The seed that t5jax gives seqio, from the run's and the epoch."""
    form = forms.FORMS[name]
    if form.stored:
        return 0 if name == "flan" else None
    return derive_seed(derive_seed(0, f"seqio/{form.name}"), f"epoch/{epoch}") % (1 << 31)


@pytest.mark.slow
def test_targets_alone_are_packed_for_a_decoder_as_examples_of_seqio(forms):
    """Keys and examples are those of seqio's LM rows; what shares a row is t5jax's choice."""
    seqio = import_seqio()
    data = data_of(forms, "lm", pack=True)
    (loader,) = open_in_order(data, "train", architecture="decoder_only", batch_size=64).values()
    lengths = {"targets": forms.LENGTHS["targets"]}
    dataset = examples_of_seqio(forms, "lm", "train", None).map(lambda x: {"targets": x["targets"]})
    packed = next(seqio.LMFeatureConverter(pack=True)(dataset, lengths).as_numpy_iterator())
    batch = loader.rows(0)
    assert batch.keys() == packed.keys()
    ours = [
        tuple(row[segments == number].tolist())
        for row, segments in zip(
            batch["decoder_target_tokens"], batch["decoder_segment_ids"], strict=True
        )
        for number in range(1, segments.max() + 1)
    ]
    theirs = [tuple(x["targets"].tolist()) for x in dataset.as_numpy_iterator()]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("architecture", ["encoder_decoder", "prefix_lm"])
def test_a_model_that_needs_inputs_refuses_targets_alone(forms, architecture):
    with pytest.raises(ConfigError) as caught:
        resolve(data_of(forms, "lm"), architecture)
    message = str(caught.value)
    assert message.startswith("task form_lm has targets alone, as a language model reads text")
    assert f"model.architecture = {architecture!r} needs inputs" in message
    assert "take model.architecture = 'decoder_only'" in message


# ---- evaluation


@pytest.mark.parametrize("name", slow_but(["t0_score_eval", "flan", "early_lengths"], EVALUATED))
def test_examples_and_metrics_are_those_of_seqios_evaluator(forms, name):
    seqio, form = import_seqio(), forms.FORMS[name]
    converter, lengths = converter_of_seqio(forms, form)
    evaluator = seqio.Evaluator(
        form.name,
        feature_converter=converter,
        eval_split="validation",
        sequence_length=lengths,
        seed=42 if form.takes_seed else None,
    )
    data = data_of(forms, name)
    (task,) = checked_tasks(data)
    ours = load_task_examples(task, data, "validation")
    theirs = list(evaluator.cached_task_datasets[form.name].as_numpy_iterator())
    assert len(ours.examples) == len(theirs)
    for example, expected in zip(ours.examples, theirs, strict=True):
        assert example.features.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(example.features[key], value, err_msg=key)
        assert example.ids.tolist() == list(expected.get("inputs", ()))
        assert example.target_ids.tolist() == expected["targets"].tolist()
    assert values_by_us(forms, ours) == values_by_seqio(forms, evaluator, form.name)


def invented(forms, number):
    """A prediction (ids and text) and a score for the example of a number: some are right."""
    text = forms.CHOICES[(number + number // 2) % 3]
    return forms.VOCABULARY.encode(text), text, -float((number * 7) % 5)


def values_by_seqio(forms, evaluator, name):
    forms.SEEN.clear()

    def predict(dataset):
        found = []
        for number, _ in dataset.as_numpy_iterator():
            ids = invented(forms, int(number))[0].tolist()
            found.append((int(number), [*ids, *[1] * (40 - len(ids))]))
        return found

    score = lambda dataset: [
        (int(number), invented(forms, int(number))[2]) for number, _ in dataset.as_numpy_iterator()
    ]
    values, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict, score_fn=score)
    return values.result()[name], list(forms.SEEN)


def values_by_us(forms, task):
    forms.SEEN.clear()
    answers = [invented(forms, number) for number in range(len(task.examples))]
    targets, values = task.postprocessed_targets(), {}
    for metric in task.metrics:
        values |= metric(targets, task.postprocessed_predictions([text for _, text, _ in answers]))
    for metric in task.score_metrics:
        values |= metric(targets, [score for _, _, score in answers])
    return values, list(forms.SEEN)
