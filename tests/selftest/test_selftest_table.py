"""The table of a self-test: its lines, its exit code, and what hosts say of one check."""

import errno
import json

import pytest

from t5jax.errors import ConfigError, DataError
from t5jax.selftest import Check, Outcome, Table, failed
from t5jax.selftest.check import HostFailed, on_every_host
from tests.selftest.hosts_of_texts import answer, same


def test_the_first_check_that_failed_gives_the_code(capsys, tmp_path):
    table = Table(prints=True)
    table.extend([Check(name="devices", value="3 x cpu", numbers={"devices": 3})])
    assert (table.code, table.summary) == (0, "none of 1 checks failed")
    slow = Check(name="workdir speed", outcome=Outcome.WARNING, value="1 MB/s")
    table.extend([slow, failed("data", 65, "nothing"), failed("known step", 70, "wrong")])
    assert table.code == 65
    assert table.summary == "2 of 4 checks failed"
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["ok", "warning", "FAILED", "FAILED"]
    assert len({line.index(c.value) for line, c in zip(said, table.checks, strict=True)}) == 1
    table.write(tmp_path / "table.json")
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["exit_code"] == 65
    assert found["checks"][0] == {
        "name": "devices", "outcome": "ok", "value": "3 x cpu", "numbers": {"devices": 3},
    }  # fmt: skip


def test_other_hosts_print_nothing(capsys):
    Table(prints=False).extend([Check(name="devices", value="3 x cpu")])
    assert capsys.readouterr().out == ""


def test_hosts_answer_in_their_order(monkeypatch):
    assert on_every_host(lambda: {"a": 1}) == [{"a": 1}]
    answer(monkeypatch, [7, None], same)
    assert on_every_host(lambda: "x") == ["x", [7, None], "x"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no such file"), 65),
        (ConfigError("wrong"), 64),
        (OSError(errno.ENOSPC, "no room"), 73),
        (KeyError("x"), 70),
    ],
)
def test_what_one_host_runs_into_all_are_told(monkeypatch, error, code):
    def fail():
        raise error

    answer(monkeypatch, None)
    with pytest.raises(HostFailed, match="host 0 of 2: ") as caught:
        on_every_host(fail)
    assert caught.value.code == code
    answer(monkeypatch, same, lambda ours: {"code": code, "message": "what it said"})
    with pytest.raises(HostFailed, match="host 2 of 3: what it said") as caught:
        on_every_host(lambda: None)
    assert caught.value.code == code
