"""A tokenised store in a bucket: built, read and refused as on a disk, against fake-gcs-server."""

import itertools
import random
import time

import numpy as np
import pytest

from t5jax import buckets
from t5jax.data.pipeline.loader import Loader
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.store import local_copy, reader
from t5jax.data.store.build import build_cache
from t5jax.data.store.local_copy import LocalCopy
from t5jax.data.store.parts import Part, build_part, counts_begun, unfinished_units
from t5jax.data.store.reader import META, TokenStore, read_info
from t5jax.data.store.verify import check_files
from t5jax.data.vocabularies import ByteVocabulary, train_sentencepiece
from t5jax.errors import DataError
from tests.cloud_storage import cloud_storage as cloud_storage
from tests.data.pipeline import test_loader as loaders
from tests.data.store.test_store_build import Memory, Pairs, contents, texts

pytestmark = pytest.mark.slow  # blocks and ranges without a server: test_local_copy, test_ranges
BYTES = ByteVocabulary()


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
    """A copy for each test, of the least size and with blocks of 64 bytes."""
    copy = LocalCopy(tmp_path / "copies", 1, block_bytes=64)
    monkeypatch.setattr(reader, "local_copy", lambda: copy)
    return copy


def objects(url):
    store = buckets.file_system()
    return {name.rpartition("/")[2]: store.cat_file(name) for name in store.find(url)}


def pairs():
    return Pairs({"a": [("q <extra_id_0>", "<extra_id_0> 1")], "b": [], "c": [("x" * 9, "y")]})


def build(source, directory, **options):
    return build_cache(source, "train", directory, **{"vocabulary": BYTES, **options})


def test_a_store_in_a_bucket_has_the_bytes_of_one_on_a_disk(cloud_storage, tmp_path):
    lines = []
    for name, source in (("text", texts()), ("pairs", pairs())):
        built = build(source, f"{cloud_storage}/{name}/train", progress=lines.append)
        assert built == build(source, tmp_path / name)
        assert read_info(f"{cloud_storage}/{name}/train") == built
        assert objects(f"{cloud_storage}/{name}/train") == contents(tmp_path / name)
    assert "which has no locks" in lines[0]

    vocabulary = train_sentencepiece(["over the barge"] * 9, str(tmp_path / "v"), vocab_size=13)
    for directory in (f"{cloud_storage}/model/train", tmp_path / "model"):
        build(Memory({"a": ["over the barge"]}), directory, vocabulary=vocabulary)
    assert objects(f"{cloud_storage}/model/train") == contents(tmp_path / "model")
    assert [x.damage for x in check_files(f"{cloud_storage}/model/train", 3)] == [None] * 5


def test_a_build_goes_on_where_it_was_killed(cloud_storage, tmp_path, monkeypatch):
    url, source = f"{cloud_storage}/resumed/train", texts()
    build(source, tmp_path / "whole")
    put, sent = buckets.file_system().put_file, []

    def killed(path, target, **options):
        if len(sent) == 8:  # in the third shard, behind its tokens
            raise KeyboardInterrupt
        sent.append(target)
        put(path, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(buckets.file_system(), "put_file", killed)
        with pytest.raises(KeyboardInterrupt):
            build(source, url)
    assert len(objects(url)) == 8
    with pytest.raises(DataError, match=f"store in {url} is not finished"):
        TokenStore.open(url)
    lines = []
    build(source, url, progress=lines.append)
    assert "cache: 2/5 shards were finished before and are kept" in lines
    assert objects(url) == contents(tmp_path / "whole")

    source.versions = {"part-3.txt": "edited"}  # of a complete store one shard is made anew
    source.texts["part-3.txt"] = ["another", ""]
    with pytest.raises(DataError, match="overwrite it"):
        build(Memory({"part-3.txt": ["x"]}), url, vocabulary=ByteVocabulary(extra_ids=5))
    build(source, url, overwrite=True)
    build(source, tmp_path / "whole", overwrite=True)
    assert objects(url) == contents(tmp_path / "whole")


def test_parts_and_a_finish_are_the_store_of_one_host(cloud_storage, tmp_path):
    url, source = f"{cloud_storage}/parts/train", texts()
    build(source, tmp_path / "one")
    for part in ("2/3", "0/3", "0/3"):
        build_part(source, "train", url, vocabulary=BYTES, part=Part.parse(part))
    missing = unfinished_units(source, "train", url, vocabulary=BYTES)
    assert [number for number, _ in missing] == [1, 4]
    assert [count for _, count in counts_begun(url)] == [3]
    with pytest.raises(DataError, match="unfinished parts of another vocabulary"):
        build_part(source, "train", url, vocabulary=ByteVocabulary(extra_ids=5), part=Part(1, 3))
    build_part(source, "train", url, vocabulary=BYTES, part=Part(1, 3))
    assert unfinished_units(source, "train", url, vocabulary=BYTES) == []
    build(source, url)
    assert objects(url) == contents(tmp_path / "one")


def test_rows_are_those_of_a_disk(cloud_storage, tmp_path, copies):
    url, source = f"{cloud_storage}/rows/train", texts(num_shards=7, documents=30)
    build(source, url)
    build(source, tmp_path / "rows")
    ours, theirs = TokenStore.open(url, BYTES), TokenStore.open(tmp_path / "rows", BYTES)
    assert ours.fingerprint == theirs.fingerprint
    streams = ours.streams["text"], theirs.streams["text"]
    assert streams[1].num_tokens > 64 * 64, "the copy is too small for the store"
    rng = np.random.default_rng(0)
    for length in (1, 33, 701):
        starts = rng.integers(0, streams[1].num_tokens, 40)
        rows = [stream.read_rows(starts, length) for stream in streams]
        assert rows[0].dtype == rows[1].dtype
        np.testing.assert_array_equal(*rows)
        assert streams[0].pieces(int(starts[0]), length) == streams[1].pieces(
            int(starts[0]), length
        )
    np.testing.assert_array_equal(*(stream.offsets() for stream in streams))
    assert ours.traffic is copies.traffic
    assert theirs.traffic is None


def test_batches_are_those_of_a_disk_and_cost_no_request_in_the_end(
    cloud_storage, tmp_path, monkeypatch
):
    copy = LocalCopy(tmp_path / "whole", 1 << 20, block_bytes=1024)
    monkeypatch.setattr(reader, "local_copy", lambda: copy)
    found = []
    for place in (f"{cloud_storage}/batches", str(tmp_path / "batches")):
        stores = {}
        for name, source in (
            ("text", loaders.texts_of_shards(loaders.text_shards())),
            ("examples", loaders.examples_of_shards(loaders.example_shards())),
        ):
            build(source, f"{place}/{name}", vocabulary=loaders.VOCABULARY)
            stores[name] = TokenStore.open(f"{place}/{name}")
        found.append(
            loaders.loader_of([loaders.text_component(stores), loaders.example_component(stores)])
        )
    ours, theirs = found
    assert isinstance(ours, Loader)
    assert isinstance(ours.row_format, RowFormat)
    assert ours.state(3) == theirs.state(3)
    for step in itertools.chain(range(30), (10**7, 10**9 + 1)):
        batches = ours.rows(step), theirs.rows(step)
        assert batches[0].keys() == batches[1].keys()
        for name, array in batches[0].items():
            np.testing.assert_array_equal(array, batches[1][name])
    warm = copy.traffic.requests
    seconds = []
    for step in range(10**7, 10**8, 10**7 + 1):
        start = time.perf_counter()
        ours.rows(step)
        seconds.append(time.perf_counter() - start)
    assert copy.traffic.requests == warm
    assert ours.traffic is copy.traffic
    assert theirs.traffic is None
    assert sorted(seconds)[len(seconds) // 2] < 0.05


def test_damaged_objects_are_refused_as_files_are(cloud_storage, tmp_path):
    url, disk, rng = f"{cloud_storage}/damaged/train", tmp_path / "damaged", random.Random(0)
    for place in (url, disk):
        build(texts(num_shards=2), place)
    store, whole = buckets.file_system(), objects(url)

    def both(name, data):
        for place in (url, disk):
            if data is None:
                store.rm_file(f"{url}/{name}") if place == url else (disk / name).unlink()
            elif place == url:
                store.pipe_file(f"{url}/{name}", data)
            else:
                (disk / name).write_bytes(data)
        said = []
        for place in (url, disk):
            with pytest.raises(DataError) as caught:
                TokenStore.open(place)
            said.append(str(caught.value).replace(str(place), "PLACE"))
        assert said[0] == said[1]
        both_damages = [
            [str(x.damage).replace(str(place), "PLACE") for x in check_files(place) if x.damage]
            for place in (url, disk)
            if name != META
        ]
        assert not both_damages or both_damages[0] == both_damages[1] != []
        store.pipe_file(f"{url}/{name}", whole[name])
        (disk / name).write_bytes(whole[name])
        return said[0]

    for name in ("shard-00000.text.tokens", "shard-00001.text.ends"):
        assert "not copied whole" in both(name, whole[name][:-8])
        assert "is missing" in both(name, None)
    assert "is damaged" in both(META, whole[META][:-300])
    assert "is not finished" in both(META, None)

    flipped = bytearray(whole["shard-00000.text.tokens"])
    flipped[rng.randrange(len(flipped))] ^= 4
    store.pipe_file(f"{url}/shard-00000.text.tokens", bytes(flipped))
    (damage,) = [x.damage for x in check_files(url) if x.damage]
    assert damage.startswith(f"{url}/shard-00000.text.tokens is damaged: sha256")
    ends = bytes(len(whole["shard-00000.text.ends"]))
    store.pipe_file(f"{url}/shard-00000.text.ends", ends)
    with pytest.raises(DataError, match=r"shard-00000.text.ends is damaged: its sha256"):
        TokenStore.open(url).streams["text"].offsets()


def test_what_goes_wrong_while_it_is_read_is_never_short(cloud_storage, monkeypatch):
    url = f"{cloud_storage}/cut/train"
    build(texts(num_shards=1, documents=50), url)
    stream = TokenStore.open(url).streams["text"]
    stream.read_rows(np.array([5]), 11)
    store = buckets.file_system()
    monkeypatch.setattr("t5jax.data.store.ranges._PAUSES", (0.0,))
    store.pipe_file(f"{url}/shard-00000.text.tokens", b"x" * 200)
    last = np.array([stream.num_tokens - 20])
    with pytest.raises(DataError, match=r"shard-00000.text.tokens is not as .* it ends before"):
        stream.read_rows(last, 11)
    store.rm_file(f"{url}/shard-00000.text.tokens")
    with pytest.raises(DataError, match=r"shard-00000.text.tokens is missing"):
        stream.read_rows(last, 11)


def test_a_store_that_there_is_not(cloud_storage):
    for url in (f"{cloud_storage}/nothing/train", "gs://no-such-bucket/x/train"):
        with pytest.raises(DataError, match=f"no tokenised store in {url}; make it with"):
            TokenStore.open(url)
    with pytest.raises(buckets.BucketError, match="there is no bucket 'no-such-bucket'"):
        build(texts(), "gs://no-such-bucket/x/train")
    assert local_copy.BLOCK_BYTES % 4096 == 0
