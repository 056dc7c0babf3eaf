"""Reading a store byte by byte: whatever became of a file is found, and the file is named."""

import random

import pytest

from t5jax.data.store.build import build_cache
from t5jax.data.store.reader import META, TokenStore
from t5jax.data.store.verify import check_files
from t5jax.data.vocabularies import train_sentencepiece
from t5jax.errors import DataError
from tests.data.store.test_store_build import Memory


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three shards, one of them empty, and the copy of a SentencePiece vocabulary."""
    folder = tmp_path_factory.mktemp("verified")
    lines = ["the barge carries the 文字 over the naïve barge", "over it", "", "carries"]
    vocabulary = train_sentencepiece(lines * 9, str(folder / "v.model"), vocab_size=23)
    texts = Memory({"a": lines, "b": [], "c": lines[::-1]})
    build_cache(texts, "train", folder / "store", vocabulary=vocabulary)
    return folder / "store"


def problems(directory, num_threads=1):
    """What is wrong, as `t5jax cache CONFIG --verify` says it."""
    try:
        return [file.damage for file in check_files(directory, num_threads) if file.damage]
    except DataError as error:
        return [str(error)]


def files_of(directory):
    return sorted(path for path in directory.iterdir() if path.name != ".lock")


def test_an_undamaged_store_passes(store):
    assert problems(store) == problems(store, num_threads=3) == []
    checked = list(check_files(store, num_threads=3))
    assert sorted(file.path for file in checked) == files_of(store)
    assert {file.path: file.num_bytes for file in checked} == {
        path: path.stat().st_size for path in files_of(store)
    }


def test_every_flipped_bit_is_detected(store):
    """Sizes alone say nothing. A damaged META.json is noticed by every reader."""
    rng = random.Random(0)
    for path in files_of(store):
        original = path.read_bytes()
        for _ in range(20 if original else 0):
            data, place = bytearray(original), rng.randrange(len(original))
            data[place] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            (problem,) = problems(store)
            assert str(path) in problem
            assert "t5jax cache CONFIG" in problem
            if path.name == META:
                with pytest.raises(DataError, match=META):
                    TokenStore.open(store)
            elif path.suffix in (".tokens", ".ends"):
                TokenStore.open(store)
        path.write_bytes(original)
    assert problems(store) == []


@pytest.mark.parametrize("fault", ["cut", "longer", "missing"])
def test_a_file_of_another_size_is_detected(store, fault):
    for path in files_of(store):
        original = path.read_bytes()
        if fault == "missing":
            path.unlink()
        elif fault == "longer":
            path.write_bytes(original + b"\1")
        elif original:
            path.write_bytes(original[: len(original) // 2])
        else:
            continue
        (problem,) = problems(store, num_threads=2)
        # Without META.json there is no telling whose files these are.
        assert str(path.parent if path.name == META and fault == "missing" else path) in problem
        path.write_bytes(original)
    assert problems(store) == []


def test_every_damaged_file_is_named(store):
    bad = [path for path in files_of(store) if path.suffix == ".tokens" and path.stat().st_size]
    originals = [path.read_bytes() for path in bad]
    for path, original in zip(bad, originals, strict=True):
        path.write_bytes(b"\7" * len(original))
    assert [problem.split()[0] for problem in problems(store)] == [str(path) for path in bad]
    for path, original in zip(bad, originals, strict=True):
        path.write_bytes(original)
