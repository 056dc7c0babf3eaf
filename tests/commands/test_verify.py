"""`t5jax cache CONFIG --verify`: what was read, what is damaged, and the exit code."""

import shutil

import pytest

from t5jax.cli import main
from t5jax.data.store.reader import META, read_info


@pytest.fixture
def copied(tiny, tmp_path):
    """The tiny run's cache, to be damaged."""
    return shutil.copytree(tiny / "cache", tmp_path / "cache")


def verify(tiny, cache, *words):
    words = ["--verify", *words, "--data.cache-dir", str(cache)]
    return main(["cache", str(tiny / "tiny.py"), *words])


def test_whole_stores_are_listed(tiny, copied, capsys):
    assert verify(tiny, copied, "--num-processes", "3") == 0
    said, complained = capsys.readouterr()
    assert complained == ""
    lines = said.splitlines()
    for line, split in zip(lines, ("train", "validation"), strict=True):
        directory = copied / "text" / split
        info = read_info(directory)
        sizes = [path.stat().st_size for path in directory.iterdir() if path.name != ".lock"]
        assert line.startswith(
            f"{directory}: {info.documents:,} documents, {info.total('tokens'):,} tokens, "
            f"{sum(sizes):,} bytes in {len(sizes)} files"
        )
        assert line.endswith("all as written")
    assert verify(tiny, copied, "--split", "validation") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert str(copied / "text" / "validation") in line


@pytest.mark.parametrize("fault", ["flipped", "cut", "missing"])
def test_a_damaged_file_is_named_and_the_exit_code_is_1(tiny, copied, capsys, fault):
    path = copied / "text" / "train" / "shard-00001.text.tokens"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if fault == "flipped":
        path.write_bytes(data)
    elif fault == "cut":
        path.write_bytes(data[:-100])
    else:
        path.unlink()
    assert verify(tiny, copied) == 1
    said, complained = capsys.readouterr()
    assert complained.startswith(f"error: {path} ")
    assert len(complained.splitlines()) == 1
    train, validation = said.splitlines()
    assert train.endswith("1 files DAMAGED")
    assert validation.endswith("all as written"), "the others are read nevertheless"


def test_a_store_that_is_not_there_is_no_whole_one(tiny, copied, capsys):
    (copied / "text" / "validation" / META).unlink()
    assert verify(tiny, copied) == 1
    assert "validation is not finished; make it with: t5jax cache" in capsys.readouterr().err
    shutil.rmtree(copied / "text" / "train")
    assert verify(tiny, copied) == 1
    assert f"no tokenised store in {copied / 'text' / 'train'}" in capsys.readouterr().err


@pytest.mark.slow
def test_what_verify_says_to_delete_is_made_again(tiny, copied, capsys):
    train = copied / "text" / "train"
    path, whole = train / "shard-00001.text.ends", read_info(train)
    path.write_bytes(bytes(path.stat().st_size))
    assert verify(tiny, copied) == 1
    assert f"delete shard-00001.* and {META} there" in capsys.readouterr().err
    for file in (*train.glob("shard-00001.*"), train / META):
        file.unlink()
    assert main(["cache", str(tiny / "tiny.py"), "--data.cache-dir", str(copied)]) == 0
    assert verify(tiny, copied) == 0
    assert read_info(train) == whole


@pytest.mark.parametrize("words", [["--overwrite"], ["--finish"], ["--new-vocabulary", "300"]])
def test_verify_makes_nothing(tiny, copied, capsys, words):
    assert verify(tiny, copied, *words) == 64
    assert "leave --overwrite, --finish and --new-vocabulary out" in capsys.readouterr().err
