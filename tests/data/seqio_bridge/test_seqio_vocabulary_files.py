"""Vocabularies that a seqio task names by a URL which cannot be read here."""

import numpy as np
import pytest

from t5jax.data.config import DataConfig
from t5jax.data.registry.resolve import checked_tasks
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.build import build_cache
from t5jax.data.store.reader import TokenStore
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, seqio_files
from t5jax.data.vocabularies.train import train_sentencepiece
from t5jax.errors import ConfigError
from t5jax.evaluation.examples import load_task_examples

URL = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
OTHER = "gs://a-bucket/b.model"
TEXTS = ("fish swim in the sea", "the moon is round", "seven is odd")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network (a local test must not wait for one), no copies of earlier runs."""
    tf = import_tensorflow()
    exists = tf.io.gfile.exists

    def without_network(path):
        if str(path).startswith("gs://"):
            raise tf.errors.FailedPreconditionError(None, None, "Could not resolve host")
        return exists(path)

    monkeypatch.setattr(tf.io.gfile, "exists", without_network)
    monkeypatch.setattr(seqio_files, "_taken", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("T5JAX_VOCABULARY", raising=False)
    seqio = import_seqio()
    seqio.vocabularies._load_model_internal.cache_clear()
    yield
    for name in [n for n in seqio.TaskRegistry.names() if n.startswith("of_url")]:
        seqio.TaskRegistry.remove(name)


@pytest.fixture
def local(tmp_path):
    return train_sentencepiece(TEXTS * 20, str(tmp_path / "own.model"), vocab_size=23)


def register(url, name="of_url"):
    seqio, tf = import_seqio(), import_tensorflow()
    feature = seqio.Feature(seqio.SentencePieceVocabulary(url, extra_ids=100))
    rows = lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
        {"inputs": [*TEXTS], "targets": [*TEXTS[::-1]]}
    )
    seqio.TaskRegistry.add(
        name,
        seqio.FunctionDataSource(rows, ("train", "validation")),
        {"inputs": feature, "targets": feature},
        [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        metric_fns=[lambda targets, predictions: {}],
    )


def data(vocabulary):
    return DataConfig(
        mixture="of_url",
        vocabulary=vocabulary,
        inputs_length=31,
        targets_length=29,
        cache_dir=None,
    )


def assert_read(config, local, tmp_path):
    """Listing, store and evaluation have the ids of the local file."""
    (task,) = checked_tasks(config)
    documents = task_documents(task, config)
    build_cache(documents, "train", tmp_path / "store", vocabulary=config.vocabulary)
    store = TokenStore.open(tmp_path / "store")
    stream = store.streams["inputs"]
    ids = stream.read_rows(np.zeros(1, np.int64), stream.num_tokens)[0].tolist()
    assert ids == np.concatenate([local.encode(text) for text in TEXTS]).tolist()
    examples = load_task_examples(task, config, "validation").examples
    assert [x.target_ids.tolist() for x in examples] == [
        [*local.encode(text), 1] for text in TEXTS[::-1]
    ]


@pytest.mark.parametrize(("url", "variable"), [(URL, "{}"), (URL, "t5={}"), (OTHER, OTHER + "={}")])
def test_a_copy_named_by_the_variable_is_read(local, tmp_path, monkeypatch, url, variable):
    monkeypatch.setenv("T5JAX_VOCABULARY", variable.format(local.path))
    register(url)
    assert_read(data(SentencePieceVocabulary(path=url)), local, tmp_path)


def test_the_runs_own_file_is_taken_and_that_is_said(local, tmp_path, caplog):
    register(URL)
    assert_read(data(local), local, tmp_path)
    said = caplog.text
    assert f"task of_url: its vocabulary {URL} cannot be read (Could not resolve host)" in said
    assert f"the run's own, {local.path}, is taken for it" in caplog.text


def test_the_copy_travels_to_the_processes_of_a_build(local):
    register(URL)
    (task,) = checked_tasks(data(local))
    documents = task_documents(task, data(local))
    assert documents.vocabulary_copies == ((URL, local.path),)
    assert "vocabulary_copies" not in documents.identity()


@pytest.mark.parametrize(("url", "name"), [(URL, "t5"), (OTHER, OTHER)])
def test_without_a_copy_the_error_says_how_to_name_one(url, name):
    register(url)
    with pytest.raises(ConfigError) as caught:
        checked_tasks(data(ByteVocabulary(extra_ids=100)))
    message = str(caught.value)
    assert message.startswith(f"task of_url: its vocabulary {url} cannot be read (Could not")
    assert f"T5JAX_VOCABULARY={name}=FILE" in message


def test_a_copy_with_other_sentinels_is_not_the_runs(local):
    register(URL)
    other = SentencePieceVocabulary(path=local.path, extra_ids=7)
    with pytest.raises(ConfigError, match="is not the one of task of_url"):
        checked_tasks(data(other))


def test_a_list_of_tasks_reads_no_vocabulary():
    from t5jax.data.inspect.catalog import entries

    register(URL)
    found = {entry.name: entry for entry in entries(data(ByteVocabulary()))}
    assert found["of_url"].splits == ("train", "validation")
