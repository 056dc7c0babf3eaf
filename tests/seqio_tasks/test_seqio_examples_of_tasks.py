"""Examples of seqio's task and of t5jax's loader: the same ids, trimming and EOS."""

import numpy as np
import pytest

from t5jax.data.config import DataConfig
from t5jax.data.registry import add_task
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.seqio_tasks import register
from tests.data.pipeline.loaders import open_in_order
from tests.seqio_tasks.small_tasks import small_task

BYTES = ByteVocabulary(extra_ids=30)
LENGTHS = {"inputs": 21, "targets": 4}  # most inputs are cut, and "perhaps"


@pytest.fixture
def task(seqio):
    add_task(small_task())
    register(["so_small"], vocabulary=BYTES)
    return seqio.TaskRegistry.get("so_small")


def test_rows_are_those_of_the_loader(task):
    data = DataConfig(
        mixture="so_small", vocabulary=BYTES, inputs_length=21, targets_length=4, pack=False,
        cache_dir=None,
    )  # fmt: skip
    for split, count in (("train", 21), ("validation", 7)):
        loader = open_in_order(data, split, batch_size=count)["so_small"]
        batch = loader.rows(0)
        rows = list(task.get_dataset(LENGTHS, split, shuffle=False).as_numpy_iterator())
        assert len(rows) == count
        for feature, key in (
            ("inputs", "encoder_input_tokens"),
            ("targets", "decoder_target_tokens"),
        ):
            for row, expected in zip(rows, batch[key], strict=True):
                assert row[feature].tolist() == np.trim_zeros(expected, "b").tolist()
                assert row[feature][-1] == 1
                assert row[feature].dtype == np.int32


def test_texts_sentinels_and_untrimmed_rows(task):
    rows = list(task.get_dataset(None, "train", shuffle=False).as_numpy_iterator())
    first = rows[0]
    assert first["inputs_pretokenized"].decode() == "say <extra_id_0>: the 0 of 0 é"
    assert first["targets_pretokenized"] == b"no"
    assert first["inputs"].tolist() == [*BYTES.encode("say <extra_id_0>: the 0 of 0 é"), 1]
    assert BYTES.sentinel_id(0) in first["inputs"]


@pytest.mark.slow
def test_the_converter_makes_batches_packed_and_not(task, seqio):
    lengths = {"inputs": 64, "targets": 16}
    for pack in (False, True):
        converter = seqio.EncDecFeatureConverter(pack=pack)
        dataset = seqio.get_dataset(
            "so_small", lengths, converter, shuffle=True, seed=7, num_epochs=2
        )
        rows = list(dataset.as_numpy_iterator())
        assert all(row["encoder_input_tokens"].shape == (64,) for row in rows)
        examples = [row.get("decoder_segment_ids", np.ones(1)).max() for row in rows]
        assert sum(examples) == 42
        assert (len(rows) < 42) == pack


@pytest.mark.slow
def test_a_mixture_reads_its_tasks(task, seqio):
    from t5jax.data.registry import add_mixture
    from t5jax.data.tasks import Custom, Mixture

    add_task(small_task("so_other", num_examples=3))
    weights = {"so_small": 3.0, "so_other": 1.0}
    add_mixture(Mixture(name="so_mixed", tasks=tuple(weights), rate=Custom(weights=weights)))
    register(["so_mixed"], vocabulary=BYTES)
    mixture = seqio.get_mixture_or_task("so_mixed")
    dataset = mixture.get_dataset(
        LENGTHS, split="train", shuffle=True, seed=5, num_epochs=None, copy_pretokenized=True
    )
    rows = list(dataset.take(50).as_numpy_iterator())
    assert {key for row in rows for key in row} == {
        *LENGTHS, "inputs_pretokenized", "targets_pretokenized",
    }  # fmt: skip


@pytest.mark.slow
def test_what_seqio_caches_is_read_back(task, seqio, tmp_path, monkeypatch):
    """The pipeline of seqio_cache_tasks, without Beam: steps before the cache, tf.Examples."""
    import json

    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    folder = tmp_path / "so_small"
    folder.mkdir()
    shards = task.source.list_shards("train")
    for i in range(len(shards)):
        part = task.source.get_dataset(
            "train", shuffle=False, shard_info=seqio.ShardInfo(i, len(shards))
        )
        path = f"{seqio.get_cached_tfrecord_prefix(str(folder), 'train')}-{i:05d}-of-00003"
        with tf.io.TFRecordWriter(path) as writer:
            for example in task.preprocess_precache(part, seed=1).as_numpy_iterator():
                writer.write(seqio.dict_to_tfexample(example).SerializeToString())
    spec = task.preprocess_precache(part, seed=1).element_spec
    features = {k: {"shape": s.shape.as_list(), "dtype": s.dtype.name} for k, s in spec.items()}
    info = {"features": features, "num_shards": 3, "seqio_version": seqio.__version__}
    (folder / "info.train.json").write_text(json.dumps(info))
    (folder / "stats.train.json").write_text(json.dumps({"examples": 21}))
    (folder / "COMPLETED").write_text("")
    monkeypatch.setattr(task, "_cache_dir", str(folder))
    live, cached = (
        [
            {k: np.asarray(v).tolist() for k, v in row.items()}
            for row in task.get_dataset(
                LENGTHS, "train", use_cached=cached, shuffle=False
            ).as_numpy_iterator()
        ]
        for cached in (False, True)
    )
    key = lambda row: row["inputs_pretokenized"]
    assert sorted(cached, key=key) == sorted(live, key=key)
