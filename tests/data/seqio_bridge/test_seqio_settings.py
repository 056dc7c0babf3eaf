"""Settings of seqio's tasks and mixtures beside steps and features: used, said, or refused."""

import functools
import itertools
import logging

import numpy as np
import pytest

from t5jax.data.config import DataConfig
from t5jax.data.registry.resolve import checked_tasks, resolve
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.examples import load_task_examples
from tests.data.pipeline.loaders import open_in_order

COUNT = itertools.count()


@pytest.fixture(scope="module")
def seqio():
    return import_seqio()


@pytest.fixture(scope="module")
def tf():
    return import_tensorflow()


@pytest.fixture
def add(seqio, tf):
    """Registers a task of five rows with these settings, for the test."""
    names = []

    def rows(split, shuffle_files=False, seed=None):
        texts = [f"row {i}" for i in range(5)]
        return tf.data.Dataset.from_tensor_slices({"inputs": texts, "targets": texts})

    def add(steps=None, permitted=True, **settings):
        names.append(f"setting_{next(COUNT)}")
        splits = ("train", "validation")
        source = seqio.FunctionDataSource(rows, splits, caching_permitted=permitted)
        feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=100))
        features = {"inputs": feature, "targets": feature}
        library = seqio.preprocessors
        steps = steps or [library.tokenize, library.append_eos]
        metrics = [lambda targets, predictions: {"count": len(targets)}]
        seqio.TaskRegistry.add(names[-1], source, features, steps, metric_fns=metrics, **settings)
        return names[-1]

    yield add
    for name in names:
        seqio.TaskRegistry.remove(name)


@pytest.fixture
def mix(seqio):
    names = []

    def mix(*tasks, **settings):
        names.append(f"setting_{next(COUNT)}")
        seqio.MixtureRegistry.add(names[-1], list(tasks), **settings)
        return names[-1]

    yield mix
    for name in names:
        seqio.MixtureRegistry.remove(name)


def data_of(name):
    return DataConfig(
        mixture=name,
        vocabulary=ByteVocabulary(extra_ids=100),
        inputs_length=16,
        targets_length=9,
        pack=False,
        cache_dir=None,
    )


def rows_of(name):
    (loader,) = open_in_order(data_of(name), "train", batch_size=8).values()
    return loader.rows(0)["encoder_input_tokens"][: loader.num_rows]


def test_a_source_that_forbids_caching_has_no_store(add):
    (task,) = checked_tasks(data_of(add(permitted=False)))
    assert task.not_cacheable == "its source does not permit it (caching_permitted=False)"
    (task,) = checked_tasks(data_of(add()))
    assert task.not_cacheable is None


@pytest.mark.parametrize("method", ["get_dataset", "preprocess_precache", "preprocess_postcache"])
def test_a_task_class_with_a_data_set_of_its_own_is_read_through_it(add, seqio, method):
    def shortened(self, *args, **keywords):
        return getattr(super(Own, self), method)(*args, **keywords).take(2)

    Own = type("Own", (seqio.Task,), {method: shortened})
    placeholder = seqio.CacheDatasetPlaceholder()
    steps = [seqio.preprocessors.tokenize, placeholder, seqio.preprocessors.append_eos]
    name = add(steps, task_cls=Own)
    (task,) = checked_tasks(data_of(name))
    assert task.not_cacheable == f"its class Own has a {method} of its own"
    theirs = seqio.get_mixture_or_task(name).get_dataset(None, "train", shuffle=False)
    expected = [x["inputs"].tolist() for x in theirs.as_numpy_iterator()]
    assert len(expected) == 2
    assert [row[row > 0].tolist() for row in rows_of(name)] == expected


@pytest.mark.parametrize("wrong", [359, 9999, -1])
def test_ids_that_the_vocabulary_has_not_are_refused_with_their_place(add, seqio, tf, wrong):
    def step(dataset):
        return dataset.map(lambda x: {**x, "inputs": tf.constant([5, wrong], tf.int32)})

    name = add([seqio.preprocessors.tokenize, step])
    said = f"example 0: its steps leave the id {wrong} in inputs; ids of tokens are 1 to 358"
    with pytest.raises(DataError, match=f"^task {name}, train {said}"):
        rows_of(name)
    (task,) = checked_tasks(data_of(name))
    with pytest.raises(DataError, match=f"^task {name}, validation {said}"):
        load_task_examples(task, data_of(name), "validation")


def test_settings_that_change_what_training_sees_are_said(add, seqio, tf, caplog):
    def noisy(dataset):
        number = lambda: tf.random.uniform([], maxval=9, dtype=tf.int32)
        return dataset.map(lambda x: {**x, "inputs": tf.strings.as_string(number())})

    def seeded(dataset):
        number = lambda: tf.random.uniform([], maxval=9, dtype=tf.int32, seed=3)
        return dataset.map(lambda x: {**x, "inputs": tf.strings.as_string(number())})

    tokenize, eos = seqio.preprocessors.tokenize, seqio.preprocessors.append_eos
    with caplog.at_level(logging.WARNING, "t5jax"):
        rows_of(add())
        rows_of(add([seeded, tokenize, eos]))
        assert caplog.messages == []
        rows_of(add(shuffle_buffer_size=None))
        rows_of(add([noisy, tokenize, eos]))
    order, noise = caplog.messages
    assert "its shuffle_buffer_size is None, which forbids shuffling to seqio" in order
    assert "draw random numbers without a seed (RandomUniformInt)" in noise


def test_a_mixture_that_does_not_draw_by_its_rates_is_refused(add, mix, seqio, tf):
    one, other = add(), add()

    def in_turn(datasets, rates, seed):
        return tf.data.Dataset.choose_from_datasets(datasets, tf.data.Dataset.range(2).repeat())

    class Own(seqio.Mixture):
        def get_dataset(self, *args, **keywords):
            return super().get_dataset(*args, **keywords).take(3)

    class Uneven(seqio.Mixture):
        def _get_all_mixing_rates(self, tasks):
            return [0.1, 0.9]

    for settings, said in (
        ({"sample_fn": in_turn}, "its sample_fn is in_turn"),
        ({"sample_fn": functools.partial(in_turn)}, "its sample_fn is in_turn"),
        ({"mixture_cls": Own}, "its class Own has a get_dataset of its own"),
        ({"mixture_cls": Uneven}, "its class Uneven has a _get_all_mixing_rates of its own"),
    ):
        name = mix(one, other, default_rate=1.0, **settings)
        with pytest.raises(ConfigError) as caught:
            resolve(data_of(name), "encoder_decoder")
        assert str(caught.value).startswith(f"mixture {name}: {said}")
        assert "draws tasks by their rates alone" in str(caught.value)


def test_rates_are_those_of_seqio_whatever_gives_them(add, mix, seqio, tf):
    one, other = add(), add()
    endless = functools.partial(
        tf.data.Dataset.sample_from_datasets,
        stop_on_empty_dataset=False,
        rerandomize_each_iteration=True,
    )
    inner = mix((one, lambda task: 2.0), (other, 1))
    for name in (
        inner,
        mix(one, other, default_rate=1.0, sample_fn=endless),
        mix((one, np.float32(3)), (other, tf.constant(2.0))),
        mix((inner, 2.0), (other, 1)),
        mix((one, 0.0), (other, 1)),
    ):
        mixture = seqio.MixtureRegistry.get(name)
        total = sum(mixture.get_rate(task) for task in mixture.tasks)
        expected = {x.name: float(mixture.get_rate(x) / total) for x in mixture.tasks}
        (stage,) = resolve(data_of(name), "encoder_decoder").stages
        assert stage.shares == pytest.approx({k: x for k, x in expected.items() if x})
