"""The token store: what is written, what a reader refuses, and builds that are killed."""

import dataclasses
import hashlib
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

from t5jax.data.cache import TokenCache, build_cache, cache_directory
from t5jax.data.objectives import SpanCorruption
from t5jax.data.token_store import META, read_info
from t5jax.data.vocabularies import (
    ByteVocabulary,
    SentencePieceVocabulary,
    train_sentencepiece,
)
from t5jax.errors import DataError


@dataclasses.dataclass
class Texts:
    """Documents from memory; `pause` slows a build down, `pids` tells who worked on it."""

    texts: dict[str, list[str]]
    pause: float = dataclasses.field(default=0.0, repr=False)
    pids: str = dataclasses.field(default="", repr=False)
    versions: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def shards(self, split):
        return list(self.texts)

    def documents(self, split, shard):
        if self.pids:
            pathlib.Path(self.pids, str(os.getpid())).touch()
        for text in self.texts[shard]:
            time.sleep(self.pause)
            yield text

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
    return Texts(
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


def test_what_is_stored(tmp_path):
    source, lines = texts(), []
    info = build_cache(
        source,
        "train",
        tmp_path,
        vocabulary=BYTES,
        objective=SpanCorruption(),
        progress=lines.append,
    )
    documents = [text for shard in source.texts.values() for text in shard]
    assert info.documents == 45
    assert info.tokens == info.utf8_bytes == sum(len(text.encode()) for text in documents)
    assert info.characters == sum(map(len, documents))
    assert [shard.source for shard in info.shards] == list(source.texts)
    assert (info.dtype, info.objective) == ("uint16", SpanCorruption().to_dict())
    assert len(lines) == 5
    assert lines[-1].startswith("cache: 5/5 shards, 45 documents")
    cache = TokenCache.open(tmp_path, BYTES)
    cache.verify()
    assert read_info(tmp_path) == info
    everything = cache.read_rows(np.array([0]), cache.num_tokens)[0]
    assert BYTES.decode(everything) == "".join(documents)
    for number, shard in enumerate(source.texts.values()):
        ends = np.cumsum([len(text.encode()) for text in shard])
        assert cache.document_ends(number).tolist() == ends.tolist()


def test_rows_cross_shards_and_the_end(tmp_path):
    source = Texts({"a": ["abcdefg"], "b": [], "c": ["hij", "", "kl"]})
    build_cache(source, "train", tmp_path, vocabulary=BYTES)
    cache = TokenCache.open(tmp_path)
    rows_BL = cache.read_rows(np.array([0, 5, 6, 9, 11]), 5)
    assert [BYTES.decode(row) for row in rows_BL] == ["abcde", "fghij", "ghijk", "jklab", "labcd"]
    places = cache.places(9, 5)
    assert [(p.source, p.token_offset, p.num_tokens) for p in places] == [("c", 2, 3), ("a", 0, 2)]
    assert [(p.first_document, p.last_document) for p in places] == [(0, 2), (0, 0)]


def test_sentencepiece_store_is_self_contained(tmp_path):
    source = texts()
    lines = [text for shard in source.texts.values() for text in shard] * 3
    vocabulary = train_sentencepiece(lines, str(tmp_path / "v.model"), vocab_size=35)
    info = build_cache(source, "train", tmp_path / "store", vocabulary=vocabulary)
    os.remove(vocabulary.path)
    cache = TokenCache.open(tmp_path / "store")
    kept = cache.vocabulary()
    assert isinstance(kept, SentencePieceVocabulary)
    cache.check_vocabulary(kept)
    cache.verify()
    tokens = cache.read_rows(np.array([0]), info.tokens)[0]
    assert kept.is_text(tokens).all()  # neither <pad> nor <extra_id_0> of the text became an id
    start = 0
    for text, end in zip(source.texts["part-0.txt"], cache.document_ends(0).tolist(), strict=True):
        assert tokens[start:end].tolist() == kept.encode(text, sentinels=False).tolist()
        start = end


def test_large_vocabularies_take_32_bits(tmp_path):
    build_cache(texts(2), "train", tmp_path, vocabulary=ByteVocabulary(extra_ids=70_000))
    cache = TokenCache.open(tmp_path)
    assert cache.info.dtype == "uint32"
    assert cache.read_rows(np.array([3]), 7).dtype == np.uint32
    cache.verify()


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


def test_killed_builds_go_on_to_the_same_bytes(tmp_path):
    build_cache(texts(num_shards=7), "train", tmp_path / "whole", vocabulary=BYTES)
    store, pids, script = tmp_path / "killed", tmp_path / "pids", tmp_path / "build.py"
    pids.mkdir()
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(pathlib.Path(__file__).parent), *sys.path]!r}\n"
        "if __name__ == '__main__':\n"
        "    from test_cache import slow_build\n"
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
            TokenCache.open(store)
        while orphans := [p.name for p in pids.iterdir() if alive(p.name)]:
            assert time.monotonic() < deadline, f"workers {orphans} outlive their killed parent"
            time.sleep(0.01)
    lines = []
    build_cache(texts(num_shards=7), "train", store, vocabulary=BYTES, progress=lines.append)
    assert any("were finished before and are kept" in line for line in lines)
    assert contents(store) == contents(tmp_path / "whole")


def test_half_a_shard_is_not_taken_for_one(tmp_path):
    build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
    whole = contents(tmp_path)
    for name in (META, "shard-00003.json"):
        (tmp_path / name).unlink()
    (tmp_path / "shard-00003.tokens").write_bytes(b"half")
    (tmp_path / "shard-00001.ends").write_bytes(b"")
    (tmp_path / "shard-00004.json").write_text("{")
    (tmp_path / "shard-00002.tokens.tmp").write_bytes(b"left over")
    (tmp_path / "shard-00009.tokens").write_bytes(b"of a larger build")
    build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
    assert contents(tmp_path) == whole


def test_finished_store_is_kept_as_it_is(tmp_path):
    source = texts()
    first = build_cache(source, "train", tmp_path, vocabulary=BYTES)
    source.documents = None  # not read again
    assert build_cache(source, "train", tmp_path, vocabulary=BYTES) == first


def test_changed_shard_is_made_again(tmp_path):
    source = texts()
    before = build_cache(source, "train", tmp_path, vocabulary=BYTES)
    (tmp_path / "shard-00000.tokens").touch()
    source.versions = {"part-2.txt": "edited"}
    after = build_cache(source, "train", tmp_path, vocabulary=BYTES)
    assert after.fingerprint == before.fingerprint  # the same text after all
    changed = [a.name for a, b in zip(after.shards, before.shards, strict=True) if a != b]
    assert changed == ["shard-00002"]


def test_another_store_is_not_overwritten(tmp_path):
    first = build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
    other = ByteVocabulary(extra_ids=5)
    with pytest.raises(DataError, match="holds a token store with another vocabulary"):
        build_cache(texts(), "train", tmp_path, vocabulary=other)
    with pytest.raises(DataError, match="holds a token store with another source"):
        build_cache(texts(seed=1), "train", tmp_path, vocabulary=BYTES)
    assert read_info(tmp_path) == first
    second = build_cache(texts(3), "train", tmp_path, vocabulary=other, overwrite=True)
    assert second.vocabulary["extra_ids"] == 5
    assert len(list(tmp_path.glob("shard-*"))) == 9
    TokenCache.open(tmp_path, other).verify()


def test_two_builders_at_once(tmp_path):
    source = texts()

    def documents(split, shard):
        with pytest.raises(DataError, match="another process is building"):
            build_cache(texts(), "train", tmp_path, vocabulary=BYTES)
        return iter(source.texts[shard])

    source.documents = documents
    build_cache(source, "train", tmp_path, vocabulary=BYTES)


def test_error_in_a_worker_is_raised(tmp_path):
    source = texts()
    source.texts["part-3.txt"] = [None]
    with pytest.raises(TypeError):
        build_cache(source, "train", tmp_path, vocabulary=BYTES, num_processes=2)
    with pytest.raises(DataError, match="not finished"):
        TokenCache.open(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [(Texts({}), "has no shards"), (Texts({"a": [], "b": ["", ""]}), "2 documents and no tokens")],
)
def test_nothing_to_store(source, message, tmp_path):
    with pytest.raises(DataError, match=message):
        build_cache(source, "train", tmp_path, vocabulary=BYTES)
    assert not (tmp_path / META).exists()


def test_every_flipped_byte_is_found(tmp_path):
    build_cache(texts(2), "train", tmp_path, vocabulary=BYTES)
    rng = random.Random(0)
    files = sorted([*tmp_path.glob("*.tokens"), *tmp_path.glob("*.ends")])
    for _ in range(40):
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        original = path.read_bytes()
        path.write_bytes(data)
        cache = TokenCache.open(tmp_path)  # sizes alone say nothing
        with pytest.raises(DataError, match=rf"{path.name} is damaged"):
            cache.verify()
        path.write_bytes(original)
    TokenCache.open(tmp_path).verify()


def test_readers_refuse(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(DataError, match=r"no token store in .*t5jax cache CONFIG"):
        TokenCache.open(store)
    build_cache(texts(), "train", store, vocabulary=BYTES)
    with pytest.raises(DataError, match="was made with vocabulary"):
        TokenCache.open(store, ByteVocabulary(extra_ids=1))
    tokens, meta = store / "shard-00001.tokens", store / META
    data, record = tokens.read_bytes(), json.loads(meta.read_text())
    tokens.write_bytes(data[:-2])
    with pytest.raises(DataError, match=r"shard-00001.tokens has \d+ bytes, META.json says \d+"):
        TokenCache.open(store)
    tokens.unlink()
    with pytest.raises(DataError, match=r"shard-00001.tokens has None bytes"):
        TokenCache.open(store)
    tokens.write_bytes(data)
    for change, message in (
        ({"format_version": 2}, "has format .*delete"),
        ({"format": "something"}, "has format"),
        ({"tokens": 0}, "is empty"),
    ):
        meta.write_text(json.dumps(record | change))
        with pytest.raises(DataError, match=message):
            TokenCache.open(store)
    meta.write_text(meta.read_text()[:50])
    with pytest.raises(DataError, match="is damaged"):
        TokenCache.open(store)


def test_fingerprint_is_of_the_content(tmp_path):
    one = build_cache(texts(), "train", tmp_path / "1", vocabulary=BYTES)
    other = build_cache(texts(), "validation", tmp_path / "2", vocabulary=BYTES)
    changed = texts()
    changed.texts["part-4.txt"][3] += "x"
    third = build_cache(changed, "train", tmp_path / "3", vocabulary=BYTES)
    assert one.fingerprint == other.fingerprint != third.fingerprint
    shard = one.shards[0]
    data = (tmp_path / "1" / "shard-00000.tokens").read_bytes()
    assert shard.tokens_sha256 == hashlib.sha256(data).hexdigest()


def test_cache_directory():
    found = cache_directory("runs/cache", "c4_v1.2:en", "train")
    assert found == pathlib.Path("runs/cache/c4_v1.2:en/train")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "../up", "a/b", "/etc", ".hidden", "a\n", "-x", "é", "x" * 129]
)
def test_names_that_could_leave_the_directory(name):
    with pytest.raises(DataError, match="task name"):
        cache_directory("cache", name, "train")
    with pytest.raises(DataError, match="split name"):
        cache_directory("cache", "task", name)


def test_no_jax_and_no_tensorflow():
    """A tokenising process starts in a fraction of a second, and a GPU host has no TensorFlow."""
    program = (
        "import sys, t5jax.data.cache, t5jax.data.loader\n"
        "print([m for m in ('jax', 'tensorflow', 'seqio', 'google.protobuf') if m in sys.modules])"
    )
    root = pathlib.Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.strip() == "[]"
