"""`t5jax selftest` on two hosts as real processes: all is well, a workdir of one host, a hang."""

import sys

import pytest

from tests.multiprocess.test_launch_local import codes, local, spread_of_exits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_signals")]


def test_two_hosts(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    command = [sys.executable, "-m", "t5jax", "selftest", "--workdir", f"{tmp_path}/run"]
    command += ["--data", f"{tmp_path}/*.txt", "--mesh.fsdp", "2"]
    outcome = local.Job(command, 2, devices=2).wait(timeout_seconds=120)
    print("\n".join(outcome.lines))
    assert codes(outcome) == {0: 0, 1: 0}
    table = [line for line in outcome.lines if line.startswith("[0] ok ")]
    for name in (
        "devices", "software", "clocks", "collectives data=2", "collectives fsdp=2", "workdir ",
        "workdir speed", "data", "known step",
    ):  # fmt: skip
        assert any(f"ok        {name}" in line for line in table), name
    assert any("collectives data=2" in x and "(between hosts)" in x for x in table)
    assert any("collectives fsdp=2" in x and "(between" not in x for x in table)
    assert not any(line.startswith("[1] ok") for line in outcome.lines)


def test_hosts_with_folders_of_their_own_end_with_64_and_one_that_hangs_with_75(tmp_path):
    program = (
        "import os, runpy, sys, time\n"
        "from t5jax.selftest import files\n"
        "host = os.environ['T5JAX_PROCESS_ID']\n"
        "shared = files.check_shared_directory\n"
        "files.check_shared_directory = lambda workdir: shared(workdir + host, 0.5)\n"
        "files._file_sets = lambda config, data: (\n"
        "    time.sleep(100) if host == '1' else {'data': ('x',)})\n"
        f"sys.argv = ['t5jax', 'selftest', '--workdir', '{tmp_path}/of-host-',\n"
        "  '--runtime.step-timeout-seconds', '20', '--runtime.first-step-timeout-seconds', '60']\n"
        "runpy.run_module('t5jax', run_name='__main__')"
    )
    outcome = local.Job([sys.executable, "-c", program], 2, devices=1).wait(timeout_seconds=120)
    print("\n".join(outcome.lines))
    assert set(codes(outcome).values()) <= {70, 75, 134}
    assert 75 in codes(outcome).values()
    assert spread_of_exits(outcome) < 5
    [line] = [line for line in outcome.lines if "FAILED" in line]
    assert "is not shared: host 1 of 2 cannot read" in line
