"""`t5jax tasks`: the list without TensorFlow, the user's own tasks, and decoded examples."""

import pathlib
import subprocess
import sys

from t5jax.cli import main
from t5jax.data.tasks.builtin import BUILTIN_TASKS

OWN = """
import seqio
from t5jax.data.objectives import SpanCorruption
from t5jax.data.tasks.seqio_adapters import TextVocabulary
from t5jax.data.tasks.span_corruption import SpanCorruptionPreprocessor
from t5jax.data.vocabularies import ByteVocabulary

vocabulary = TextVocabulary(ByteVocabulary(extra_ids=100))
seqio.TaskRegistry.add(
    "my_recipes",
    source=seqio.TextLineDataSource({"train": "{file}"}),
    preprocessors=[
        lambda lines: lines.map(lambda line: {"inputs": "", "targets": line}),
        seqio.preprocessors.tokenize,
        SpanCorruptionPreprocessor(SpanCorruption(mean_noise_span_length=5.0)),
        seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={n: seqio.Feature(vocabulary) for n in ("inputs", "targets")},
)
"""


def tasks(capsys, *words: str) -> str:
    assert main(["tasks", *words]) == 0
    return capsys.readouterr().out


def test_the_list_has_all_tasks_and_what_they_need(capsys):
    said = tasks(capsys)
    for name, task in BUILTIN_TASKS.items():
        about = said.split(f"{name}\n")[1].split("\n  settings")[0]
        assert task.description in about
        assert "train, validation" in about
        assert "SpanCorruption(noise_density=0.15, mean_noise_span_length=3.0)" in about
    assert "data.train_files, data.validation_files (optional), data.text_column (opt" in said
    assert "data.modules" in said


def test_the_list_needs_no_tensorflow():
    program = "import sys; from t5jax.cli import main; assert main(['tasks']) == 0\n"
    program += "heavy = {'tensorflow', 'seqio', 'tensorflow_datasets'} & sys.modules.keys()\n"
    program += "sys.exit(f'imported {heavy}' if heavy else 0)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "docstrings_span_corruption" in ended.stdout


def test_one_task(capsys):
    said = tasks(capsys, "c4_json_span_corruption")
    assert said.startswith("c4_json_span_corruption\n")
    assert "docstrings" not in said


def test_examples_come_from_the_configs_files(tiny_text, capsys):
    words = ["text_span_corruption", "--config", str(tiny_text / "tiny.py"), "--examples", "2"]
    said = tasks(capsys, *words)
    assert said.startswith("text_span_corruption\n")
    first, second = said.split("example ")[1:]
    text = (tiny_text / "train-0.txt").read_text(encoding="utf-8")
    for example in (first, second):
        inputs, targets = example.splitlines()[1:3]
        assert inputs.startswith("  inputs    61 tokens  ")
        assert targets.startswith("  targets   14 tokens  <extra_id_0>")
        piece = inputs.split("tokens  ")[1].split("<extra_id_0>")[0].replace("\\n", "\n")
        assert len(piece) > 3
        assert piece in text


def test_tasks_of_the_users_modules(tiny_text, tmp_path, capsys, monkeypatch):
    (tmp_path / "recipes.txt").write_text(
        "Beat the eggs with the sugar until they are pale.\n" * 50
    )
    (tmp_path / "my_tasks.py").write_text(OWN.replace("{file}", str(tmp_path / "recipes.txt")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["--config", str(tiny_text / "tiny.py"), "--data.mixture", "my_recipes"]
    own += ["--data.modules", "my_tasks", "--data.train-files", "--data.validation-files"]
    said = tasks(capsys, *own)
    assert "\nmy_recipes\n" in said
    assert "SpanCorruption(noise_density=0.15, mean_noise_span_length=5.0)" in said
    assert "\ntext_span_corruption\n" in said
    said = tasks(capsys, "my_recipes", "--examples", "1", *own)
    assert "example 0 of train" in said
    assert "the sugar" in said


def test_refusals(tiny_text, capsys):
    config = str(tiny_text / "tiny.py")
    for words, reason in (
        (["nothing"], "no task 'nothing'; there are c4_v220_span_corruption"),
        (["text_span_corruptio", "--config", config], "did you mean text_span_corruption"),
        (["--data.seed", "1"], "--data.seed changes a config: name one with --config"),
        (["docstrings_span_corruption", "--config", config], "data.train_files="),
        (["text_span_corruption", "--config", config, "--examples", "0"], "--examples 0"),
        (["--config", "no/such.py"], "there is no config file no/such.py"),
    ):
        assert main(["tasks", *words]) == 64, words
        assert reason in capsys.readouterr().err
    missing = ["text_span_corruption", "--config", config, "--split", "test"]
    assert main(["tasks", *missing]) == 65
    assert "test" in capsys.readouterr().err


def test_a_folder_without_the_files(tiny_text, tmp_path, capsys):
    words = ["tasks", "text_span_corruption", "--config", str(tiny_text / "tiny.py")]
    pattern = str(pathlib.Path(tmp_path) / "*.txt")
    assert main([*words, "--data.train-files", pattern]) == 65
    assert pattern in capsys.readouterr().err
