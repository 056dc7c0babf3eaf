"""Commands that are given another thing than a run, or are started in another folder: the last line
says what it is and what to do."""

import json

import pytest

import t5jax
from t5jax.cli import main
from t5jax.errors import CheckpointError
from t5jax.runtime import ExitCode


@pytest.fixture
def hf(tmp_path):
    directory = tmp_path / "flan"
    directory.mkdir()
    settings = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "model.safetensors").write_bytes(b"")
    return str(directory)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{}", "a text"],
        ["evaluate", "{}"],
        ["score", "{}", "--input", "pairs.tsv", "--column", "inputs", "--target-column", "targets"],
        ["export", "{}", "out"],
        ["merge", "{}", "out"],
    ],
    ids=lambda words: words[0],
)
def test_a_hugging_face_directory_in_place_of_a_run(hf, words, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("inputs\ttargets\na\tb\n")
    code = main([word.format(hf) for word in words])
    error = capfd.readouterr().err
    assert code == ExitCode.NO_CHECKPOINT
    assert error.splitlines()[-1] == (
        f"error: {hf} is a Hugging Face directory (T5ForConditionalGeneration): convert it first, "
        f"t5jax convert {hf} RUN, then give RUN"
    )


@pytest.mark.parametrize("words", [["train"], ["cache"], ["inspect", "model"]], ids="".join)
def test_a_folder_in_place_of_a_config_file(hf, words, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.txt").write_text("")
    (tmp_path / "nothing").mkdir()
    for path, said in (
        (
            hf,
            f"error: {hf} is a folder: it is a Hugging Face directory (T5ForConditionalGeneration",
        ),
        ("nothing", "error: nothing is a folder: it is an empty folder, "),
        (
            "runs/mine",
            "error: runs/mine is a folder: the workdir of a run, which its config file resumes: "
            "give that file (with --workdir runs/mine, if it names another one)",
        ),
    ):
        assert main([*words, path]) == ExitCode.CONFIG
        assert capfd.readouterr().err.splitlines()[-1].startswith(said)


def test_load_says_the_same(hf):
    with pytest.raises(CheckpointError, match=r"is a Hugging Face directory .*t5jax convert"):
        t5jax.load(hf)


def test_a_config_file_from_another_folder(tmp_path, monkeypatch, capfd):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text("def config():\n    return None\n")
    monkeypatch.chdir(tmp_path / "configs")
    assert main(["train", "configs/mine.py"]) == ExitCode.CONFIG
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: there is no config file configs/mine.py")
    assert f"start t5jax in {tmp_path}, or give {tmp_path}/configs/mine.py" in line


def test_data_files_that_are_beside_the_config_file(tmp_path, monkeypatch, capfd):
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "data" / "a.jsonl").write_text('{"text": "some words"}\n')
    (tmp_path / "project" / "mine.py").write_text(
        "import t5jax\n"
        "def config():\n"
        "    data = t5jax.DataConfig(mixture='jsonl:span_corruption', cache_dir='cache',\n"
        "        train_files=('data/a.jsonl',), vocabulary=t5jax.ByteVocabulary())\n"
        "    return t5jax.RunConfig(workdir='runs/mine', model=t5jax.sizes.t5_small(), data=data,\n"
        "        train=t5jax.TrainConfig(num_train_steps=1))\n"
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["cache", "../project/mine.py"]) == ExitCode.DATA
    line = capfd.readouterr().err.splitlines()[-1]
    assert "data/a.jsonl: no such file" in line
    assert f"start t5jax in {tmp_path / 'project'}" in line
