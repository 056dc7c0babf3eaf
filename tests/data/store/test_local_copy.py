"""Blocks of a bucket's objects in a bounded file: the bytes are those of the objects, whatever was
given up meanwhile."""

import errno
import itertools
import os
import random
import threading

import numpy as np
import pytest

from t5jax.data.store import local_copy
from t5jax.data.store.local_copy import LocalCopy
from t5jax.errors import ConfigError

SIZES = {"gs://b/one": 7 * 97 + 3, "gs://b/empty": 0, "gs://b/two": 7 * 41}


@pytest.fixture
def objects():
    rng = np.random.default_rng(0)
    return {url: rng.integers(0, 256, size, np.uint8).tobytes() for url, size in SIZES.items()}


@pytest.fixture
def asked(objects, monkeypatch):
    """The ranges that were asked for, in the order of calls."""
    calls = []

    def read(ranges, traffic):
        calls.append(list(ranges))
        traffic.requests += len(ranges)
        assert all(0 <= x.begin < x.end <= SIZES[x.url] for x in ranges)
        return [objects[x.url][x.begin : x.end] for x in ranges]

    monkeypatch.setattr(local_copy, "read_ranges", read)
    return calls


def filled(folder, max_bytes):
    copy = LocalCopy(folder, max_bytes, block_bytes=7)
    numbers = {url: copy.add(url, size, "sha") for url, size in SIZES.items()}
    assert numbers == {url: copy.add(url, size, "sha") for url, size in SIZES.items()}
    return copy, numbers


def spans(rng, count):
    found = []
    for _ in range(count):
        url = rng.choice(["gs://b/one", "gs://b/two"])
        begin = rng.randrange(SIZES[url])
        found.append((url, begin, min(SIZES[url], begin + rng.randrange(1, 40))))
    return found


def test_a_store_that_fits_is_read_once(tmp_path, objects, asked):
    copy, numbers = filled(tmp_path, 10_000)
    rng = random.Random(1)
    for _ in range(30):
        wanted = spans(rng, 8)
        copy.fetch((numbers[url], begin, end) for url, begin, end in wanted)
        before = len(asked)
        for url, begin, end in wanted:
            assert copy.read(numbers[url], begin, end) == objects[url][begin:end]
        assert len(asked) == before, "what was fetched is there"
    assert copy.read(numbers["gs://b/empty"], 0, 0) == b""
    for url, size in SIZES.items():
        assert copy.read(numbers[url], 0, size) == objects[url]
    read = sorted((x.url, x.begin, x.end) for call in asked for x in call)
    assert sum(end - begin for _, begin, end in read) == sum(SIZES.values())
    for (url, _, end), (next_url, begin, _) in itertools.pairwise(read):
        assert url != next_url or end == begin, "no byte was read twice, none was left out"
    assert os.listdir(tmp_path) == [], "nothing is left of it after a kill"


def test_blocks_that_follow_one_another_are_one_request(tmp_path, asked):
    copy, numbers = filled(tmp_path, 10_000)
    copy.fetch([(numbers["gs://b/one"], 8, 30), (numbers["gs://b/one"], 350, 351)])
    assert asked == [[("gs://b/one", 7, 35), ("gs://b/one", 350, 357)]]
    copy.fetch([(numbers["gs://b/one"], 0, SIZES["gs://b/one"])])
    longest = max(x.end - x.begin for x in asked[-1])
    assert longest == 7 * local_copy._BLOCKS_OF_A_REQUEST


def test_a_store_that_does_not_fit_is_right_all_the_same(tmp_path, objects, asked):
    copy, numbers = filled(tmp_path, 1)  # the least there is: 64 of the 139 blocks
    rng = random.Random(2)
    for _ in range(40):
        wanted = spans(rng, 50)
        copy.fetch((numbers[url], begin, end) for url, begin, end in wanted)
        for url, begin, end in wanted:
            assert copy.read(numbers[url], begin, end) == objects[url][begin:end]
    assert os.fstat(copy._file.fileno()).st_size <= 64 * 7
    assert copy.traffic.requests > 139


def test_a_disk_without_room_keeps_what_it_has(tmp_path, objects, asked, monkeypatch, caplog):
    write = local_copy.write_whole
    room = [90]

    def limited(file, data):
        if file.tell() >= 7 * room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, data)

    monkeypatch.setattr(local_copy, "write_whole", limited)
    copy, numbers = filled(tmp_path, 10_000)
    for url, size in [*SIZES.items()] * 2:
        assert copy.read(numbers[url], 0, size) == objects[url]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"{tmp_path} is full"
    ]
    room[0] = 3  # too little for anything
    copy, numbers = filled(tmp_path, 10_000)
    with pytest.raises(OSError, match="No space left") as caught:
        copy.read(numbers["gs://b/one"], 0, 70)
    assert caught.value.filename == str(tmp_path)


def test_several_threads_read_at_once(tmp_path, objects, asked):
    copy, numbers = filled(tmp_path, 1)
    wrong = []

    def work(seed):
        for url, begin, end in spans(random.Random(seed), 150):
            if copy.read(numbers[url], begin, end) != objects[url][begin:end]:
                wrong.append((url, begin, end))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_copy_of_a_process_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv(local_copy.FOLDER, str(tmp_path / "new"))
    monkeypatch.setenv(local_copy.GIGABYTES, "0.5")
    local_copy.local_copy.cache_clear()
    try:
        copy = local_copy.local_copy()
        assert (copy.folder, copy.max_bytes) == (str(tmp_path / "new"), 500_000_000)
        assert local_copy.local_copy() is copy
        for text in ("much", "0", "-1", "nan"):
            local_copy.local_copy.cache_clear()
            monkeypatch.setenv(local_copy.GIGABYTES, text)
            with pytest.raises(ConfigError, match=f"T5JAX_STORE_COPY_GB={text}: give a number"):
                local_copy.local_copy()
    finally:
        local_copy.local_copy.cache_clear()
