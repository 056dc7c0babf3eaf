"""Which files a name or pattern means, and that every file is read once, in one split."""

import dataclasses
import os
import pathlib

import fsspec
import pytest

from t5jax.data.sources import ArrayRecord, JsonLines, Parquet, TextFiles, TfRecord
from t5jax.data.sources.patterns import (
    check_shards_of_splits,
    expand_patterns,
    normalised_url,
)
from t5jax.errors import ConfigError, DataError

LINE = '{"text": "one"}\n'


def write(path: pathlib.Path, content: str = LINE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def spellings(folder: pathlib.Path) -> dict[str, str]:
    """Other names of folder/real/a.jsonl."""
    target = folder / "real" / "a.jsonl"
    (folder / "soft.jsonl").symlink_to(target)
    (folder / "chain.jsonl").symlink_to(folder / "soft.jsonl")
    os.link(target, folder / "hard.jsonl")
    (folder / "linked").symlink_to(folder / "real", target_is_directory=True)
    return {
        "relative": "real/a.jsonl",
        "dot": "./real/a.jsonl",
        "dots": "real/../real/./a.jsonl",
        "slashes": f"{folder}//real///a.jsonl",
        "symbolic link": f"{folder}/soft.jsonl",
        "link to a link": f"{folder}/chain.jsonl",
        "hard link": f"{folder}/hard.jsonl",
        "folder that is a link": f"{folder}/linked/a.jsonl",
        "home": "~/real/a.jsonl",
        "file URL": f"file://{target}",
        "pattern": "rea[l]/*.jsonl",
    }


@pytest.mark.parametrize("kind", [JsonLines, TextFiles, Parquet, TfRecord, ArrayRecord])
def test_a_file_is_in_one_split_and_once_whatever_its_spelling(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path, other = write(tmp_path / "real" / "a.jsonl"), write(tmp_path / "b.jsonl")
    in_both = "are the same file: a file belongs to one split|is named in both"
    for name, spelling in spellings(tmp_path).items():
        for splits in (("train", "validation"), ("validation", "test"), ("test", "train")):
            first, second = (f"{split}_files" for split in splits)
            source = kind(**{first: (other, path), second: (spelling,)})
            for split in splits:
                with pytest.raises(DataError, match=in_both) as raised:
                    source.shards(split)
                assert path in str(raised.value), name
        with pytest.raises(DataError, match=r"rows would be read twice|is named twice"):
            kind(train_files=(path, other, spelling)).shards("train")
    named = JsonLines(train_files=(path,), test_files=("./real/a.jsonl",))
    with pytest.raises(
        DataError, match=rf"{path} of train_files and \./real/a\.jsonl of test_files"
    ):
        named.shards("train")


@dataclasses.dataclass
class OwnSource:
    """A user's source, whose shards are named as it likes."""

    names: dict[str, list[str]]

    def splits(self):
        return tuple(self.names)

    def shards(self, split):
        return self.names[split]

    def records(self, split, shard):
        yield from ()


def test_shards_of_other_sources_that_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.jsonl")
    for names, message in (
        ({"train": [path, "./a.jsonl"]}, r"a\.jsonl and \./a\.jsonl are the same file"),
        ({"train": [path], "dev": ["a.jsonl"]}, r"a\.jsonl of train and a\.jsonl of dev are the"),
    ):
        with pytest.raises(DataError, match=message):
            check_shards_of_splits(OwnSource(names), "train")
    # Halves of one file, and names that are no files.
    for names in ({"train": [path], "dev": [path]}, {"train": ["0", "./0"], "dev": ["0"]}):
        assert check_shards_of_splits(OwnSource(names), "train") == names["train"]


def test_what_is_no_file_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        ("parts", r"parts is a folder; name its files: parts/\*"),
        ("pipe", "pipe is no regular file"),
        (" ", "a file's name is empty"),
        ("none", "none: no such file"),
    ]:
        with pytest.raises(DataError, match=message):
            JsonLines(train_files=(name,)).shards("train")
    with pytest.raises(ConfigError, match=r"dir:///x: dir:// cannot be opened \(AttributeError"):
        JsonLines(train_files=("dir:///x",)).shards("train")


def test_copies_and_neighbours_are_other_files(tmp_path):
    paths = [write(tmp_path / name) for name in ("a.jsonl", "A.jsonl", "a.jsonl.bak", "x/a.jsonl")]
    source = JsonLines(train_files=tuple(paths[:2]), validation_files=tuple(paths[2:]))
    assert source.shards("train") == paths[:2]
    assert source.shards("validation") == paths[2:]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("gs://bucket/a.jsonl", "GS://Bucket/a.jsonl", True),
        ("gs://bucket/a.jsonl", "gcs://bucket//a.jsonl", True),
        ("s3://bucket/x/a", "s3a://bucket/x//a", True),
        ("https://Example.org:443/x/a%20b.gz", "HTTPS://example.org/x/a b.gz", True),
        ("https://example.org/x/../a", "https://example.org/a#part", True),
        ("http://example.org:80/a", "http://example.org/a", True),
        ("memory://x/a", "memory:///x//a", True),
        ("http://example.org:8080/a", "http://example.org/a", False),
        ("https://example.org/a?part=1", "https://example.org/a?part=2", False),
        ("gs://bucket/a.jsonl", "gs://bucket/A.jsonl", False),
        ("gs://bucket/a%20b", "gs://bucket/a b", False),  # names of objects are not encoded
        ("gs://bucket/a", "s3://bucket/a", False),
        ("memory://x/a", "memory://X/a", False),
    ],
)
def test_urls_are_equal_after_normalisation(one, other, same):
    assert (normalised_url(one) == normalised_url(other)) == same


def test_a_remote_file_is_in_one_split():
    store = fsspec.filesystem("memory")
    try:
        store.pipe("/bucket/a.jsonl", LINE.encode())
        source = JsonLines(
            train_files=("memory://bucket/*.jsonl",), validation_files=("memory:///bucket/a.jsonl",)
        )
        with pytest.raises(DataError, match=r"memory://bucket/a\.jsonl|memory:///bucket"):
            source.shards("validation")
    finally:
        store.rm("/bucket", recursive=True)


NAMES = [
    "data[1].jsonl", "a b.jsonl", "a%20b.jsonl", "日本語 ü.jsonl", "who?.jsonl", "a*b.jsonl",
    "x[!a]/part[0-9].jsonl", "#1.jsonl", "-.jsonl", "~x.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_there_is_that_file(tmp_path, name):
    path = write(tmp_path / name)
    source = JsonLines(train_files=(path,))
    assert source.shards("train") == [path]
    assert [row["text"] for row in source.records("train", path)] == ["one"]


def test_brackets_of_a_folder_stand_for_themselves_before_a_pattern(tmp_path):
    paths = [write(tmp_path / "run[1]" / f"part-{i}.jsonl") for i in range(3)]
    assert expand_patterns([f"{tmp_path}/run[1]/part-[12].jsonl"]) == paths[1:]
    assert expand_patterns([f"{tmp_path}/*/part-0.jsonl"]) == paths[:1]


def test_a_name_that_is_also_a_pattern_of_others_is_refused(tmp_path):
    itself, other = write(tmp_path / "a[1].jsonl"), write(tmp_path / "a1.jsonl")
    with pytest.raises(DataError, match=r"a\[1\]\.jsonl and, as a pattern, names .*a1\.jsonl"):
        expand_patterns([f"{tmp_path}/a[1].jsonl"])
    assert expand_patterns([f"{tmp_path}/a[[]1].jsonl"]) == [itself]
    assert expand_patterns([f"{tmp_path}/a[1-1].jsonl"]) == [other]
    # Where the pattern names it as well, nothing is left out.
    starred = write(tmp_path / "b*.jsonl"), write(tmp_path / "b2.jsonl")
    assert expand_patterns([f"{tmp_path}/b*.jsonl"]) == sorted(starred)


def test_brackets_in_names_of_remote_files():
    store = fsspec.filesystem("memory")
    try:
        store.pipe("/bucket/a[1].jsonl", LINE.encode())
        store.pipe("/bucket/b2.jsonl", LINE.encode())
        (found,) = expand_patterns(["memory://bucket/a[1].jsonl"])
        assert found.endswith("/bucket/a[1].jsonl")
        assert len(expand_patterns(["memory://bucket/b[12].jsonl"])) == 1
    finally:
        store.rm("/bucket", recursive=True)


def test_urls_of_local_files(tmp_path):
    (tmp_path / "a b.jsonl").write_text("{}")
    (tmp_path / "c%20d.jsonl").write_text("{}")
    name = f"file://{tmp_path}/a b.jsonl"  # as the stores of before have it
    for url in (name, name.replace(" ", "%20"), f"file://localhost{tmp_path}/a*.jsonl"):
        assert expand_patterns([url]) == [name]
    assert expand_patterns([f"file://{tmp_path}/c%20d.jsonl"]) == [f"file://{tmp_path}/c%20d.jsonl"]
    with pytest.raises(ConfigError, match="only files of this machine"):
        expand_patterns(["file://host/a.jsonl"])
    with pytest.raises(ConfigError, match="foo"):
        expand_patterns(["foo://host/a.jsonl"])


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is a link to gone\.jsonl, which is not there"):
        expand_patterns([str(tmp_path / "a.jsonl")])
