"""The boundary around a user's task: what its functions and its source raise, under both policies;
stores, streaming and evaluation see the same records."""

import json
import re

import pytest

from t5jax.data.config import DataConfig
from t5jax.data.records import DamagedFile, Rejected, Row
from t5jax.data.registry import add_task, names
from t5jax.data.registry.texts import TaskDocuments
from t5jax.data.sources import JsonLines
from t5jax.data.store.build import build_cache
from t5jax.data.store.documents import encoded_shard
from t5jax.data.tasks.task import ExampleTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.examples import load_task_examples
from tests.raising import EXCEPTIONS, raises

NUMBERS = 7  # rows; the third is bad
BAD = 2


class Source:
    """Rows 0 to 6 in one shard; `fails` names the method that raises `error`."""

    def __init__(self, fails="", error=""):
        self.fails, self.error = fails, error

    def _may_fail(self, method):
        if self.fails == method:
            raises(self.error)

    def splits(self):
        self._may_fail("splits")
        return ("train", "validation")

    def shards(self, split):
        self._may_fail("shards")
        return ["numbers.bin"]

    def shard_fingerprint(self, split, shard):
        self._may_fail("shard_fingerprint")
        return ""

    def records(self, split, shard):
        for number in range(NUMBERS):
            if number == BAD:
                self._may_fail("records")
            yield Row({"number": number}, f"numbers.bin, line {number + 1}")


@pytest.fixture
def make_task(monkeypatch):
    """Registers a task `ratio` for the test; returns its documents under a policy."""
    monkeypatch.setattr(names, "_own", {})

    def make(policy="error", *, source=lambda data: Source(), **fields):
        def examples(row):
            return [{"inputs": f"in {row['number']}", "targets": f"out {row['number']}"}]

        defaults = {"examples": examples, "metrics": (lambda t, p: {"n": 1.0},)}
        add_task(
            ExampleTask(name="ratio", description="", source=source, **(defaults | fields)),
        )
        return TaskDocuments("ratio", data_config(policy))

    return make


def data_config(policy):
    return DataConfig(
        mixture="ratio",
        vocabulary=ByteVocabulary(extra_ids=29),
        targets_length=9,
        cache_dir=None,
        on_bad_record=policy,
        max_bad_fraction=0.5,
    )


def failing(error, *, late):
    """A task's function that raises for the bad row: at once, or when it is iterated."""

    def at_once(row):
        if row["number"] == BAD:
            raises(error)
        return [{"inputs": f"in {row['number']}", "targets": f"out {row['number']}"}]

    def later(row):
        yield {"inputs": f"in {row['number']}", "targets": f"out {row['number']}"}
        if row["number"] == BAD:
            raises(error)

    return later if late else at_once


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", EXCEPTIONS)
def test_a_tasks_function_fails_on_a_row(make_task, error, late):
    shown = "RuntimeError" if late and error == "StopIteration" else error
    texts = make_task(examples=failing(error, late=late))
    with pytest.raises(DataError, match=f"^numbers.bin, line 3: {shown} in task ratio") as raised:
        list(texts.documents("train", "numbers.bin"))
    assert type(raised.value.__cause__).__name__ == shown

    texts = make_task("skip", examples=failing(error, late=late))
    rejected = Rejected()
    kept = [x["inputs"] for x in texts.documents("train", "numbers.bin", rejected)]
    assert kept == [f"in {number}" for number in range(NUMBERS) if number != BAD]
    assert rejected.records == 1
    assert str(rejected).startswith(
        f"1 record left out, the first: numbers.bin, line 3: {shown} in task ratio"
    )


def test_a_store_is_built_without_the_row_that_is_skipped(make_task, tmp_path):
    texts = make_task("skip", examples=failing("ZeroDivisionError", late=False))
    lines = []
    info = build_cache(
        texts, "train", tmp_path, vocabulary=texts.data.vocabulary, progress=lines.append
    )
    assert info.documents == NUMBERS - 1
    assert any("line 3: ZeroDivisionError in task ratio" in line for line in lines)
    texts = make_task("error", examples=failing("ZeroDivisionError", late=False))
    with pytest.raises(DataError, match="line 3: ZeroDivisionError in task ratio"):
        build_cache(texts, "train", tmp_path / "other", vocabulary=texts.data.vocabulary)


def test_settings_are_refused_under_any_policy(make_task):
    def examples(row):
        raise ConfigError("data.datasets_dir is not set")

    texts = make_task("skip", examples=examples)
    with pytest.raises(ConfigError, match=r"^numbers\.bin, line 1: data\.datasets_dir is not set"):
        list(texts.documents("train", "numbers.bin"))


@pytest.mark.parametrize("error", EXCEPTIONS)
def test_a_source_that_fails_breaks_off(make_task, error):
    texts = make_task(source=lambda data: Source("records", error))
    shown = "RuntimeError" if error == "StopIteration" else error
    message = f"^numbers.bin, after 2 records: {shown} in the source of task ratio"
    with pytest.raises(DataError, match=message):
        list(texts.documents("train", "numbers.bin"))
    texts = make_task("skip", source=lambda data: Source("records", error))
    rejected, kept = Rejected(), []
    if error == "OSError":  # the data may be whole: no policy leaves it out
        with pytest.raises(DataError, match=message):
            list(texts.documents("train", "numbers.bin"))
        return
    kept.extend(texts.documents("train", "numbers.bin", rejected))
    assert (len(kept), rejected.damaged_files) == (2, 1)
    assert re.match(message, rejected.places[0])


@pytest.mark.parametrize("method", ["splits", "shards", "shard_fingerprint"])
@pytest.mark.parametrize("error", EXCEPTIONS)
def test_a_source_that_cannot_be_asked(make_task, error, method):
    texts = make_task(source=lambda data: Source(method, error))
    arguments = {"splits": (), "shards": ("train",)}.get(method, ("train", "numbers.bin"))
    with pytest.raises(DataError, match=f"{error} in the source of task ratio"):
        getattr(texts, method)(*arguments)


@pytest.mark.parametrize("error", EXCEPTIONS)
def test_a_source_that_cannot_be_made(make_task, error):
    texts = make_task(source=lambda data: raises(error))
    with pytest.raises(ConfigError, match=f"{error} in the source of task ratio"):
        texts.splits()


def test_errors_of_ours_that_a_users_source_raises_gain_the_shard(make_task):
    class Own(Source):
        def records(self, split, shard):
            yield from Source.records(self, split, shard)
            raise DamagedFile("checksum differs")

    texts = make_task(source=lambda data: Own())
    with pytest.raises(DamagedFile, match=r"^numbers\.bin, after 7 records: checksum differs$"):
        list(texts.documents("train", "numbers.bin"))


class Vocabulary(ByteVocabulary):
    """Fails on one text."""

    error = ""

    def encode(self, text, *, sentinels=True):
        if text.endswith(f" {BAD}"):
            raises(type(self).error)
        return ByteVocabulary.encode(self, text, sentinels=sentinels)


@pytest.mark.parametrize("error", EXCEPTIONS)
def test_a_vocabulary_fails_on_a_document(make_task, monkeypatch, error):
    monkeypatch.setattr(Vocabulary, "error", error)
    vocabulary = Vocabulary(extra_ids=29)
    message = f"^numbers.bin, line 3: {error} in the vocabulary"
    with pytest.raises(DataError, match=message):
        list(encoded_shard(make_task(), "train", "numbers.bin", Rejected(), vocabulary))
    rejected = Rejected()
    kept = list(encoded_shard(make_task("skip"), "train", "numbers.bin", rejected, vocabulary))
    assert (len(kept), rejected.records) == (NUMBERS - 1, 1)
    assert re.match(message, rejected.places[0])


@pytest.mark.parametrize("function", ["postprocess", "choices"])
@pytest.mark.parametrize("error", EXCEPTIONS)
def test_evaluation_finds_targets_that_fail_before_anything_is_decoded(
    make_task, caplog, error, function
):
    def postprocess(text, *, example, is_target):
        return raises(error) if is_target and text.endswith(f" {BAD}") else text

    def choices(example):
        return raises(error) if example["inputs"].endswith(f" {BAD}") else ["a", "b"]

    functions = {"postprocess": postprocess} if function == "postprocess" else {"choices": choices}
    texts = make_task(**functions)
    task = texts._task()
    message = rf"numbers\.bin, line 3: {error} in the {function}"
    with pytest.raises(DataError, match=message.replace("postprocess", "postprocessing")):
        load_task_examples(task, texts.data, "validation")
    loaded = load_task_examples(task, data_config("skip"), "validation")
    assert len(loaded.examples) == NUMBERS - 1
    assert "1 record left out" in caplog.text
    assert f"{error} in the" in caplog.text


def test_a_prediction_that_the_postprocessing_fails_on_is_named_not_left_out(make_task):
    def postprocess(text, *, example, is_target):
        return text if is_target else float(text)

    texts = make_task(postprocess=postprocess)
    loaded = load_task_examples(texts._task(), data_config("skip"), "validation")
    with pytest.raises(DataError, match=r"line 2: ValueError in the postprocessing of a predict"):
        loaded.postprocessed_predictions(["1", "one", *["1"] * 5])


def test_the_line_of_a_file_is_named(make_task, tmp_path):
    path = tmp_path / "ratio.jsonl"
    rows = [{"right": 3, "total": 4}, {"right": 0, "total": 0}, {"right": 1, "total": 8}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def examples(row):
        yield {"inputs": "what share", "targets": f"{row['right'] / row['total']}"}

    source = lambda data: JsonLines(train_files=(str(path),))
    texts = make_task(source=source, examples=examples)
    with pytest.raises(DataError, match=r"ratio\.jsonl, line 2: ZeroDivisionError in task ratio"):
        list(texts.documents("train", str(path)))
    kept = make_task("skip", source=source, examples=examples).documents("train", str(path))
    assert [document["targets"] for document in kept] == ["0.75", "0.125"]
