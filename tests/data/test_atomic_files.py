"""Files that are there whole or not at all, also when several processes write the same one."""

import json
import multiprocessing
import os

import pytest

from t5jax.data.atomic_files import new_file, write_file, write_json_file


@pytest.mark.parametrize("shared", [False, True])
def test_files_appear_atomically(tmp_path, shared):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with new_file(path, shared=shared) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path, shared):
    path = tmp_path / "a.bin"
    write_file(path, b"before")

    def fail():
        with new_file(path, shared=shared) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"before"
    assert len(os.listdir(tmp_path)) == (1 if shared else 2)
    write_file(path, b"the next try")
    assert os.listdir(tmp_path) == ["a.bin"]


def test_json_writes_unknown_types_as_text(tmp_path):
    write_json_file(tmp_path / "a.json", {"ä": [1, tmp_path]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"ä": [1, str(tmp_path)]}


def _write_often(path, content):
    for _ in range(100):
        write_file(path, content, shared=True)


@pytest.mark.slow
def test_concurrent_writers_of_a_file(tmp_path):
    path, contents = tmp_path / "a.bin", [bytes([n]) * 50_000 for n in range(3)]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(path, content)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not path.exists() or path.read_bytes() in contents
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["a.bin"]
