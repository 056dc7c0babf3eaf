"""What a vocabulary cannot spell is counted while tokens are made, and refused above a limit."""

import dataclasses
import json

import numpy as np
import pytest

from t5jax.commands.cache import build_stores
from t5jax.data.config import DataConfig
from t5jax.data.inspect.task_preview import preview
from t5jax.data.pipeline.opening import open_loader
from t5jax.data.registry import add_task, find_task
from t5jax.data.registry.resolve import resolve
from t5jax.data.sources import JsonLines
from t5jax.data.store.reader import CacheInfo, read_info
from t5jax.data.store.spelling import SpellingCounter, SpellingCounts, spelling_notes
from t5jax.data.tasks.task import ExampleTask
from t5jax.data.vocabularies import (
    ByteVocabulary,
    SentencePieceVocabulary,
    train_sentencepiece,
)
from t5jax.errors import ConfigError, DataError

TEXT = "select a from table where b is more than three and the rest of it is less"
WORDS = TEXT.split()
CHINESE = "今天天气很好，我们去公园散步。明天也许会下雨。"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """Of lower-case English, without a piece for `<`, capitals or any other script."""
    path = tmp_path_factory.mktemp("vocabulary") / "tiny.model"
    texts = [" ".join(WORDS[n:] + WORDS[:n]) for n in range(13)] * 20
    train_sentencepiece(texts, path, vocab_size=33)
    return SentencePieceVocabulary(path=str(path), extra_ids=100)


def counted(vocabulary, feature, *texts) -> SpellingCounts:
    counter = SpellingCounter(vocabulary)
    for text in texts:
        ids = vocabulary.encode(text, sentinels=feature != "text")
        counter.add({feature: text}, {feature: ids})
    return counter.of(feature)


def test_lost_characters_are_those_without_a_piece(vocabulary):
    texts = ["select a < b", f"{CHINESE} is the rest", "more <<< 天"]
    found = counted(vocabulary, "text", *texts)
    has_piece = set("".join(WORDS)) | {" ", ",", "。", "，"}
    lost = [c for text in texts for c in text if c not in has_piece]
    # SentencePiece makes of "，" a comma, for which there is no piece either.
    marks = [c for text in texts for c in text if c in ",。，"]
    assert found.lost_characters == len(lost) + len(marks)
    assert found.characters == sum(map(len, texts))
    assert (found.lost["<"], found.lost["天"]) == (4, CHINESE.count("天") + 1)
    ids = np.concatenate([vocabulary.encode(text) for text in texts])
    assert (found.tokens, found.unknown_tokens) == (len(ids), np.sum(ids == 2))
    assert (found.texts, found.unknown_texts) == (3, 3)
    assert found.most_lost()[:2] == [("<", 4), ("天", 4)]


def test_targets_that_come_back_otherwise_are_told_apart(vocabulary):
    targets = ["select a", "a < b", "more  than", " three", "ｍore", "<extra_id_0> rest", "<unk>"]
    found = counted(vocabulary, "targets", *targets)
    assert found.texts == 6  # T5's <unk> is no target
    assert (found.unknown_texts, found.changed_texts) == (1, 3)
    assert found.lost == {"<": 1}
    assert spelling_notes({"targets": found})[-1] == (
        "1 of 6 targets cannot be spelled by the vocabulary; 3 more come back in another form "
        "(Unicode normalisation, white space)"
    )
    assert spelling_notes({"targets": counted(vocabulary, "targets", "a", "b")}) == []


def test_bytes_spell_everything():
    found = counted(ByteVocabulary(extra_ids=100), "targets", CHINESE, "a < b\n", "🦊")
    assert (found.lost_characters, found.unknown_tokens, found.changed_texts) == (0, 0, 0)


def test_ids_without_a_text_are_counted_by_tokens(vocabulary):
    counter = SpellingCounter(vocabulary)
    ids = np.array([5, 2, 2, 7], np.int32)
    counter.add({"targets": ids}, {"targets": ids})
    assert counter.of("targets").lost_share == 0.5
    assert str(counter.of("targets")) == "2 of 4 tokens (50.00%) are the unknown piece"


def text_data(folder, vocabulary, texts, **changes) -> DataConfig:
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return DataConfig(
        **{
            "mixture": "jsonl:span_corruption",
            "train_files": (str(folder / "a.jsonl"),),
            "vocabulary": vocabulary,
            "cache_dir": str(folder / "cache"),
            "inputs_length": 32,
        }
        | changes
    )


REFUSED = r"cannot spell its text: .*% ?\) have no piece: .*天.*more than data.max_unknown_share"


def test_another_script_is_refused_before_anything_is_trained(tmp_path, vocabulary, capsys):
    data = text_data(tmp_path, vocabulary, [CHINESE] * 3)
    with pytest.raises(DataError, match=REFUSED) as raised:
        build_stores(data, splits=[], num_processes=1)
    for advice in ("tiny.model", "mt5", "ByteVocabulary()", "t5jax vocab train", "raise the limit"):
        assert advice in str(raised.value)
    live = dataclasses.replace(data, cache_dir=None)
    with pytest.raises(DataError, match=f"first texts: .*{REFUSED}"):
        open_loader(resolve(live), batch_size=2).element_spec  # noqa: B018
    with pytest.raises(DataError, match=REFUSED):
        preview(find_task(data.mixture, data), data).check_spelling()
    # With the limit raised the shards that were made are kept, and the share is said.
    high = dataclasses.replace(data, max_unknown_share=1.0)
    build_stores(high, splits=[], num_processes=1)
    said = capsys.readouterr()
    assert "1/1 shards were finished before" in said.err
    assert "69 of 69 characters (100.00%) have no piece: 天 (9)" in said.out
    assert open_loader(resolve(high), batch_size=2).rows(0)
    with pytest.raises(DataError, match=f"the store of .*{REFUSED}"):
        open_loader(resolve(data), batch_size=2)


def test_a_little_is_said_and_passes(tmp_path, vocabulary, capsys):
    texts = [TEXT] * 30 + ["a < b"]
    data = text_data(tmp_path, vocabulary, texts)
    build_stores(data, splits=[], num_processes=1)
    assert "have no piece: < (1)" in capsys.readouterr().out
    open_loader(resolve(dataclasses.replace(data, cache_dir=None)), batch_size=2).rows(0)


def test_a_store_of_before_has_no_counts_and_opens(tmp_path, vocabulary):
    data = text_data(tmp_path, vocabulary, [TEXT] * 30)
    build_stores(data, splits=[], num_processes=1)
    info = read_info(tmp_path / "cache" / "jsonl" / "train")
    assert info.spelling()["text"].characters == info.total("characters")
    (shard,) = info.shards
    old = dataclasses.replace(
        shard, features={"text": dataclasses.replace(shard.features["text"], spelling=None)}
    )
    without: CacheInfo = dataclasses.replace(info, shards=[old])
    assert without.spelling() == {"text": SpellingCounts()}
    assert without.fingerprint == info.fingerprint


def sql_task(folder) -> ExampleTask:
    rows = [{"q": "more than that", "sql": f"select a from t where b < {n}"} for n in range(9)]
    rows += [{"q": "the rest", "sql": "select the rest"}]
    (folder / "sql.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return add_task(
        ExampleTask(
            name="spelling_sql",
            description="",
            source=lambda data: JsonLines(
                train_files=(str(folder / "sql.jsonl"),),
                validation_files=(),
            ),
            examples=lambda row: [{"inputs": row["q"], "targets": row["sql"]}],
            splits=("train",),
        )
    )


def test_targets_that_cannot_be_spelled_are_said(tmp_path, vocabulary, capsys):
    task = sql_task(tmp_path)
    data = DataConfig(
        mixture=task.name, vocabulary=vocabulary, cache_dir=str(tmp_path), targets_length=32,
        max_unknown_share=0.2,
    )  # fmt: skip
    build_stores(data, splits=[], num_processes=1)
    said = "9 of 10 targets cannot be spelled by the vocabulary"
    assert said in capsys.readouterr().out
    shown = preview(task, data)
    assert shown.numbers()["spelling"]["targets"]["unknown_texts"] == 9
    with pytest.raises(DataError, match=said):
        dataclasses.replace(shown, max_unknown_share=0.0).check_spelling()


def test_a_limit_is_a_share(vocabulary):
    with pytest.raises(ConfigError, match=r"data\.max_unknown_share=1\.5: give a share"):
        DataConfig(
            mixture="c4", vocabulary=vocabulary, cache_dir=None, max_unknown_share=1.5
        ).check()
