"""Splits of a seqio source that read the same records are refused."""

import os
import re
import types

import pytest

from t5jax.data.seqio_bridge.shared_files import refuse_shared_records
from t5jax.data.tensorflow_import import import_seqio
from t5jax.errors import DataError


@pytest.fixture(scope="module")
def seqio():
    return import_seqio()


def task(source):
    return types.SimpleNamespace(name="mine", source=source)


def test_a_file_in_two_splits(tmp_path, seqio):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text\n")
    os.symlink(tmp_path, tmp_path / "again")
    path = str(tmp_path / "a.txt")
    for other in (path, str(tmp_path / "again" / "*.txt"), str(tmp_path / "x" / ".." / "a.txt")):
        os.makedirs(tmp_path / "x", exist_ok=True)
        source = seqio.TextLineDataSource({"train": path, "validation": other})
        with pytest.raises(DataError, match=re.escape(path)):
            refuse_shared_records(task(source), "train")
        with pytest.raises(DataError, match="validation"):
            refuse_shared_records(task(source), "validation")
    source = seqio.TextLineDataSource({"train": path, "validation": str(tmp_path / "b.txt")})
    refuse_shared_records(task(source), "train")


# Two files of 60 and 40 records.
SLICES = {
    "train": [("f0", 0, -1), ("f1", 0, -1)],
    "train[:10%]": [("f0", 0, 10)],
    "train[:90%]": [("f0", 0, -1), ("f1", 0, 30)],
    "train[90%:]": [("f1", 30, -1)],
    "test": [("g0", 0, -1)],
}


@pytest.mark.parametrize(
    ("train", "validation", "shared"),
    [
        ("train", "train", True),
        ("train", "train[:10%]", True),
        ("train", "train[90%:]", True),
        ("train[:90%]", "train[:10%]", True),
        ("train[:90%]", "train[90%:]", False),
        ("train[90%:]", "train[:10%]", False),
        ("train", "test", False),
    ],
)
def test_slices_of_tfds(train, validation, shared, monkeypatch, seqio):
    splits = {"train": train, "validation": validation}
    source = seqio.TfdsDataSource("any:1.0.0", splits=splits)
    parts = lambda loader, split: [
        types.SimpleNamespace(filename=name, skip=skip, take=take)
        for name, skip, take in SLICES[splits[split]]
    ]
    monkeypatch.setattr(type(source.tfds_dataset), "files", parts)
    if not shared:
        return refuse_shared_records(task(source), "train")
    with pytest.raises(DataError, match=re.escape(f"are {train!r} and {validation!r} of TFDS")):
        refuse_shared_records(task(source), "train")
