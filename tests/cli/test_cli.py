"""The command line: help at once, words and settings told apart, and exit codes."""

import subprocess
import sys

import pytest

from t5jax import __version__
from t5jax.cli import main, split_flags

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "score",
    "replay",
    "export",
    "merge",
    "inspect",
    "plan",
    "selftest",
    "cache",
    "vocab",
    "tasks",
)
OF_A_CONFIG = (
    ["train"],
    ["cache"],
    ["inspect", "model"],
    ["inspect", "data"],
    ["vocab", "train"],
)
OWN_OPTIONS = {
    "evaluate": ["--split", "--step", "--num-rows", "--baselines", "--json"],
    "predict": ["--input", "--output", "--shard", "--ensemble", "--stop", "--interactive"],
    "score": ["--input", "--target-column", "--tokens", "--output"],
    "replay": ["--step", "--norms"],
    "export": ["--format", "--inputs-length", "--platforms"],
    "inspect data": ["--split", "--step", "--rows"],
    "inspect sharding": ["--topology", "--slices"],
    "plan": [
        *("--topology", "--slices", "--step", "--price-per-chip-hour", "--json"),
        *("--search", "--search-minutes", "--search-compiles", "--write"),
    ],
    "selftest": ["--data", "--kills", "--json"],
    "cache": [
        *("--split", "--num-processes", "--engine", "--part", "--finish", "--overwrite"),
        "--verify",
    ],
    "vocab train": ["--num-pieces", "--max-characters"],
    "tasks": ["--config", "--split", "--examples"],
}
HEAVY = "{'jax', 'jaxlib', 'numpy', 'tyro', 'tensorflow', 'seqio', 'flax', 'orbax', 'optax'}"


def ends(capsys, *words: str) -> tuple[int, str, str]:
    """(exit code, what it printed, what it complained) of a command line that argparse ends."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return (end.value.code, *capsys.readouterr())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_what_needs_no_config_imports_nothing_heavy(words):
    # Seconds depend on the machine; that nothing is imported is why help comes at once.
    program = f"""
import sys
from t5jax.cli import main
try:
    main({words})
except SystemExit as end:
    heavy = {HEAVY} & sys.modules.keys()
    assert not heavy, heavy
    raise
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "usage: t5jax" in ended.stdout + ended.stderr or __version__ in ended.stdout


def test_help_lists_every_command(capsys):
    code, said, _ = ends(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert f"\n    {command} " in said
    assert "t5jax train configs/quickstart.py --help" in said


@pytest.mark.parametrize("command", OWN_OPTIONS)
def test_a_command_shows_its_own_options(command, capsys):
    code, said, _ = ends(capsys, *command.split(), "--help")
    assert code == 0
    for option in OWN_OPTIONS[command]:
        assert f"\n  {option}" in said, option
    assert "--section.field VALUE" in said


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_command_on_a_run_asks_for_its_folder(command, capsys):
    _, said, _ = ends(capsys, command, "--help")
    assert "\n  WORKDIR " in said
    assert "config.txt in WORKDIR lists them" in said
    assert "CONFIG" not in said


@pytest.mark.parametrize("words", OF_A_CONFIG, ids=" ".join)
def test_help_after_a_config_shows_its_settings_too(words, capsys, tmp_path):
    config = tmp_path / "empty.py"
    config.write_text(CONFIG)
    assert main([*words, str(config), "--train.batch-size", "24", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"usage: t5jax {' '.join(words)} " in said
    for option in OWN_OPTIONS.get(" ".join(words), []):
        assert option in said
    assert f"usage: t5jax {' '.join(words)} {config} [-h] [OPTIONS]" in said
    assert "rows of the global batch, over all hosts and devices (default: 24)" in said


CONFIG = """
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config


def config():
    data = DataConfig(mixture="docstrings_span_corruption", cache_dir="nowhere",
                      vocabulary=ByteVocabulary(extra_ids=100))
    return RunConfig(workdir="nowhere", model=T5Config(), data=data,
                     train=TrainConfig(num_train_steps=3, batch_size=12))
"""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("train", "the following arguments are required: CONFIG"),
        ("train --train.batch-size 3 configs/x.py", "arguments are required: CONFIG"),
        ("train a.py b.py", "unrecognized arguments: b.py"),
        ("train a.py --batch-size 3", "values of the config are set with --section.field VALUE"),
        ("cache a.py --spilt train", "unrecognized arguments: --spilt train"),
        ("cache a.py --num-processes two", "argument --num-processes: invalid int value: 'two'"),
        ("evaluate runs/x --step", "argument --step: expected one argument"),
        ("predict runs/x --max-lenth 3 text", "unrecognized arguments: --max-lenth"),
    ],
)
def test_a_wrong_command_line_ends_with_64_and_a_reason(capsys, words, reason):
    code, said, complained = ends(capsys, *words.split())
    assert (code, said) == (64, "")
    assert reason in complained
    assert complained.startswith("usage: t5jax")
    assert len(complained.splitlines()) < 12


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("trian x", "t5jax: 'trian' is not a command; did you mean train?"),
        ("Train", "t5jax: 'Train' is not a command; did you mean train?"),
        ("inspect modle x", "t5jax inspect: 'modle' is not a command; did you mean model?"),
        ("finetune x", "t5jax: 'finetune' is not a command; `t5jax --help` lists them"),
        ("vocab x", "t5jax vocab: 'x' is not a command; `t5jax vocab --help` lists them"),
    ],
)
def test_a_misspelt_command_is_answered_with_the_nearest(capsys, words, answer):
    assert main(words.split()) == 64
    assert capsys.readouterr() == ("", f"{answer}\n")


@pytest.mark.parametrize("words", [[], ["inspect"], ["--mesh.data", "2"]], ids=str)
def test_without_a_command_help_is_printed(words, capsys):
    _, help_text, _ = ends(capsys, *[word for word in words if word == "inspect"], "--help")
    assert main(words) == 64
    assert capsys.readouterr() == (help_text, "")


def test_words_and_settings_are_told_apart():
    for line, words, flags in (
        ("train c.py --mesh.data -1 --json", "train c.py --json", "--mesh.data -1"),
        ("train c.py --a.b 1 2 --c.d=3 x", "train c.py x", "--a.b 1 2 --c.d=3"),
        ("train c.py --workdir runs/x", "train c.py", "--workdir runs/x"),
        ("train c.py --workdir=runs/x y", "train c.py y", "--workdir=runs/x"),
        ("cache --split train c.py", "cache --split train c.py", ""),
        ("train c.py --optimizer.schedule.warmup_steps 3", "train c.py",
         "--optimizer.schedule.warmup_steps 3"),
        ("train c.py --data.modules --data.seed 1 -h", "train c.py -h",
         "--data.modules --data.seed 1"),
        ("predict r --mesh.data -1 -- --a.b", "predict r -- --a.b", "--mesh.data -1"),
    ):  # fmt: skip
        assert split_flags(line.split()) == (words.split(), flags.split())
    assert split_flags(["predict", "r", "--a.b or not"]) == (["predict", "r", "--a.b or not"], [])


def test_a_missing_config_is_a_config_error(capsys):
    for words in (*OF_A_CONFIG, ["tasks", "--config"]):
        assert main([*words, "no_such_config.py"]) == 64
        assert "error: there is no config file no_such_config.py" in capsys.readouterr().err


def test_texts_of_predict_may_stand_anywhere(monkeypatch):
    from t5jax.commands import predict

    seen = []
    record = lambda *args, **kwargs: seen.append((args, kwargs))
    monkeypatch.setattr(predict, "predict_command", record)
    for words in (
        ["predict", "runs/x", "one <extra_id_0>", "two", "--batch-size", "7"],
        ["predict", "runs/x", "--batch-size", "7", "one <extra_id_0>", "two"],
        ["predict", "--batch-size", "7", "runs/x", "one <extra_id_0>", "two", "--mesh.data", "-1"],
    ):
        assert main(words) == 0
    for (options, texts, _, _, flags), _ in seen:
        assert (options.workdir, options.batch_size) == ("runs/x", 7)
        assert texts == ["one <extra_id_0>", "two"]
        assert flags in ([], ["--mesh.data", "-1"])
    assert len(seen) == 3


def test_python_m_is_the_same_program():
    ended = subprocess.run(
        [sys.executable, "-m", "t5jax", "--version"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, f"t5jax {__version__}\n")


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m t5jax tasks | head -1; echo ended ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] in ("ended 141", "ended 0")  # 0: all fitted the pipe
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr
