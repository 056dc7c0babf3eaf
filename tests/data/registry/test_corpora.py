"""Corpora of plain text and the names CORPUS:OBJECTIVE."""

import dataclasses
from collections.abc import Iterator

import pytest

from t5jax.data.config import DataConfig
from t5jax.data.objectives import PrefixLM, SpanCorruption, parse_objective
from t5jax.data.records import Row
from t5jax.data.registry import builtin
from t5jax.data.registry.corpora import CORPORA
from t5jax.data.sources import Cleaned, SplitNames, Tfds
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import TextTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError


def data(**settings) -> DataConfig:
    settings = {"mixture": "any", "cache_dir": None, "vocabulary": ByteVocabulary()} | settings
    return DataConfig(**settings)


@dataclasses.dataclass
class TwoLanguages:
    def splits(self) -> tuple[str, ...]:
        return ("de", "de-validation", "fr")

    def shards(self, split: str) -> list[str]:
        return [f"{split}-0", f"{split}-1"]

    def records(self, split: str, shard: str) -> Iterator[Row]:
        yield Row({"text": f"{split} of {shard}"}, f"{shard}, line 1")


def test_a_name_is_a_corpus_and_an_objective():
    task = builtin.find_in_table("docstrings:span_5_15_u_u")
    assert isinstance(task, TextTask)
    assert (task.corpus, task.objective) == ("docstrings", parse_objective("span_5_15_u_u"))
    assert builtin.find_in_table("jsonl:prefix_lm").objective == PrefixLM()
    assert builtin.find_in_table("docstrings_span_corruption").objective == SpanCorruption()


def test_what_is_no_name():
    assert builtin.find_in_table("nothing:prefix_lm") is None
    assert builtin.find_in_table("docstrings") is None
    with pytest.raises(
        ConfigError, match="objective 'prefix_ml' is unknown; did you mean prefix_lm"
    ):
        builtin.find_in_table("c4:prefix_ml")
    with pytest.raises(ConfigError, match=r"give them as data\.objective='prefix_lm"):
        builtin.find_in_table("c4:prefix_lm(suffix_fraction=0.3)")


def test_ul2_is_seven_tasks_with_modes_over_one_corpus():
    mixture = builtin.find_in_table("jsonl:ul2")
    assert isinstance(mixture, Mixture)
    tasks = [builtin.find_in_table(name) for name in mixture.tasks]
    assert len(tasks) == 7
    assert {task.corpus for task in tasks} == {"jsonl"}
    assert sorted(task.prefix for task in tasks) == ["[NLG] "] * 4 + ["[NLU] "] * 2 + ["[S2S] "]
    assert sum(mixture.rate.weights.values()) == pytest.approx(1.0)


def test_languages_of_mc4_are_splits_of_one_data_set():
    task = builtin.find_in_table("mc4_zh-Latn:span_corruption")
    source = task.source(data(tfds_data_dir="somewhere"))
    assert source == SplitNames(
        source=Tfds(name="c4/multilingual", data_dir="somewhere"),
        names={"train": "zh-Latn", "validation": "zh-Latn-validation"},
    )
    assert builtin.find_in_table("mc4_german:span_corruption") is None


def test_split_names():
    named = SplitNames(source=TwoLanguages(), names={"train": "de", "validation": "de-validation"})
    assert named.splits() == ("train", "validation")
    assert named.shards("validation") == ["de-validation-0", "de-validation-1"]
    row = next(named.records("train", "de-1"))
    assert (row["text"], row.place) == ("de of de-1", "de-1, line 1")
    assert named.shard_fingerprint("train", "de-1") == ""
    with pytest.raises(DataError, match=r"no split 'test'.*'train', 'validation'"):
        named.shards("test")
    assert SplitNames(source=TwoLanguages(), names={"train": "it"}).splits() == ()
    with pytest.raises(ConfigError, match="'train' and 'validation' are both the source's 'de'"):
        SplitNames(source=TwoLanguages(), names={"train": "de", "validation": "de"})


def test_every_corpus_reads_the_settings_that_it_names():
    for corpus in CORPORA.values():
        settings = {name: ("x",) for name in corpus.settings if name.endswith("_files")}
        settings |= {name: "x" for name in corpus.settings if not name.endswith("_files")}
        plain, given = corpus.source(data()), corpus.source(data(**settings))
        read = [name for name in corpus.settings if name != "text_column"]
        assert (plain != given) == bool(read), corpus.name
    assert isinstance(CORPORA["raw_jsonl"].source(data()), Cleaned)


def test_policies_of_files_are_settings_of_the_corpora_that_have_them():
    policies = {"max_record_bytes": 7, "blank_lines": "skip", "empty_files": "skip"}
    for name, has in (
        ("jsonl", policies),
        ("tsv", policies),
        ("c4_json", policies),
        ("raw_jsonl", policies),
        ("text", ("max_record_bytes", "empty_files")),
        ("tfrecord", ("max_record_bytes", "empty_files")),
        ("parquet", ("empty_files",)),
        ("arrayrecord", ("empty_files",)),
        ("c4", ()),
    ):
        corpus = CORPORA[name]
        given = {policy: policies[policy] for policy in has}
        source = corpus.source(data(**given))
        source = getattr(source, "source", source)
        assert {policy: getattr(source, policy) for policy in has} == given
        task = corpus.task(f"{name}_x", SpanCorruption())
        assert [policy for policy in policies if policy in task.settings] == [*given]
