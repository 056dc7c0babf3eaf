"""Every task with rows at hand, from its files to its examples: none lost, none odd.

The tests need the folder of real data; what stands under other names there is linked to where its
task looks.
"""

import collections
import re
import types

import pytest

from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.config import DataConfig
from t5jax.data.inspect.task_preview import preview
from t5jax.data.objectives import SpanCorruption
from t5jax.data.records import BadRecord, Rejected
from t5jax.data.registry import builtin
from t5jax.data.registry.texts import task_documents
from t5jax.data.tasks.task import ExampleTask, TextTask
from t5jax.data.vocabularies import SentencePieceVocabulary
from tests.data.benchmarks.real_folders import link_data_sets, text_settings, write_texts
from tests.data.benchmarks.real_runs import LINKS, RUNS, TEXT_RUNS


@pytest.fixture(scope="module")
def settings(real_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("data_sets")
    link_data_sets(real_data, root)
    return types.SimpleNamespace(datasets_dir=str(root), tfds_data_dir=None)


def examples_of(task: ExampleTask, split: str, settings) -> list:
    source = task.source(settings)
    rows = [row for shard in source.shards(split) for row in source.records(split, shard)]
    assert not [row for row in rows if isinstance(row, BadRecord)]
    make = task.examples
    if split not in task.train_splits and task.eval_examples is not None:
        make = task.eval_examples
    return [example for row in rows for example in make(row)]


@pytest.mark.parametrize(("name", "split", "count", "inputs", "targets"), RUNS)
def test_rows_become_examples(settings, name, split, count, inputs, targets):
    task = SUPERVISED_TASKS[name]
    examples = examples_of(task, split, settings)
    assert len(examples) == count
    pattern = re.compile(inputs)
    odd = [example["inputs"] for example in examples if not pattern.fullmatch(example["inputs"])]
    assert odd == []
    if targets is not None:
        counts = collections.Counter(example["targets"] for example in examples)
        assert set(counts) == targets
        assert max(counts.values()) < 0.9 * len(examples)
    if split not in task.train_splits and task.postprocess is not None:
        check_perfect_predictions(task, examples[:2000])


def check_perfect_predictions(task: ExampleTask, examples: list) -> None:
    """Predictions that are the targets' own texts score 100 in every metric."""
    post = task.postprocess
    assert post is not None
    # Words have no dashes, which some answers hold: positions cannot reach all of SQuAD.
    # Some answers of Natural Questions are nothing but an article.
    least = {"squad_v010_allanswers_span": 97.0, "nq_open_templates_v001": 99.8}.get(
        task.name, 99.9999
    )
    wsc = task.name.endswith("_eval")
    examples = [e for e in examples if not wsc or (e["label"] == 1 and e["targets"])]
    assert examples
    targets = [post(e["targets"], example=e, is_target=True) for e in examples]
    predictions = [post(e["targets"], example=e, is_target=False) for e in examples]
    for metric in task.metrics:
        for value in metric(targets, predictions).values():
            assert least <= value <= 100.0001


def test_every_linked_data_set_is_run(settings):
    run = {
        folder
        for source in (SUPERVISED_TASKS[name].source(settings) for name, *_ in RUNS)
        for folder in (source.dataset.folder, source.dataset.name)
    }
    for link in LINKS:
        assert any(link.startswith(folder) or folder.startswith(link) for folder in run), link


SENTINEL_RUNS = [
    (name, split, count)
    for name, split, count, *_ in RUNS
    if name.startswith(("super_glue", "dpr"))
]


@pytest.mark.parametrize(("name", "split", "count"), SENTINEL_RUNS)
def test_sentinel_variants_of_the_same_rows(settings, name, split, count):
    base, suffix = (name[:-6], "_train") if name.endswith("_train") else (name, "")
    base, suffix = (name[:-5], "_eval") if name.endswith("_eval") else (base, suffix)
    variant = SUPERVISED_TASKS[f"{base}_1_sentinel{suffix}"]
    plain = examples_of(SUPERVISED_TASKS[name], split, settings)
    filled = examples_of(variant, split, settings)
    assert len(plain) == len(filled) == count
    for before, after in zip(plain, filled, strict=True):
        assert after["inputs"] == before["inputs"] + " <extra_id_0>"
        assert after["targets"] == "<extra_id_0> " + before["targets"]
    if split not in variant.train_splits:
        check_perfect_predictions(variant, filled)


def test_sentinels_are_tokens_of_the_vocabulary(settings, real_data):
    from t5jax.data.vocabularies import SentencePieceVocabulary

    vocabulary = SentencePieceVocabulary(path=str(real_data / "tokenizer/t5/spiece.model"))
    plain, filled = (
        examples_of(SUPERVISED_TASKS[name], "validation", settings)
        for name in ("super_glue_rte_v102", "super_glue_rte_v102_1_sentinel")
    )
    assert len(plain) == len(filled) == 251
    sentinel = vocabulary.sentinel_id(0)
    for before, after in zip(plain, filled, strict=True):
        inputs = vocabulary.encode(before["inputs"]).tolist()
        targets = vocabulary.encode(before["targets"]).tolist()
        # As seqio appends and prepends the id to the tokens.
        assert vocabulary.encode(after["inputs"]).tolist() == [*inputs, sentinel]
        assert vocabulary.encode(after["targets"]).tolist() == [sentinel, *targets]


# ---- plain text


@pytest.fixture(scope="module")
def text_root(real_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    write_texts(real_data, root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("name", "split", "count", "more"), TEXT_RUNS)
def test_text_is_read_whole(real_data, text_root, name, split, count, more):
    task = builtin.find_in_table(name)
    more = text_settings(text_root, task.required, more)
    vocabulary = SentencePieceVocabulary(path=str(real_data / "tokenizer/t5/spiece.model"))
    lengths = {"inputs_length": 512, "targets_length": 512}
    data = DataConfig(mixture=name, vocabulary=vocabulary, cache_dir=None, **lengths, **more)
    texts, rejected = task_documents(task, data), Rejected()
    documents = [
        document
        for shard in texts.shards(split)
        for document in texts.documents(split, shard, rejected)
    ]
    assert (len(documents), rejected.records, rejected.damaged_files) == (count, 0, 0)
    shown = preview(task, data, split=split, scan=300)
    assert shown.unknown_rate < 0.01
    if isinstance(task, TextTask):
        assert all(document["text"].strip() for document in documents)
        assert all(row.targets_text for row in shown.examples)
    if isinstance(task, TextTask) and isinstance(task.objective, SpanCorruption):
        sentinels = r"<extra_id_\d+>"
        for row in shown.examples:
            hidden = re.findall(sentinels, row.inputs_text)
            assert hidden == re.findall(sentinels, row.targets_text) != []
    if isinstance(task, ExampleTask):
        assert all(re.fullmatch(r"nsp: .+", document["inputs"]) for document in documents)
        counts = collections.Counter(document["targets"] for document in documents)
        assert 0.4 < counts["next"] / counts.total() < 0.6
        assert set(counts) == {"next", "not_next"}
