"""Metrics that an evaluation adds to a step that was saved before it, and what their lack means."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from t5jax.checkpoints import CheckpointConfig, Checkpoints, committed_steps, read_record, record

BEST = CheckpointConfig(keep_newest=1, keep_best=1)
FILE = record.METRICS_FILE


def state(step: int) -> dict[str, jax.Array]:
    return {"w": jnp.arange(7.0) + step, "step": jnp.int32(step)}


ABSTRACT = jax.eval_shape(lambda: state(0))


def opened(directory, config=BEST) -> Checkpoints:
    return Checkpoints(directory, config)


def restored(directory, config=BEST) -> Checkpoints:
    store = opened(directory, config)
    store.restore(ABSTRACT)
    return store


def save(store: Checkpoints, step: int, loss: float | None = None) -> None:
    store.save(step, state(step), {"config": "here"}, awaits_metrics=True)
    if loss is not None:
        store.add_metrics(step, {"validation/loss": loss})
    store.wait()


def test_a_step_awaits_its_metrics_until_they_are_added(tmp_path):
    save(opened(tmp_path), 3)
    killed = restored(tmp_path)  # before the evaluation had ended
    assert killed.awaits_metrics
    assert read_record(tmp_path, 3).awaits_metrics
    killed.add_metrics(3, {"validation/loss": 1.5, "validation/accuracy": math.nan})
    again = opened(tmp_path)
    found = again.restore(ABSTRACT)
    assert not again.awaits_metrics
    assert found.metrics["validation/loss"] == 1.5
    assert math.isnan(found.metrics["validation/accuracy"])
    assert sorted(path.name for path in (tmp_path / "3").iterdir() if path.name == FILE) == [FILE]


def test_a_step_that_nothing_evaluates_awaits_nothing(tmp_path):
    store = opened(tmp_path)
    store.save(3, state(3), {})
    store.add_metrics(4, {"validation/loss": 1.0})  # of a step that was not saved
    store.close()
    assert not restored(tmp_path).awaits_metrics
    assert read_record(tmp_path, 3).metrics == {}
    assert committed_steps(tmp_path) == [3]


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "torn", "changed", "of another step"])
def test_damaged_metrics_are_no_metrics_and_no_damage_to_the_step(tmp_path, damage, caplog):
    save(opened(tmp_path), 3, 1.25)
    file = tmp_path / "3" / FILE
    text = file.read_text()
    if damage == "of another step":
        save(restored(tmp_path), 5, 3.5)
        damage = (tmp_path / "5" / FILE).read_text()
    texts = {"torn": text[:-9], "changed": text.replace("1.25", "0.25")}
    (tmp_path / str(committed_steps(tmp_path)[0]) / FILE).write_text(texts.get(damage, damage))
    store = opened(tmp_path)
    found = read_record(tmp_path, committed_steps(tmp_path)[0])
    assert (found.metrics, found.awaits_metrics) == ({}, True)
    assert "counts as not evaluated" in caplog.text
    assert store.restore(ABSTRACT) is not None


def test_the_best_is_kept_until_a_better_one_has_been_evaluated(tmp_path):
    store = opened(tmp_path)
    save(store, 1, 2.0)
    save(store, 2, 3.0)
    assert committed_steps(tmp_path) == [1, 2]
    save(store, 3)  # better, but nobody knows yet
    assert committed_steps(tmp_path) == [1, 3]
    store.add_metrics(3, {"validation/loss": 1.0})
    assert committed_steps(tmp_path) == [3]
    save(store, 4, math.nan)
    assert committed_steps(tmp_path) == [3, 4]
    save(store, 5)  # its evaluation is killed; a new process evaluates it
    again = restored(tmp_path)
    assert again.awaits_metrics
    again.add_metrics(5, {"validation/loss": 0.5})
    assert committed_steps(tmp_path) == [5]
    save(again, 6, 0.75)
    assert committed_steps(tmp_path) == [5, 6]


def test_named_steps_are_never_deleted(tmp_path):
    config = CheckpointConfig(save_every_steps=9, keep_newest=1, keep_best=1, keep_steps=(2, 5, 99))
    store = opened(tmp_path, config)
    for step, loss in ((1, 4.0), (2, 3.0), (3, 2.0), (5, 5.0), (6, 1.0), (7, 6.0)):
        save(store, step, loss)
    assert committed_steps(tmp_path) == [2, 5, 6, 7]
    store.close()
    again = restored(tmp_path, CheckpointConfig(keep_newest=1, keep_steps=(5,)))
    save(again, 8)
    assert committed_steps(tmp_path) == [5, 8], "as the config says now"


def test_a_step_without_metrics_is_never_the_best(tmp_path):
    store = opened(tmp_path)
    for step in (1, 2, 3):
        save(store, step)
    assert committed_steps(tmp_path) == [3]


def test_metrics_that_t5jax_0_1_wrote_into_the_record_count(tmp_path):
    store = opened(tmp_path)
    save(store, 1)
    store.close()
    path = tmp_path / "1" / record.ITEM / record.FILE
    body = json.loads(path.read_text())["body"] | {"metrics": {"validation/loss": 0.125}}
    del body["awaits_metrics"]
    path.write_text(json.dumps({"body": body, "crc32": record._checksum(body)}))
    again = opened(tmp_path)
    found = again.restore(ABSTRACT)
    assert (found.metrics, again.awaits_metrics) == ({"validation/loss": 0.125}, False)
    save(again, 2, 0.25)
    assert committed_steps(tmp_path) == [1, 2]
