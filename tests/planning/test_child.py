"""Plans made in processes of their own: cut off, refused, searched for."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from t5jax.cli import main
from t5jax.config import read_config
from t5jax.planning.child import CompilationFailed, CutOff, plan_in_child
from t5jax.planning.topology import parse_topology
from tests.planning.programs import tiny_config

CONFIG = """\
from tests.planning.programs import tiny_config


def config():
    return tiny_config()
"""


def test_it_ends_when_its_time_is_over():
    with pytest.raises(CutOff, match="after 0 s"):
        plan_in_child(tiny_config(), parse_topology("cpu:8"), 0.2)


KILLED = """\
import multiprocessing, os, time
from t5jax.planning.child import _end_with_parent

def work():
    import threading
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(os.getpid(), flush=True)
    time.sleep(120)
    print("it lived on", flush=True)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work).start()
    time.sleep(300)
"""


@pytest.mark.slow  # two processes
def test_who_kills_a_search_ends_its_compiler(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    parent = subprocess.Popen(
        [sys.executable, "killed.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == ""  # read to its end: the child has ended


@pytest.mark.slow  # a process of its own
def test_a_mesh_that_does_not_exist_is_the_reason():
    config = tiny_config(mesh={"data": 3, "fsdp": 1})
    with pytest.raises(CompilationFailed, match="does not make 8 devices"):
        plan_in_child(config, parse_topology("cpu:8"), 300.0)


@pytest.mark.long
@pytest.mark.slow  # compiles three programs
def test_a_search_compiles_ranks_and_writes_a_config(tmp_path, monkeypatch, capsys):
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(CONFIG)
    words = "plan tiny.py --topology cpu:8 --search --search-compiles 3 --json found.json"
    assert main([*words.split(), "--write", "found.py"]) in (0, None)
    out = capsys.readouterr()
    content = json.loads((tmp_path / "found.json").read_text())
    compiled = [x for x in content["search"] if x["plan"] is not None]
    assert len(compiled) == 3
    times = [x["plan"]["step_seconds"] for x in compiled]
    assert times == sorted(times)
    assert content["step_seconds"] == times[0]
    assert content["flags"] == compiled[0]["flags"]
    assert "compiling data" in out.err
    assert f"best: {content['flags']}" in out.out
    config = read_config("found.py")
    assert config.mesh.shape(8) == tuple(content["mesh"].values())
    assert config.train.num_microbatches == content["num_microbatches"]
    assert main([*words.split()]) in (0, None)  # nothing is compiled again
    again = json.loads((tmp_path / "found.json").read_text())
    kept = [x for x in again["search"] if x["plan"] and x["plan"].get("cached")]
    assert {x["flags"] for x in kept} >= {x["flags"] for x in compiled}
