"""Rows of a task through seqio's source: order, shards, hosts, splits, sizes, errors."""

import pytest

from t5jax.data.records import BadColumn
from t5jax.data.registry import add_task
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from t5jax.seqio_tasks import register
from tests.seqio_tasks.small_tasks import SHARDS, row, small_task

BYTES = ByteVocabulary(extra_ids=30)


def source_of(seqio, task, **settings):
    add_task(task)
    register([task.name], vocabulary=BYTES, **settings)
    return seqio.TaskRegistry.get(task.name).source


def inputs(dataset) -> list[str]:
    return [x["inputs"].decode() for x in dataset.as_numpy_iterator()]


ALL = [f"say <extra_id_0>: {row['text']}" for shard in SHARDS["train"] for row in shard]


@pytest.mark.slow
def test_rows_come_in_the_order_of_t5jax_or_shuffled_by_a_seed(seqio):
    source = source_of(seqio, small_task())
    assert inputs(source.get_dataset("train", shuffle=False)) == ALL
    assert source.list_shards("train") == ["train-0", "train-1", "train-2"]
    orders = {tuple(inputs(source.get_dataset("train", shuffle=True, seed=s))) for s in range(9)}
    assert 1 < len(orders) <= 6, "the order of three shards"
    assert all(sorted(order) == sorted(ALL) for order in orders)
    again = [inputs(source.get_dataset("train", shuffle=True, seed=4)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.slow
def test_hosts_divide_shards_or_else_examples(seqio):
    source = source_of(seqio, small_task())
    parts = [
        inputs(source.get_dataset("train", shuffle=False, shard_info=seqio.ShardInfo(i, 2)))
        for i in range(2)
    ]
    assert parts == [ALL[:5] + ALL[12:], ALL[5:12]]
    task, lengths = seqio.TaskRegistry.get("so_small"), {"inputs": 50, "targets": 9}
    shares = [
        task.get_dataset(lengths, shuffle=False, shard_info=seqio.ShardInfo(i, 4)) for i in range(4)
    ]
    texts = [[x["inputs_pretokenized"].decode() for x in d.as_numpy_iterator()] for d in shares]
    assert texts == [ALL[i::4] for i in range(4)]
    with pytest.raises(ValueError, match="3 shards cannot be divided by 4"):
        source.get_dataset("train", shard_info=seqio.ShardInfo(0, 4))


def test_splits_are_those_of_the_task_that_there_are(seqio):
    task = small_task(splits=("train", "validation", "test"))
    source = source_of(seqio, task)
    assert source.splits == ("train", "validation")
    assert inputs(source.get_dataset("extra")) == ["say <extra_id_0>: none"], "when asked for"
    with pytest.raises(DataError, match="no split 'test'"):
        source.get_dataset("test")


def test_evaluation_has_its_own_examples(seqio):
    def no_hint(row):
        yield {"inputs": row.text("text"), "targets": "x"}

    source = source_of(seqio, small_task(eval_examples=no_hint))
    assert inputs(source.get_dataset("validation", shuffle=False))[:2] == ["row 0", "row 1"]
    assert inputs(source.get_dataset("train", shuffle=False)) == ALL


def test_sizes_are_published_ones_or_unknown(seqio):
    source = source_of(seqio, small_task("so_sized", num_examples=1234))
    assert [source.num_input_examples(split) for split in ("train", "validation")] == [1234, None]
    assert source_of(seqio, small_task()).num_input_examples("train") is None


def test_a_prepared_data_set_says_its_size(seqio, tmp_path):
    from tests.data.prepared_sets import example, framed, write_prepared

    paths = write_prepared(tmp_path, "c4/en", ["text"], "train", [3, 4])
    for path, size in zip(paths, (3, 4), strict=True):
        path.write_bytes(b"".join(framed(example({"text": f"{size} {n}"})) for n in range(size)))
    register(["c4:span_corruption"], vocabulary=BYTES, tfds_data_dir=str(tmp_path))
    source = seqio.TaskRegistry.get("c4:span_corruption").source
    assert source.num_input_examples("train") == 7
    assert source.splits == ("train",)
    rows = [x["text"].decode() for x in source.get_dataset(shuffle=False).as_numpy_iterator()]
    assert rows == [f"3 {n}" for n in range(3)] + [f"4 {n}" for n in range(4)]


def bad_row_task():
    rows = [row("fine", 1, "f, line 1"), row("odd", 9, "f, line 2"), row("good", 0, "f, line 3")]

    def examples(row):
        if row["label"] > 2:
            raise BadColumn("label 9 is none of them")
        yield {"inputs": row.text("text"), "targets": "x"}

    return small_task("so_bad", {"train": [rows]}, examples=examples)


def test_a_bad_record_is_named_or_left_out(seqio):
    source = source_of(seqio, bad_row_task())
    with pytest.raises(Exception, match="f, line 2: label 9 is none of them"):
        inputs(source.get_dataset("train", shuffle=False))
    source = source_of(seqio, bad_row_task(), on_bad_record="skip", max_bad_fraction=0.5)
    assert inputs(source.get_dataset("train", shuffle=False)) == ["fine", "good"]


def test_a_vocabulary_that_pads_with_another_id_is_refused(seqio, monkeypatch):
    source = source_of(seqio, small_task())
    monkeypatch.setattr(ByteVocabulary, "pad_id", 3)
    with pytest.raises(ConfigError, match="pads with id 3: seqio takes id 0 for padding"):
        source.get_dataset("train")


def test_what_is_missing_is_said_when_data_is_asked_for(seqio, tmp_path):
    names = register(
        ["jsonl_span_corruption", "glue_cola_v002"], prefix="missing_", datasets_dir=str(tmp_path)
    )
    text, cola = map(seqio.TaskRegistry.get, names)
    assert cola.splits == ("train", "validation", "test")
    with pytest.raises(ConfigError, match=r"data\.train_files is empty"):
        text.get_dataset({"inputs": 64, "targets": 64})
    with pytest.raises(DataError, match=r"glue/cola is not below data\.datasets_dir"):
        cola.get_dataset({"inputs": 64, "targets": 64})
