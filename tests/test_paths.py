"""Paths as users write them: `~` and `file://` everywhere, URLs where they can be served, and files
in the way of folders."""

import argparse
import errno
import os
import pathlib
import subprocess
import sys

import pytest

from t5jax.cli import main
from t5jax.cli.command_line import COMMANDS
from t5jax.config import WarmStart
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
)
from t5jax.errors import ConfigError
from t5jax.paths import (
    check_written_run,
    expand,
    local_path,
    refuse_file_in_the_way,
    run_folder,
    scheme_of,
    seen_from,
    written_path,
)
from t5jax.run.restore import checkpoint_directory


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "home")


def test_only_a_tilde_that_begins_a_path_is_home(home):
    assert expand("~") == home
    assert expand("~/x/~y") == f"{home}/x/~y"
    for other in ("./~/x", "a~", "/~/x", "gs://~/x", "-", "", None):
        assert expand(other) == other


def test_file_urls(tmp_path):
    assert expand("file:///tmp/x y") == "/tmp/x y"
    assert expand("file:///tmp/x%20y") == "/tmp/x y"
    assert expand("FILE://localhost/tmp/x/") == "/tmp/x/"
    assert expand("file:/tmp/x") == "/tmp/x"
    (tmp_path / "a%20b").write_text("")
    assert expand(f"file://{tmp_path}/a%20b") == f"{tmp_path}/a%20b"
    for url in ("file://host/x", "file://x", "file://~/x"):
        with pytest.raises(ConfigError, match="only files of this machine"):
            expand(url)
    with pytest.raises(ConfigError, match=r"^init.path = 'file://host/x': of the host 'host'"):
        WarmStart(path="file://host/x")


@pytest.mark.parametrize(
    ("path", "scheme"),
    [
        ("gs://b/x", "gs"), ("S3://b/x", "s3"), ("gs:/b", "gs"), ("foo+bar://x", "foo+bar"),
        ("C:\\x", ""), ("C:/x", ""), ("a:b", ""), ("./gs://b", ""), ("runs/s3://x", ""), ("", ""),
        ("3d://x", ""), (None, ""),
    ],
)  # fmt: skip
def test_what_is_a_url(path, scheme):
    assert scheme_of(path) == scheme


def test_where_a_run_can_lie(home):
    assert run_folder("~/x", "workdir") == f"{home}/x"
    for path in ("./a/../b", "runs/x/", "C:\\x", "./foo://x", "gs://bucket/x", None):
        assert run_folder(path, "workdir") == path
    for path, said in (
        ("", "workdir = '': name the workdir of a run"),
        (
            "s3://b/x",
            r"workdir = 's3://b/x': Orbax.* does not take s3:// .* its data can",
        ),
        ("s3a://b/x", "does not take s3a://"),
        ("foo://x", "workdir = 'foo://x': foo:// is not known; .* very name, ./foo://x"),
        ("gs:/b/x", "the URL of a bucket is gs://BUCKET/"),
        ("gcs://b/x", "the URL of a bucket is gs://BUCKET/"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_folder(path, "workdir")
    with pytest.raises(ConfigError, match=r"workdir = 'gs://b/x': .*BUCKET has 3 letters or more"):
        check_written_run("gs://b/x")


def test_where_arrays_would_be_lost(tmp_path, monkeypatch):
    for path in ("x y", "a%20b", "a:b", "é", "./a/../b", "~x", "a*b", "a[b", "run (1)"):
        check_written_run(path)
    for path in ("C:\\x", "a[1]b/run", "a/[x]"):
        with pytest.raises(ConfigError, match=r"arrays that are saved .* are lost"):
            check_written_run(path)
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")
    with pytest.raises(ConfigError, match=r"workdir = 'run': .* named 'a\[1\]' are lost"):
        check_written_run("run")


def test_what_only_a_disk_can_serve(home):
    assert local_path("~/x") == f"{home}/x"
    assert local_path("file:///x") == "/x"
    with pytest.raises(ConfigError, match=r"^'https://h/x': https:// is no disk"):
        local_path("https://h/x")


def test_what_is_written_on_a_disk_or_in_a_bucket(home):
    assert written_path("~/x") == f"{home}/x"
    for path in ("gs://bucket/x", "gs://bucket/x/y.jsonl", "./s3://x", "a[1]"):
        assert written_path(path) == path
    for path, said in (
        ("s3://b/x", "'s3://b/x': s3:// is not written to; give a folder or file of a disk, or gs"),
        ("foo://x", "'foo://x': foo:// is not known; give a"),
        ("gs://bucket", "'gs://bucket': what is written in a bucket is gs://BUCKET/FOLDER, where"),
    ):
        with pytest.raises(ConfigError, match=said):
            written_path(path)
    for url, refused in (("gs://bucket/cache", False), ("s3://bucket/cache", True)):
        data = DataConfig(mixture="c4", vocabulary=ByteVocabulary(), cache_dir=url)
        if refused:
            with pytest.raises(ConfigError, match=rf"data.cache_dir = '{url}': s3:// is not"):
                data.check()
        else:
            data.check()


def test_files_in_the_way_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("folder/inner")
    pathlib.Path("file").write_text("")
    os.symlink("nowhere", "dangling")
    os.symlink("folder", "linked")
    for path in ("folder", "folder/", "folder/new/x", "linked/new", "./folder/../new", "new/", "/"):
        refuse_file_in_the_way(path)
    refuse_file_in_the_way("gs://bucket/file")
    for path in ("file", "file/", "file/x/y", "folder/../file/x", tmp_path / "file"):
        with pytest.raises(NotADirectoryError) as caught:
            refuse_file_in_the_way(path)
        assert caught.value.errno == errno.ENOTDIR
        assert os.path.samefile(caught.value.filename, "file")
    with pytest.raises(NotADirectoryError, match="a link to nowhere, which is not there"):
        refuse_file_in_the_way("dangling/x")


def test_relative_paths_say_what_they_are_relative_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert seen_from("a/b") == f"; seen from {tmp_path}"
    for path in ("/a", "~/a", "gs://a", "file:///a", ""):
        assert seen_from(path) == ""
    assert main(["train", "no/config.py"]) == 64
    assert capsys.readouterr().err.endswith(f"no config file no/config.py; seen from {tmp_path}\n")


def test_paths_of_a_config(home):
    data = DataConfig(mixture="c4", vocabulary=ByteVocabulary(), cache_dir="~/cache")
    assert data.cache_dir == f"{home}/cache"
    assert WarmStart(path="~/run").path == f"{home}/run"
    assert SentencePieceVocabulary(path="~/v.model").path == f"{home}/v.model"
    assert HuggingFaceVocabulary(path="~/t.json").path == f"{home}/t.json"


def test_the_workdir_of_a_saved_run(home):
    os.makedirs(f"{home}/run/checkpoints")
    assert str(checkpoint_directory("~/run")) == f"{home}/run/checkpoints"


CONFIG = """
import t5jax
def config():
    return t5jax.RunConfig(workdir="s3://bucket/run", model=None, data=None, train=None)
"""


def test_a_workdir_on_s3_is_refused_before_anything_is_imported(tmp_path):
    (tmp_path / "mine.py").write_text(CONFIG)
    (tmp_path / "local.py").write_text(CONFIG.replace("s3://bucket/run", "run"))
    script = (
        "import sys\nfrom t5jax.cli import main\n"
        "codes = [int(main(words.split())) for words in sys.argv[1:]]\n"
        "heavy = {'jax', 'orbax', 'tensorflow', 'fsspec', 'etils', 'tyro'} & sys.modules.keys()\n"
        "sys.exit(f'{codes} {heavy}')"
    )
    commands = ["train mine.py", "train local.py --workdir=s3://b/x", "cache mine.py"]
    commands += ["train local.py --init.path s3://b/x", "train mine.py --workdir gs://b/x"]
    commands += [
        "cache local.py --data.cache-dir s3://b/x",
        "train local.py --data.cache_dir=foo://x",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", script, *commands],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    *errors, codes = ended.stderr.splitlines()
    assert codes == "[64, 64, 64, 64, 64, 64, 64] set()"
    assert [line.split(":")[1] for line in errors] == [
        " workdir = 's3",
        " workdir = 's3",
        " workdir = 's3",
        " init.path = 's3",
        " workdir = 'gs",
        " data.cache_dir = 's3",
        " data.cache_dir = 'foo",
    ]


@pytest.mark.parametrize(
    "words",
    [
        "evaluate s3://b/x", "predict foo://x text", "score file://host/x", "export x gs://b/out",
        "merge x s3://b/out", "convert https://h/x out", "convert x gs://b/out", "train gs://b/c.py",
        "predict x text --output gs://b/x", "evaluate x --submission s3://b/x",
        "tasks --config s3://b/x", "vocab extend t5 -o gs://b/x",
    ],
)  # fmt: skip
def test_urls_in_place_of_local_arguments(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 64
    assert "error: argument " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("convert x file/run", 73, "{}/file: Not a directory; a folder is needed there"),
        ("export x file/out", 73, "{}/file: Not a directory"),
        ("merge x file/out", 73, "{}/file: Not a directory"),
        ("evaluate x --output file", 73, "{}/file: Not a directory"),
        ("evaluate x --submission file/x", 73, "{}/file: Not a directory"),
        ("predict x text --output file/x", 73, "{}/file: Not a directory"),
        ("predict x text --output folder", 73, "folder: Is a directory; a file is to be written"),
        ("predict x text --output new/", 64, "--output 'new/': names no file"),
        ("tasks --html none/x.html", 64, "--html none/x.html: there is no folder none; seen from"),
        ("plan x --topology cpu:2 --json none/x", 64, "--json none/x: there is no folder none"),
        ("plan x --topology cpu:2 --search --write file/x.py", 73, "{}/file: Not a directory"),
        ("vocab extend t5 -o dangling/x", 73, "{}/dangling: a link to nowhere, which is not there"),
    ],
)
def test_what_is_in_the_way_of_outputs(tmp_path, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert main(words.split()) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {said.format(tmp_path)}")


# Options and arguments of commands that are no paths.
_TEXTS = {"text", "name", "column", "target-column", "prefix", "decoder-prefix", "format", "to"}
_TEXTS |= {"only", "reference", "dtype", "filter", "split", "tasks", "stop", "header", "shard"}
_TEXTS |= {"ensemble", "keep-best", "max-shard-size", "pieces", "platforms", "input", "ignore-key"}
_TEXTS |= {"topology", "step", "part", "engine", "profile-steps"}


def spelled(action: argparse.Action) -> str:
    """The option as it is written, the argument's name where it is none."""
    return action.option_strings[-1].lstrip("-") if action.option_strings else action.dest


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_paths_of_the_command_line(command):
    """Every option that takes a text is a path that knows `~`, or known to be none."""
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    (sub,) = parser._subparsers._group_actions[0].choices.values()
    taking = [spelled(x) for x in sub._actions if x.nargs != 0 and x.type is None]
    assert set(taking) <= _TEXTS
