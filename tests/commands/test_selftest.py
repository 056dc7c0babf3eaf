"""`t5jax selftest` as a command: its table, its settings, its exit codes."""

import json

import pytest

from t5jax import selftest
from t5jax.cli import main
from t5jax.commands import selftest as command
from t5jax.selftest import Check, failed
from tests.small_run import CONFIG


@pytest.fixture
def quick(monkeypatch):
    """Without what computes; the rest is real."""
    for name in ("check_known_step", "check_collectives"):
        found = Check(name=name.removeprefix("check_"), value="not here")
        several = name.endswith("s")
        answer = lambda *_, found=found, several=several: [found] if several else found
        monkeypatch.setattr(selftest, name, answer)
    monkeypatch.setattr("t5jax.selftest.files._BYTES", 70_001)


def names(said: str) -> list[str]:
    return [line[10:31].strip() for line in said.splitlines()[:-1]]


def test_bare_it_checks_what_needs_no_folder(quick, capsys, tmp_path):
    file = tmp_path / "table.json"
    assert main(["selftest", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    expected = ["devices", "software", "clocks", "collectives", "workdir", "data", "known_step"]
    assert names(said) == expected
    assert said.splitlines()[-1].startswith("none of 7 checks failed; ")
    found = json.loads(file.read_text())
    assert (found["exit_code"], [x["name"] for x in found["checks"]]) == (0, expected)
    assert [x["outcome"] for x in found["checks"][4:6]] == ["left out", "left out"]


def test_a_config_gives_mesh_workdir_and_data(quick, capsys, tmp_path):
    (tmp_path / "train-1.txt").write_text("some text")
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG.format(folder=tmp_path))
    for words in (["selftest", str(config)], ["selftest", "--data", str(config)]):
        assert main([*words, "--mesh.fsdp", "4", "--workdir", f"{tmp_path}/elsewhere"]) == 0
        said = capsys.readouterr().out
        assert "mesh data=2 x fsdp=4 x tensor=1" in said
        assert f"ok        workdir              {tmp_path}/elsewhere: " in said
        assert f"ok        data files           {tmp_path}/train-*.txt: 1 files, " in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("--train.batch-size 3", 64, "--train.batch-size has no effect on a self-test"),
        ("--mesh.fsdp 5", 64, "fsdp=5"),
        ("--data {}/none-*.txt", 65, "no such file"),
        ("--workdir {}/file/run", 73, "Not a directory"),
        ("--workdir s3://bucket/run", 64, "Orbax"),
    ],
)
def test_what_does_not_fit_gives_its_code(quick, capsys, tmp_path, words, code, says):
    (tmp_path / "file").write_text("")
    assert main(["selftest", *words.format(tmp_path).split()]) == code
    assert says in "".join(capsys.readouterr())


def test_kills_are_those_of_one_host(monkeypatch, quick, capsys):
    seen = []
    kills = lambda workdir, number, watchdog: (
        seen.append((workdir, number)) or Check(name="kills", value="fine")
    )
    monkeypatch.setattr(selftest, "check_kills", kills)
    assert main(["selftest", "--kills", "3"]) == 0
    assert seen == [(None, 3)]
    monkeypatch.setattr(command.runtime, "start_distributed", lambda config: 2)
    assert main(["selftest", "--kills", "3"]) == 64
    assert "start it there alone" in capsys.readouterr().err
    assert main(["selftest", "--kills", "-1"]) == 64
    assert "--kills -1: 0 or more" in capsys.readouterr().err


def test_what_ends_the_process_is_a_line_of_the_table(monkeypatch, quick, capsys):
    def crash(*_):
        raise RuntimeError("a device is gone")

    monkeypatch.setattr(selftest, "check_known_step", crash)
    assert main(["selftest"]) == 70
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"{failed('known step', 70, 'a device is gone')}"
    assert "Traceback" in said.err


@pytest.mark.long
@pytest.mark.slow
def test_the_whole_of_it_on_eight_devices(capsys, tmp_path):
    assert main(["selftest", "--workdir", f"{tmp_path}/run", "--mesh.tensor", "2"]) == 0
    said = capsys.readouterr().out
    assert {"collectives data=4", "collectives tensor=2", "known step"} <= set(names(said))
