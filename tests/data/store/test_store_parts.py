"""Parts of a store: any choice of units, made in any order and repeatedly, is one host's store."""

import errno
import fcntl
import itertools
import os
import pickle

import pytest

from t5jax.data.store import parts
from t5jax.data.store.build import build_cache
from t5jax.data.store.parts import Part, build_part, counts_begun, unfinished_units
from t5jax.data.store.reader import META, TokenStore
from t5jax.data.store.units import build_unit, store_units
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from tests.data.store.test_store_build import Memory, Pairs, contents, texts, verify

VOCABULARY = ByteVocabulary(extra_ids=7)


def pairs():
    content = {
        "a": [("q <extra_id_0>", "<extra_id_0> 1")],
        "b": [],
        "c": [("x" * 9, ""), ("", "y")],
    }
    return Pairs(content)


def build(source, directory, part, **options):
    build_part(source, "train", directory, vocabulary=VOCABULARY, part=Part.parse(part), **options)


def unfinished(source, directory):
    return unfinished_units(source, "train", directory, vocabulary=VOCABULARY)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 11])
def test_every_unit_is_in_one_part(count):
    for first in (0, 3):
        chosen = [Part(index, count).of(range(7), first) for index in range(count)]
        assert sorted(itertools.chain(*chosen)) == list(range(7))
        assert max(map(len, chosen)) - min(map(len, chosen)) <= 1
    assert Part(1, 4).of("abcdefg", 3) == ["c", "g"]  # numbers 5 and 9


@pytest.mark.parametrize(
    "text", ["4/4", "5/4", "-1/4", "0/0", "1", "1/2/3", "a/b", "1/4 ", "٠/4", ""]
)
def test_what_is_no_part(text):
    with pytest.raises(ConfigError, match=r"a part is I/N, I from 0 to N-1"):
        Part.parse(text)


@pytest.mark.parametrize("make", [texts, pairs])
@pytest.mark.parametrize("order", ["1/3 0/3 2/3", "2/3 0/2 2/3 1/2", "8/9 0/1"])
def test_parts_and_a_finish_are_the_store_of_one_host(make, order, tmp_path):
    build_cache(make(), "train", tmp_path / "one", vocabulary=VOCABULARY)
    store = tmp_path / "parts"
    for part in order.split():
        with pytest.raises(DataError, match=r"not finished|no tokenised store"):
            TokenStore.open(store)
        build(make(), store, part, first_unit=4)
    assert unfinished(make(), store) == []
    finishing = make()
    finishing.documents = None  # nothing is read again
    build_cache(finishing, "train", store, vocabulary=VOCABULARY)
    assert contents(store) == contents(tmp_path / "one")
    verify(store)


def test_the_unit_of_a_part_is_the_process_pool_s_and_travels(tmp_path):
    source = texts()
    build_cache(source, "train", tmp_path / "one", vocabulary=VOCABULARY)
    (tmp_path / "sent").mkdir()
    units = store_units(source, "train", tmp_path / "sent", VOCABULARY)
    for unit in reversed(units):
        there, what, ids = pickle.loads(pickle.dumps((unit, source, VOCABULARY)))
        build_unit(there, texts=what, split="train", vocabulary=ids)
    build_cache(source, "train", tmp_path / "sent", vocabulary=VOCABULARY)
    assert contents(tmp_path / "sent") == contents(tmp_path / "one")


def test_a_part_returns_what_it_has_and_says_what_it_does(tmp_path):
    lines = []
    for kept in (0, 2):
        say = {"vocabulary": VOCABULARY, "progress": lines.append}
        shards = build_part(texts(), "train", tmp_path, part=Part(1, 3), **say)
        assert [(s.name, s.source) for s in shards] == [
            ("shard-00001", "part-1.txt"),
            ("shard-00004", "part-4.txt"),
        ]
        assert (f"cache: {kept}/2 shards were finished before and are kept" in lines) == bool(kept)
    assert lines[1].startswith("cache: 2/2 shards, 18 documents")
    assert [(number, u.source) for number, u in unfinished(texts(), tmp_path)] == [
        (0, "part-0.txt"),
        (2, "part-2.txt"),
        (3, "part-3.txt"),
    ]
    assert [count for _, count in counts_begun(tmp_path)] == [3]


def during_a_document(source, act):
    """The source, with something done while its first document is read."""
    documents = source.documents

    def acting(*arguments):
        act()
        return documents(*arguments)

    source.documents = acting
    return source


def test_parts_run_at_once_and_nobody_finishes_under_them(tmp_path):
    build_cache(texts(), "train", tmp_path / "one", vocabulary=VOCABULARY)
    store = tmp_path / "parts"

    def others():
        build(texts(), store, "1/2")
        build(texts(), store, "0/3")  # has the very unit that is being built
        for whole in (
            lambda: unfinished(texts(), store),
            lambda: build_cache(texts(), "train", store, vocabulary=VOCABULARY),
        ):
            with pytest.raises(DataError, match=r"is building .*, or a part of it; wait for it"):
                whole()

    build(during_a_document(texts(), others), store, "0/2")
    build_cache(texts(), "train", store, vocabulary=VOCABULARY)
    assert contents(store) == contents(tmp_path / "one")


def test_what_kills_left_half_written_goes_when_nobody_else_builds(tmp_path):
    left = tmp_path / "shard-00001.text.tokens.tmp-0123456789ab"
    left.write_bytes(b"half")
    build(texts(), tmp_path, "1/2")
    assert left.exists()  # it could be of a part that runs
    source = during_a_document(texts(), lambda: there.append(left.exists()))
    there = []
    build_cache(source, "train", tmp_path, vocabulary=VOCABULARY)
    assert there == [False] * 3


def test_no_part_runs_under_a_builder_of_the_whole(tmp_path):
    def part():
        with pytest.raises(DataError, match="another process is building"):
            build(texts(), tmp_path, "0/2")

    build_cache(during_a_document(texts(), part), "train", tmp_path, vocabulary=VOCABULARY)


def test_a_complete_store_is_kept(tmp_path):
    build_cache(texts(), "train", tmp_path, vocabulary=VOCABULARY)
    before, lines = contents(tmp_path), []
    source = texts()
    source.documents = None  # not read again
    build(source, tmp_path, "0/2", progress=lines.append)
    assert any("is complete: nothing to do" in line for line in lines)
    assert contents(tmp_path) == before
    with pytest.raises(DataError, match="holds a tokenised store with another source"):
        build(texts(seed=1), tmp_path, "0/2")
    with pytest.raises(DataError, match="holds a tokenised store with another source"):
        unfinished(texts(seed=1), tmp_path)
    assert contents(tmp_path) == before


def test_a_changed_shard_is_made_by_its_part(tmp_path):
    build_cache(texts(), "train", tmp_path, vocabulary=VOCABULARY)
    source = texts()
    source.versions = {"part-2.txt": "edited"}
    build(source, tmp_path, "1/2")
    assert (tmp_path / META).exists()
    assert [number for number, _ in unfinished(source, tmp_path)] == [2]
    build(source, tmp_path, "0/2")
    assert not (tmp_path / META).exists()
    assert unfinished(source, tmp_path) == []


def test_parts_of_two_settings_do_not_mix(tmp_path):
    build(texts(), tmp_path, "0/2")
    for other in ({"source": texts(seed=1)}, {"vocabulary": ByteVocabulary()}):
        with pytest.raises(DataError, match=r"unfinished parts of another vocabulary, source or"):
            build_part(
                other.get("source", texts()), "train", tmp_path,
                vocabulary=other.get("vocabulary", VOCABULARY), part=Part(1, 2),
            )  # fmt: skip
    build(texts(), tmp_path, "1/2")  # they are not disturbed
    build_cache(texts(), "train", tmp_path, vocabulary=VOCABULARY)
    verify(tmp_path)
    assert counts_begun(tmp_path) == []


def test_of_two_settings_that_begin_at_once_none_writes(tmp_path, monkeypatch):
    """The other's claim appears between the look at the directory and our own claim."""
    listed = [{}, {".parts-0123456789ab-2": 0}]
    monkeypatch.setattr(parts, "file_sizes", lambda directory: listed.pop(0))
    with pytest.raises(DataError, match=r"another vocabulary, .* \(\.parts-0123456789ab-2\)"):
        build(texts(), tmp_path, "1/3")
    assert os.listdir(tmp_path) == [".lock"]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lines = []
    build(texts(), tmp_path, "0/1", progress=lines.append)
    assert "is on a file system without locks (Function not implemented)" in lines[0]
    assert unfinished(texts(), tmp_path) == []


def test_finishing_what_was_never_begun_makes_nothing(tmp_path):
    missing = unfinished(Memory({"a": ["x"], "b": ["y"]}), tmp_path / "no")
    assert [number for number, _ in missing] == [0, 1]
    assert os.listdir(tmp_path) == []
    assert counts_begun(tmp_path / "no") == []
