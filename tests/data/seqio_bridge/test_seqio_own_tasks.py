"""Tasks of a user's own module, registered with seqio: from stores where they can be, else live."""

import json
import re
import sys

import numpy as np
import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.objectives import SpanCorruption
from t5jax.data.records import Rejected
from t5jax.data.registry.resolve import checked_tasks
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.build import build_cache
from t5jax.data.store.directories import cache_directory
from t5jax.data.tasks.task import SeqioTask
from t5jax.data.tensorflow_import import import_seqio
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from tests.data.pipeline.loaders import open_in_order, open_loader, write_mixture

WORDS = ["the", "rows", "of", "a", "table", "are", "read", "in", "their", "order", "and", "each"]


@pytest.fixture(scope="module")
def seqio():
    return import_seqio()


def texts_in(data, split="train"):
    """What the config's task tokenises, shard by shard."""
    texts = task_documents(registry.find_task(data.mixture, data), data)
    return [list(texts.documents(split, s, Rejected())) for s in texts.shards(split)]


MODULE = """
import functools
import seqio, tensorflow as tf
from t5jax.data.objectives import SpanCorruption
from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor

def columns(dataset):
    def split(line):
        parts = tf.strings.split(line, "\\t")
        return {"text": parts[0], "label": parts[1]}
    return dataset.map(split)

FEATURES = {k: seqio.Feature(seqio.ByteVocabulary(extra_ids=100)) for k in ("inputs", "targets")}
REKEY = functools.partial(seqio.preprocessors.rekey, key_map={"inputs": None, "targets": "text"})
PAIRS = functools.partial(
    seqio.preprocessors.rekey, key_map={"inputs": "text", "targets": "label"}
)
STEPS = [
    columns,
    REKEY,
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    SpanCorruptionPreprocessor(SpanCorruption(mean_noise_span_length=5.0)),
    seqio.preprocessors.append_eos_after_trim,
]

def shout(dataset):
    return dataset.map(lambda x: {"targets": tf.strings.upper(x["targets"]), "inputs": ""})

@seqio.map_over_dataset(num_seeds=1)
def drop_tokens(x, seed):
    keep = tf.random.stateless_uniform(tf.shape(x["inputs"]), seed) > 0.3
    return {"inputs": tf.boolean_mask(x["inputs"], keep), "targets": x["targets"]}

def cut_inputs(dataset, sequence_length, output_features):
    n = sequence_length["inputs"] // 2
    return dataset.map(lambda x: {"inputs": x["inputs"][:n], "targets": x["targets"]})

ABSENT = seqio.Feature(seqio.SentencePieceVocabulary("absent.model", extra_ids=100))

def add(name, steps, features=FEATURES):
    source = seqio.TextLineDataSource({"train": "PATH"})
    seqio.TaskRegistry.add(name, source=source, preprocessors=steps, output_features=features)

tokenize, eos = seqio.preprocessors.tokenize, seqio.preprocessors.append_eos
trim_eos = seqio.preprocessors.append_eos_after_trim
add("mine", STEPS)
add("mine_loud", [*STEPS[:2], shout, *STEPS[2:]])
add("mine_pairs", [columns, PAIRS, tokenize, seqio.CacheDatasetPlaceholder(), trim_eos])
add("mine_pairs_early", [columns, PAIRS, tokenize, eos])
add("mine_without_eos", [columns, PAIRS, tokenize])
add("mine_random", [columns, PAIRS, tokenize, drop_tokens, cut_inputs, eos])
add("mine_unread", STEPS, {"inputs": ABSENT, "targets": ABSENT})
add("mine_changed", [*STEPS[:5], shout, STEPS[5]])
add("mine_targets_only", [columns, REKEY, tokenize, eos], {"targets": FEATURES["targets"]})
seqio.MixtureRegistry.add("mine_mixed", [("mine_loud", 3.0), ("mine_pairs", 1.0)])
seqio.MixtureRegistry.add("mine_live", [("mine_random", 1.0), ("mine_pairs", 2.0)])
"""
LINES = [(f"{word} and more", str(n)) for n, word in enumerate(WORDS)]


@pytest.fixture
def module(tmp_path, monkeypatch, seqio):
    path = tmp_path / "lines.tsv"
    path.write_text("".join(f"{text}\t{label}\n" for text, label in LINES))
    (tmp_path / "my_tasks.py").write_text(MODULE.replace("PATH", str(path)))
    (tmp_path / "bad_tasks.py").write_text("raise RuntimeError('no such thing')\n")
    (tmp_path / "needy_tasks.py").write_text("import a_missing_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_tasks"
    sys.modules.pop("my_tasks", None)
    for seqio_registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in [n for n in seqio_registry.names() if n.startswith("mine")]:
            seqio_registry.remove(name)


def own(module, name, **settings):
    settings = {
        "inputs_length": 24,
        "targets_length": 15,
        "modules": (module,),
        "vocabulary": ByteVocabulary(extra_ids=100),
        "cache_dir": "cache",
    } | settings
    return DataConfig(mixture=name, **settings)


def ids_of(text):
    return [byte + 3 for byte in text.encode()]


def test_a_users_seqio_task_is_resolved(module):
    found = {
        name: registry.find_task(name, own(module, name))
        for name in ("mine", "mine_pairs", "mine_pairs_early", "mine_without_eos", "mine_random")
    }
    for name, task in found.items():
        assert isinstance(task, SeqioTask)
        assert (task.name, task.modules, task.splits) == (name, (module,), ("train",))
    assert found["mine"].objective == SpanCorruption(mean_noise_span_length=5.0)
    rules = {name: task.eos["inputs"] for name, task in found.items()}
    assert rules == {
        "mine": "after_trim",
        "mine_pairs": "after_trim",
        "mine_pairs_early": "before_trim",
        "mine_without_eos": "none",
        "mine_random": "none",
    }
    problems = [name for name, task in found.items() if task.not_cacheable]
    assert problems == ["mine_random"]
    assert "not drop_tokens, cut_inputs, append_eos" in found["mine_random"].not_cacheable


def test_a_users_task_gives_the_cache_its_text(module):
    (documents,) = texts_in(own(module, "mine"))
    assert documents == [{"text": text} for text, _ in LINES]
    texts = task_documents(registry.find_task("mine", own(module, "mine")), own(module, "mine"))
    assert texts.splits() == ("train",)
    with pytest.raises(DataError, match="no split 'test'"):
        texts.shards("test")
    (loud,) = texts_in(own(module, "mine_loud"))
    assert loud[0] == {"text": "THE AND MORE"}
    again = task_documents(
        registry.find_task("mine", own(module, "mine")), own(module, "mine", seed=8)
    )
    assert again.identity() == texts.identity()  # a store does not depend on the run's seed


@pytest.mark.parametrize("name", ["mine_pairs", "mine_pairs_early", "mine_without_eos"])
def test_a_users_examples_come_from_the_store_as_from_seqio(module, tmp_path, seqio, name):
    (pairs,) = texts_in(own(module, name))
    assert [tuple(x.tolist() for x in pair.values()) for pair in pairs] == [
        (ids_of(text), ids_of(label)) for text, label in LINES
    ]
    data = own(module, name, cache_dir=str(tmp_path / "cache"), inputs_length=13, pack=False)
    store(data)
    loader = open_in_order(data, "train", batch_size=len(LINES))[name]
    batch = loader.rows(0)
    task = seqio.TaskRegistry.get(name)
    dataset = task.get_dataset({"inputs": 13, "targets": 15}, "train", shuffle=False)
    theirs = list(dataset.as_numpy_iterator())
    for row, example in enumerate(theirs):
        ours = batch["encoder_input_tokens"][row]
        assert ours[ours != 0].tolist() == example["inputs"].tolist()
        ours = batch["decoder_target_tokens"][row]
        assert ours[ours != 0].tolist() == example["targets"].tolist()
    assert len(theirs) == len(LINES) == loader.num_rows


def store(data):
    """Stores and record of the config's mixture."""
    for task in checked_tasks(data):
        directory = cache_directory(data.cache_dir, task.name, "train")
        build_cache(task_documents(task, data), "train", directory, vocabulary=data.vocabulary)
    write_mixture(data)


@pytest.mark.slow
def test_a_users_mixture_keeps_its_rates(module, tmp_path):
    data = own(module, "mine_mixed", cache_dir=str(tmp_path / "cache"))
    store(data)
    stored, live = open_loader(data, batch_size=8), None
    assert stored.task_names == ("mine_loud", "mine_pairs")
    live = open_loader(own(module, "mine_mixed", cache_dir=None), batch_size=8)
    assert live.task_names == stored.task_names
    for loader in (stored, live):
        examples = np.zeros(2)
        for step in range(25):
            batch = loader.rows(step)
            counts = batch["decoder_segment_ids"].max(axis=1)
            examples += np.bincount(batch["task_ids"], counts, minlength=2)
        assert examples / examples.sum() == pytest.approx([0.75, 0.25], abs=0.03)


# ---- a task that no store can stand for


def live_rows(loader, steps, first=0):
    """(inputs, targets) of the rows' examples, as tuples, row after row."""
    found = []
    for step in range(first, first + steps):
        batch = loader.rows(step)
        for row in range(loader.batch_size):
            for segment in range(1, int(batch["decoder_segment_ids"][row].max()) + 1):
                sides = (("encoder", "input"), ("decoder", "target"))
                found.append(
                    tuple(
                        tuple(batch[f"{side}_{what}_tokens"][row][ids == segment].tolist())
                        for side, what in sides
                        for ids in [batch[f"{side}_segment_ids"][row]]
                    )
                )
    return found


@pytest.mark.slow
def test_a_task_that_cannot_be_cached_runs_live_through_all_its_steps(module):
    """`cut_inputs` is given sequence_length, `drop_tokens` seeds; EOS is the task's own."""
    data = own(module, "mine_random", cache_dir=None)
    loader = open_loader(data, batch_size=5)
    by_label = {}
    for inputs, targets in live_rows(loader, 14):
        assert inputs[-1] == targets[-1] == 1
        assert inputs.count(1) == targets.count(1) == 1
        by_label.setdefault(bytes(i - 3 for i in targets[:-1]).decode(), []).append(inputs[:-1])
    assert set(by_label) == {label for _, label in LINES}
    for text, label in LINES:
        rows = by_label[label]
        assert len(rows) > 3
        for row in rows:
            assert len(row) <= 12
            rest = iter(ids_of(text))
            assert all(token in rest for token in row), "a subsequence of the text"
        assert len(set(rows)) >= len(rows) - 2, "other tokens are dropped in every epoch"
    counts = [len(rows) for rows in by_label.values()]
    assert max(counts) - min(counts) <= 1, "every example once an epoch"


@pytest.mark.slow
def test_a_live_seqio_task_resumes_to_the_same_rows(module):
    for name in ("mine_random", "mine_live"):
        data = own(module, name, cache_dir=None)
        whole = open_loader(data, batch_size=5)
        states, batches = [], []
        for step in range(11):
            states.append(json.loads(json.dumps(whole.state(step))))
            batches.append(whole.rows(step))
        for start in (1, 7):
            resumed = open_loader(data, batch_size=5)
            resumed.restore(states[start], start)
            for step in range(start, 11):
                batch = resumed.rows(step, [1, 4])
                for key in batch:
                    np.testing.assert_array_equal(batch[key], batches[step][key][[1, 4]])


def test_a_live_seqio_task_is_evaluated_through_all_its_steps(module):
    data = own(module, "mine_random", cache_dir=None)
    loader = open_in_order(data, "train", batch_size=5)["mine_random"]
    rows = live_rows(loader, loader.num_steps)
    labels = sorted(bytes(i - 3 for i in targets[:-1]).decode() for _, targets in rows)
    assert labels == sorted(label for _, label in LINES)


# ---- refusals


@pytest.mark.parametrize(
    ("mixture", "settings", "message"),
    [
        ("mine_unread", {}, "task mine_unread: its vocabulary absent.model cannot be read from /"),
        ("minee", {}, "no task or mixture 'minee'.*did you mean mine"),
        ("mine", {"vocabulary": ByteVocabulary()}, "data.vocabulary=.*must agree"),
        ("mine", {"modules": ("no_tasks",)}, "names 'no_tasks', but there is no no_tasks.py in /"),
        (
            "mine",
            {"modules": ("bad_tasks",)},
            "bad_tasks .* failed: RuntimeError in .*: no such thing",
        ),
        ("mine", {"modules": ("needy_tasks",)}, "imports 'a_missing_package'"),
    ],
)
def test_unsupported_seqio_tasks_are_refused(module, mixture, settings, message):
    with pytest.raises(ConfigError, match=message):
        checked_tasks(own(module, mixture, **settings))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mine_changed", "only EOS may be added, not .*shout, append_eos_after_trim"),
        ("mine_random", "only EOS may be added, not drop_tokens, cut_inputs, append_eos"),
    ],
)
def test_why_a_task_cannot_be_cached(module, name, problem):
    task = registry.find_task(name, own(module, name))
    assert re.search(problem, task.not_cacheable)
    assert task.objective is None
