"""The tokenised store: what is written, what a reader refuses, and builds that are killed."""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from t5jax.data.records import BadRecord, BadRecordPolicy, DamagedFile, Row
from t5jax.data.store.build import build_cache
from t5jax.data.store.directories import cache_directory
from t5jax.data.store.reader import CHECKSUM, META, TokenStore, read_info
from t5jax.data.store.verify import check_files
from t5jax.data.vocabularies import (
    ByteVocabulary,
    SentencePieceVocabulary,
    train_sentencepiece,
)
from t5jax.errors import DataError


@dataclasses.dataclass
class Memory:
    """Documents from memory; `pause` slows a build down, `pids` tells who worked on it."""

    texts: dict[str, list]
    features: tuple[str, ...] = ("text",)
    pause: float = 0.0
    pids: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def identity(self):
        return {"texts": self.texts}

    def shards(self, split):
        return list(self.texts)

    def documents(self, split, shard, rejected):
        if self.pids:
            pathlib.Path(self.pids, str(os.getpid())).touch()
        for text in self.texts[shard]:
            time.sleep(self.pause)
            yield {"text": text}

    def shard_fingerprint(self, split, shard):
        return self.versions.get(shard, "")


def texts(num_shards=5, documents=9, seed=0):
    rng = random.Random(seed)
    words = [
        "the",
        "barge",
        "carries",
        "<pad>",
        "over",
        "<extra_id_0>",
        "naïve",
        "文字",
        "\n",
        "37",
    ]
    return Memory(
        {
            f"part-{number}.txt": [
                " ".join(rng.choices(words, k=rng.randrange(0, 40))) for _ in range(documents)
            ]
            for number in range(num_shards)
        }
    )


def contents(directory):
    return {
        path.name: path.read_bytes()
        for path in pathlib.Path(directory).iterdir()
        if path.name != ".lock"
    }


BYTES = ByteVocabulary()


def verify(directory):
    """Every byte is as it was written."""
    assert [file.damage for file in check_files(directory) if file.damage] == []


def whole(store, feature="text"):
    """All tokens of a feature, one after the other."""
    stream = store.streams[feature]
    return stream.read_rows(np.array([0]), stream.num_tokens)[0]


def test_stored_tokens_and_counts(tmp_path):
    source, lines = texts(), []
    info = build_cache(source, "train", tmp_path, vocabulary=BYTES, progress=lines.append)
    documents = [text for shard in source.texts.values() for text in shard]
    assert info.documents == 45
    assert info.features == ("text",)
    assert info.total("tokens") == info.total("utf8_bytes", "text")
    assert info.total("tokens") == sum(len(text.encode()) for text in documents)
    assert info.total("characters") == sum(map(len, documents))
    assert [shard.source for shard in info.shards] == list(source.texts)
    assert (info.dtype, info.rejected) == ("uint16", 0)
    assert len(lines) == 5
    assert lines[-1].startswith("cache: 5/5 shards, 45 documents")
    store = TokenStore.open(tmp_path, BYTES)
    verify(tmp_path)
    assert read_info(tmp_path) == info
    assert BYTES.decode(whole(store)) == "".join(documents)
    lengths = [len(text.encode()) for text in documents]
    assert store.streams["text"].offsets().tolist() == [0, *np.cumsum(lengths)]


@dataclasses.dataclass
class Pairs(Memory):
    """Examples of a task: strings, with sentinels, or ids that the task made itself."""

    features: tuple[str, ...] = ("inputs", "targets")

    def documents(self, split, shard, rejected):
        for inputs, targets in self.texts[shard]:
            yield {"inputs": inputs, "targets": targets}


def test_inputs_and_targets_are_stored_side_by_side(tmp_path):
    vocabulary = ByteVocabulary(extra_ids=100)
    pairs = {
        "a": [("question: <extra_id_0>?", "no"), ("", "naïve"), ("x" * 300, "")],
        "b": [],
        "c": [("fill <extra_id_0> and <extra_id_1>", "<extra_id_0> this <extra_id_1> that")],
    }
    info = build_cache(Pairs(pairs), "train", tmp_path, vocabulary=vocabulary)
    store = TokenStore.open(tmp_path, vocabulary)
    verify(tmp_path)
    assert (info.documents, [s.documents for s in info.shards]) == (4, [3, 0, 1])
    examples = [pair for shard in pairs.values() for pair in shard]
    for number, name in enumerate(("inputs", "targets")):
        ids = [vocabulary.encode(pair[number]) for pair in examples]
        np.testing.assert_array_equal(whole(store, name), np.concatenate(ids))
        offsets = store.streams[name].offsets()
        assert np.diff(offsets).tolist() == list(map(len, ids))
        assert info.total("tokens", name) == offsets[-1]
        assert info.total("characters", name) == sum(len(pair[number]) for pair in examples)
    assert vocabulary.sentinel_id(0) in whole(store, "inputs")
    place = store.place_of_example(3)
    assert (place.source, place.first_document, place.last_document) == ("c", 0, 0)
    assert store.place_of_example(2).source == "a"
    as_ids = {
        shard: [tuple(map(vocabulary.encode, pair)) for pair in content]
        for shard, content in pairs.items()
    }
    again = build_cache(Pairs(as_ids), "train", tmp_path / "ids", vocabulary=vocabulary)
    assert again.fingerprint == info.fingerprint
    assert again.total("characters") == 0


class Careless(ByteVocabulary):
    """Spells the last letter as an id that text must not have."""

    def encode(self, text, *, sentinels=True):
        if not text.endswith(("0", "1", "2")):
            return super().encode(text)
        return np.append(super().encode(text[:-1]), int(text[-1])).astype(np.int32)


@pytest.mark.parametrize("bad", [0, 1])
def test_ids_that_are_reserved_are_refused_in_text(tmp_path, bad):
    pairs = Pairs({"a": [("ab2", f"cd{bad}")]})
    with pytest.raises(DataError, match=rf"a: document 0 encodes to id {bad}, which is reserved"):
        build_cache(pairs, "train", tmp_path, vocabulary=Careless())


def test_a_task_that_tokenises_itself_may_put_eos_but_no_padding(tmp_path):
    ids = [(np.array([5, 6, 1]), np.array([7, 1, 8])), (np.array([9]), np.array([1]))]
    build_cache(Pairs({"a": ids}), "train", tmp_path / "eos", vocabulary=BYTES)
    store = TokenStore.open(tmp_path / "eos")
    assert whole(store, "inputs").tolist() == [5, 6, 1, 9]
    assert whole(store, "targets").tolist() == [7, 1, 8, 1]
    padded = Pairs({"a": [*ids, (np.array([5, 6]), np.array([7, 0]))]})
    with pytest.raises(DataError, match="a: document 2 encodes to id 0, which is reserved"):
        build_cache(padded, "train", tmp_path / "padding", vocabulary=BYTES)


def test_rows_cross_shards_and_the_end(tmp_path):
    source = Memory({"a": ["abcdefg"], "b": [], "c": ["hij", "", "kl"]})
    build_cache(source, "train", tmp_path, vocabulary=BYTES)
    store = TokenStore.open(tmp_path)
    stream = store.streams["text"]
    rows_BL = stream.read_rows(np.array([0, 5, 6, 9, 11]), 5)
    assert [BYTES.decode(row) for row in rows_BL] == ["abcde", "fghij", "ghijk", "jklab", "labcd"]
    pieces = stream.read_pieces(np.array([8, 0, 3, 7]), np.array([4, 2, 0, 1]))
    assert BYTES.decode(pieces) == "ijklabh"
    places = store.places("text", 9, 5)
    assert [(p.source, p.token_offset, p.num_tokens) for p in places] == [("c", 2, 3), ("a", 0, 2)]
    assert [(p.first_document, p.last_document) for p in places] == [(0, 2), (0, 0)]


def test_sentencepiece_store_is_self_contained(tmp_path):
    source = texts()
    lines = [text for shard in source.texts.values() for text in shard] * 3
    vocabulary = train_sentencepiece(lines, str(tmp_path / "v.model"), vocab_size=35)
    info = build_cache(source, "train", tmp_path / "store", vocabulary=vocabulary)
    os.remove(vocabulary.path)
    store = TokenStore.open(tmp_path / "store")
    kept = store.vocabulary()
    assert isinstance(kept, SentencePieceVocabulary)
    store.check_vocabulary(kept)
    verify(tmp_path / "store")
    tokens = whole(store)
    assert len(tokens) == info.total("tokens")
    assert kept.is_text(tokens).all()  # neither <pad> nor <extra_id_0> of the text became an id
    offsets = store.streams["text"].offsets().tolist()
    documents = [text for shard in source.texts.values() for text in shard]
    for text, (start, end) in zip(documents, itertools.pairwise(offsets), strict=True):
        assert tokens[start:end].tolist() == kept.encode(text, sentinels=False).tolist()


def test_large_vocabularies_take_32_bits(tmp_path):
    build_cache(texts(2), "train", tmp_path, vocabulary=ByteVocabulary(extra_ids=70_000))
    store = TokenStore.open(tmp_path)
    assert store.info.dtype == "uint32"
    assert store.streams["text"].read_rows(np.array([3]), 7).dtype == np.uint32
    verify(tmp_path)


def test_several_processes_write_the_same_bytes(tmp_path):
    for processes in (1, 3):
        build_cache(
            texts(), "train", tmp_path / str(processes), vocabulary=BYTES, num_processes=processes
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def slow_build(directory, pids):
    """Run in a process of its own, to be killed."""
    source = texts(num_shards=7)
    source.pause, source.pids = 0.02, pids
    build_cache(source, "train", directory, vocabulary=BYTES, num_processes=2)


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.slow
def test_killed_builds_go_on_to_the_same_bytes(tmp_path):
    build_cache(texts(num_shards=7), "train", tmp_path / "whole", vocabulary=BYTES)
    store, pids, script = tmp_path / "killed", tmp_path / "pids", tmp_path / "build.py"
    pids.mkdir()
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(pathlib.Path(__file__).parents[2]), *sys.path]!r}\n"
        "if __name__ == '__main__':\n"
        "    from tests.data.store.test_store_build import slow_build\n"
        f"    slow_build({str(store)!r}, {str(pids)!r})\n"
    )
    for wanted in (1, 3, 5):  # shards that are finished when the build is killed
        build = subprocess.Popen([sys.executable, str(script)])
        deadline = time.monotonic() + 60
        while len(list(store.glob("shard-*.json"))) < wanted:
            assert build.poll() is None, "the build ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        build.send_signal(signal.SIGKILL)
        build.wait()
        with pytest.raises(DataError, match="not finished; make it with: t5jax cache CONFIG"):
            TokenStore.open(store)
        while orphans := [p.name for p in pids.iterdir() if alive(p.name)]:
            assert time.monotonic() < deadline, f"workers {orphans} outlive their killed parent"
            time.sleep(0.01)
    lines = []
    build_cache(texts(num_shards=7), "train", store, vocabulary=BYTES, progress=lines.append)
    assert any("were finished before and are kept" in line for line in lines)
    assert contents(store) == contents(tmp_path / "whole")
    verify(store)


def test_incomplete_shards_are_built_again(tmp_path):
    build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
    whole = contents(tmp_path)
    for name in (META, "shard-00003.json"):
        (tmp_path / name).unlink()
    (tmp_path / "shard-00003.text.tokens").write_bytes(b"half")
    (tmp_path / "shard-00001.text.ends").write_bytes(b"")
    (tmp_path / "shard-00004.json").write_text("{")
    (tmp_path / "shard-00002.text.tokens.tmp").write_bytes(b"left over")
    (tmp_path / "shard-00009.text.tokens").write_bytes(b"of a larger build")
    build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
    assert contents(tmp_path) == whole


def test_finished_store_is_kept(tmp_path):
    source = texts()
    first = build_cache(source, "train", tmp_path, vocabulary=BYTES)
    source.documents = None  # not read again
    assert build_cache(source, "train", tmp_path, vocabulary=BYTES) == first


def test_changed_shard_is_built_again(tmp_path):
    source = texts()
    before = build_cache(source, "train", tmp_path, vocabulary=BYTES)
    (tmp_path / "shard-00000.text.tokens").touch()
    source.versions = {"part-2.txt": "edited"}
    after = build_cache(source, "train", tmp_path, vocabulary=BYTES)
    assert after.fingerprint == before.fingerprint  # the same text after all
    changed = [a.name for a, b in zip(after.shards, before.shards, strict=True) if a != b]
    assert changed == ["shard-00002"]


def test_another_store_is_not_overwritten(tmp_path):
    first = build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
    other = ByteVocabulary(extra_ids=5)
    with pytest.raises(DataError, match="holds a tokenised store with another vocabulary"):
        build_cache(texts(), "train", tmp_path, vocabulary=other)
    with pytest.raises(DataError, match="holds a tokenised store with another source"):
        build_cache(texts(seed=1), "train", tmp_path, vocabulary=BYTES)
    assert read_info(tmp_path) == first
    second = build_cache(texts(3), "train", tmp_path, vocabulary=other, overwrite=True)
    assert second.vocabulary["extra_ids"] == 5
    assert len(list(tmp_path.glob("shard-*"))) == 9
    TokenStore.open(tmp_path, other)
    verify(tmp_path)


def test_two_builders_at_once(tmp_path):
    source = texts()

    def documents(split, shard, rejected):
        with pytest.raises(DataError, match="another process is building"):
            build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
        return ({"text": text} for text in source.texts[shard])

    source.documents = documents
    build_cache(source, "train", tmp_path, vocabulary=BYTES)


def test_error_in_a_worker_is_raised(tmp_path):
    source = texts()
    source.texts["part-3.txt"] = [None]
    with pytest.raises(TypeError):
        build_cache(source, "train", tmp_path, vocabulary=BYTES, num_processes=2)
    with pytest.raises(DataError, match="not finished"):
        TokenStore.open(tmp_path)


class Ending(Memory):
    """Its third part ends the process that reads it."""

    def documents(self, split, shard, rejected):
        if shard == "part-2.txt":
            os._exit(3)
        return super().documents(split, shard, rejected)


def test_a_worker_that_ends_is_said_with_its_source(tmp_path):
    source = Ending(texts().texts)
    with pytest.raises(DataError, match=r"process ended .* at .*part-2\.txt.*; finished shards"):
        build_cache(source, "train", tmp_path, vocabulary=BYTES, num_processes=2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Memory({}), "has no shards"),
        (Memory({"a": [], "b": ["", ""]}), "2 documents and no tokens"),
    ],
)
def test_nothing_to_store(source, message, tmp_path):
    with pytest.raises(DataError, match=message):
        build_cache(source, "train", tmp_path, vocabulary=BYTES)
    assert not (tmp_path / META).exists()


def test_readers_refuse(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(DataError, match=r"no tokenised store in .*t5jax cache CONFIG"):
        TokenStore.open(store)
    build_cache(texts(), "train", store, vocabulary=BYTES)
    with pytest.raises(DataError, match="was made with vocabulary"):
        TokenStore.open(store, ByteVocabulary(extra_ids=1))
    tokens, meta = store / "shard-00001.text.tokens", store / META
    data, record = tokens.read_bytes(), json.loads(meta.read_text())
    del record[CHECKSUM]  # an older t5jax wrote none
    tokens.write_bytes(data[:-2])
    with pytest.raises(
        DataError, match=r"shard-00001.text.tokens has \d+ bytes, META.json says \d+"
    ):
        TokenStore.open(store)
    tokens.unlink()
    with pytest.raises(DataError, match=r"shard-00001.text.tokens is missing"):
        TokenStore.open(store)
    tokens.write_bytes(data)
    for change, message in (
        ({"format_version": 1}, "has format .*delete"),
        ({"format": "something"}, "has format"),
        ({"shards": []}, "is empty"),
    ):
        meta.write_text(json.dumps(record | change))
        with pytest.raises(DataError, match=message):
            TokenStore.open(store)
    meta.write_text(meta.read_text()[:50])
    with pytest.raises(DataError, match="is damaged"):
        TokenStore.open(store)


def test_fingerprint_is_of_the_content(tmp_path):
    one = build_cache(texts(), "train", tmp_path / "1", vocabulary=BYTES)
    other = build_cache(texts(), "validation", tmp_path / "2", vocabulary=BYTES)
    changed = texts()
    changed.texts["part-4.txt"][3] += "x"
    third = build_cache(changed, "train", tmp_path / "3", vocabulary=BYTES)
    assert one.fingerprint == other.fingerprint != third.fingerprint
    shard = one.shards[0]
    data = (tmp_path / "1" / "shard-00000.text.tokens").read_bytes()
    assert shard.features["text"].tokens_sha256 == hashlib.sha256(data).hexdigest()


# --- bad records ------------------------------------------------------------------------------


@dataclasses.dataclass
class Faulty(Memory):
    """`None` is a bad record, "cut" the place where a file breaks off."""

    policy: BadRecordPolicy = dataclasses.field(default_factory=BadRecordPolicy)

    def documents(self, split, shard, rejected):
        for row in self.policy.accept(self._records(shard), rejected):
            yield {"text": row["text"]}

    def _records(self, shard):
        for number, text in enumerate(self.texts[shard]):
            place = f"{shard}, line {number + 1}"
            if text == "cut":
                raise DamagedFile(f"{place}: truncated gzip")
            yield BadRecord(place, "not a string") if text is None else Row({"text": text}, place)


def faulty(max_fraction, policy="skip"):
    words = ["some", None, "words", "of", None, "text"]
    content = {"a": words, "b": ["all", "good"], "c": ["one", "two", "cut", "three"]}
    policy = BadRecordPolicy(policy=policy, max_fraction=max_fraction)
    return Faulty(content, policy=policy)


@pytest.mark.parametrize("processes", [1, 2])
def test_rejected_records_are_counted_and_reported(tmp_path, processes):
    lines = []
    info = build_cache(
        faulty(0.4),
        "train",
        tmp_path,
        vocabulary=BYTES,
        num_processes=processes,
        progress=lines.append,
    )
    places = ["a, line 2: not a string", "a, line 5: not a string"]
    expected = [
        {"records": 2, "damaged_files": 0, "places": places, "dropped": {}},
        {"records": 0, "damaged_files": 0, "places": [], "dropped": {}},
        {
            "records": 0,
            "damaged_files": 1,
            "places": ["c, line 3: truncated gzip"],
            "dropped": {},
        },
    ]
    assert [shard.rejected for shard in info.shards] == expected
    assert (info.rejected, info.documents) == (3, 8)
    assert [s["rejected"] for s in json.loads((tmp_path / META).read_text())["shards"]] == expected
    assert sorted(line for line in lines if "left out: " in line) == sorted(
        f"cache: left out: {place}" for place in [*places, "c, line 3: truncated gzip"]
    )
    assert any(line.startswith("cache: a: 2 records left out") for line in lines)
    assert any("c: 0 records left out, 1 file broken off" in line for line in lines)
    assert BYTES.decode(whole(TokenStore.open(tmp_path))) == "somewordsoftextallgoodonetwo"


def test_too_many_bad_records_of_a_shard_stop_the_build(tmp_path):
    """A third of shard a, though less than a fifth of all."""
    with pytest.raises(DataError, match=r"2 of 6 records are bad.*max_bad_fraction = 0.3.*a, line"):
        build_cache(faulty(0.3), "train", tmp_path, vocabulary=BYTES)
    assert not (tmp_path / META).exists()


def test_a_bad_record_is_refused_with_its_place(tmp_path):
    with pytest.raises(DataError, match="a, line 2: not a string"):
        build_cache(faulty(0.4, policy="error"), "train", tmp_path, vocabulary=BYTES)
    cut = faulty(0.4, policy="error")
    del cut.texts["a"]
    with pytest.raises(DataError, match="c, line 3: truncated gzip"):
        build_cache(cut, "train", tmp_path, vocabulary=BYTES)


def test_stale_files_are_removed(tmp_path):
    """Overwriting plain text with examples leaves nothing of the text."""
    pairs = Pairs({"part-0.txt": [("a question", "an answer")]})
    build_cache(texts(3), "train", tmp_path / "store", vocabulary=BYTES)
    build_cache(pairs, "train", tmp_path / "store", vocabulary=BYTES, overwrite=True)
    build_cache(pairs, "train", tmp_path / "fresh", vocabulary=BYTES)
    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")


# --- names and imports ------------------------------------------------------------------------


def test_cache_directory():
    found = cache_directory("runs/cache", "c4_v1.2:en", "train")
    assert found == pathlib.Path("runs/cache/c4_v1.2:en/train")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "../up", "a/b", "/etc", ".hidden", "a\n", "-x", "é", "x" * 129]
)
def test_names_cannot_escape_the_directory(name):
    with pytest.raises(DataError, match="task name"):
        cache_directory("cache", name, "train")
    with pytest.raises(DataError, match="split name"):
        cache_directory("cache", "task", name)


def test_no_jax_and_no_tensorflow():
    """A tokenising process starts in a fraction of a second, and a GPU host has no TensorFlow."""
    program = (
        "import sys, t5jax.data.store.build, t5jax.data.pipeline.opening\n"
        "print([m for m in ('jax', 'tensorflow', 'seqio', 'google.protobuf') if m in sys.modules])"
    )
    root = pathlib.Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.strip() == "[]"
