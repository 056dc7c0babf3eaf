"""`t5jax cache --part I/N` and `--finish`: what array jobs make is the store of one host."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from t5jax.cli import main
from t5jax.data.store import units

MODULE = """
import os
import time

import t5jax


def examples(row):
    time.sleep(float(os.environ.get("T5JAX_TEST_PAUSE", 0)))
    yield {"inputs": "say: " + row.text("text"), "targets": row.text("text")[:5]}


def source(data):
    return t5jax.JsonLines(train_files=("pairs-*.jsonl",), validation_files=("dev.jsonl",))


t5jax.add_task(
    t5jax.ExampleTask(name="said", description="", source=source, examples=examples)
)
tasks = ("said", "text_span_corruption")
t5jax.add_mixture(t5jax.Mixture(name="both", tasks=tasks, rate=t5jax.Proportional()))


def config():
    data = t5jax.DataConfig(
        mixture="both", modules=("parted",), cache_dir="stores",
        inputs_length=64, targets_length=21,
        train_files=("train-*.txt",), validation_files=("dev.txt",),
        vocabulary=t5jax.ByteVocabulary(extra_ids=100),
    )
    return t5jax.RunConfig(
        workdir="run", model=t5jax.T5Config(vocab_size=384), data=data,
        train=t5jax.TrainConfig(num_train_steps=3, batch_size=8),
    )
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a config of a text task (3 + 1 shards) and one of examples (5 + 1)."""
    (tmp_path / "parted.py").write_text(MODULE)
    line = lambda n: json.dumps({"text": f"the barge carries {n}"}) + "\n"
    paragraph = "over {} locks\n\n".format
    for name, count in [*((f"pairs-{n}", n + 4) for n in range(5)), ("dev", 2)]:
        (tmp_path / f"{name}.jsonl").write_text("".join(map(line, range(count))))
    for name, count in [*((f"train-{n}", n + 3) for n in range(3)), ("dev", 2)]:
        (tmp_path / f"{name}.txt").write_text("".join(map(paragraph, range(count))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("parted", None)
    yield tmp_path
    sys.modules.pop("parted", None)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def one_host(folder: pathlib.Path) -> dict[str, bytes]:
    """The files of the stores that one host makes."""
    assert main(["cache", "parted.py", "--data.cache-dir", "one"]) == 0
    made = files(folder / "one")
    assert sum(name.endswith("META.json") for name in made) == 4
    assert "both.mixture.json" in made
    return made


def test_parts_and_finish(folder, capsys):
    whole = one_host(folder)
    assert main(["cache", "parted.py", "--finish"]) == 65
    said = capsys.readouterr().err
    assert "stores/said/train lacks 5 shards: shard-00000 of pairs-0.jsonl, " in said
    assert "and 2 more; stores/said/validation lacks 1 shard: shard-00000 of dev.jsonl;" in said
    assert "no part was made: t5jax cache parted.py --part I/N for I from 0 to N-1" in said
    assert not (folder / "stores").exists()
    for part in ("2/4", "0/4"):
        assert main(["cache", "parted.py", "--part", part]) == 0
        said = capsys.readouterr()
        assert f"cache: part {part}: 1/" in said.err
        assert f"stores/text/train: part {part} is made: 1 shard, " in said.out
    assert main(["cache", "parted.py", "--finish", "--train.batch-size", "3"]) == 65
    said = capsys.readouterr().err
    assert "stores/said/train lacks 2 shards: shard-00001 of pairs-1.jsonl, shard-00003 of" in said
    again = "t5jax cache parted.py --part 1/4 --train.batch-size 3"
    assert f"make parts 1,3 of 4 again ({again}), or all here: t5jax cache parted.py" in said
    assert "both.mixture.json" not in files(folder / "stores")
    for part in ("1/4", "3/4"):
        assert main(["cache", "parted.py", "--part", part]) == 0
    for _ in range(2):  # a store that is finished already stays so
        assert main(["cache", "parted.py", "--finish"]) == 0
        assert files(folder / "stores") == whole
    assert main(["cache", "parted.py", "--part", "0/4"]) == 0
    assert files(folder / "stores") == whole


def test_sigterm_keeps_finished_shards_and_leaves_nothing_half_written(
    folder, capsys, monkeypatch, default_signals
):
    whole, encode, taken = one_host(folder), units.encoded_shard, []

    def encode_and_kill(*arguments):
        for document in encode(*arguments):
            taken.append(1)
            if len(taken) == 7:  # in the second shard of the first store
                os.kill(os.getpid(), signal.SIGTERM)
            yield document

    monkeypatch.setattr(units, "encoded_shard", encode_and_kill)
    assert main(["cache", "parted.py"]) == 143
    assert "preempted: finished shards are kept; the same command makes" in capsys.readouterr().err
    left = [name for name in files(folder / "stores") if name != "said/train/.parts"]
    assert {pathlib.PurePath(name).name.split(".")[0] for name in left} == {"shard-00000"}
    assert not [name for name in left if ".tmp" in name]
    assert main(["cache", "parted.py"]) == 0
    assert "1/5 shards were finished before and are kept" in capsys.readouterr().err
    assert files(folder / "stores") == whole


def is_alive(group: int) -> bool:
    """Whether a process of the group is."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True])
def test_sigterm_ends_tokenising_processes_at_once(folder, default_signals, to_all):
    """Schedulers send it to the command alone, or to all processes of the job at once."""
    whole = one_host(folder)
    command = [sys.executable, "-m", "t5jax", "cache", "parted.py", "--num-processes", "2"]
    job = subprocess.Popen(
        command, env=os.environ | {"T5JAX_TEST_PAUSE": "0.5"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert job.stdout is not None
    said = []
    for line in job.stdout:
        said.append(line)
        if "1/5 shards" in line:
            break
    (os.killpg if to_all else os.kill)(job.pid, signal.SIGTERM)
    said.append(job.communicate(timeout=60)[0])
    assert job.returncode == 143, "".join(said)
    assert not (folder / "stores/said/train/shard-00002.json").exists(), "it waits for no shard"
    assert "preempted: finished shards are kept" in said[-1]
    assert "error" not in said[-1]
    deadline = time.monotonic() + 30
    while is_alive(job.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(job.pid)
    assert main(["cache", "parted.py"]) == 0
    assert files(folder / "stores") == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--part 4/4", "--part 4/4: a part is I/N, I from 0 to N-1 (here from 0 to 3), as in 0/4"),
        ("--part two", "--part two: a part is I/N, I from 0 to N-1, as in 0/4"),
        ("--part 0/4 --finish", "leave --finish and --verify to the end"),
        ("--part 0/4 --overwrite", "delete the store's folder"),
        ("--finish --overwrite", "delete the store's folder"),
        ("--part 0/4 --new-vocabulary 99", "t5jax vocab train CONFIG --num-pieces 99 first"),
        ("--verify --finish", "--verify builds nothing"),
        ("--engine ray --finish", "--engine ray tokenises: leave it out with --finish"),
        ("--engine ray --num-processes 3", "leave --num-processes out"),
        ("--engine dask", "invalid choice: 'dask' (choose from"),
    ],
)
def test_options_that_make_no_sense(options, message, capsys):
    try:
        code = main(["cache", "parted.py", *options.split()])
    except SystemExit as end:
        code = end.code
    assert code == 64
    assert message in capsys.readouterr().err


def start(part: int, pause: float) -> subprocess.Popen:
    """Task `part` of the four of a Slurm array, as Slurm starts it."""
    root = pathlib.Path(__file__).parents[2]
    task = {"ID": part, "COUNT": 4, "MIN": 0, "MAX": 3}
    environment = {
        **os.environ,
        "T5JAX_TEST_PAUSE": str(pause),
        "T5JAX": str(pathlib.Path("t5jax.sh").absolute()),
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        **{f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in task.items()},
    }
    return subprocess.Popen(
        ["bash", root / "launch/slurm/cache.sbatch", "parted.py"], env=environment
    )


@pytest.mark.slow
def test_parts_at_once_one_killed_and_repeated_by_two(folder):
    whole = one_host(folder)
    (folder / "t5jax.sh").write_text(f'#!/bin/sh\nexec {sys.executable} -m t5jax "$@"\n')
    (folder / "t5jax.sh").chmod(0o755)
    store = folder / "stores" / "said" / "train"
    parts = [start(part, pause=0.3) for part in range(4)]
    deadline = time.monotonic() + 240
    # Part 0 has the shards 0 and 4 of 5: it is killed in the middle of the last.
    while not list(store.glob("shard-00004.*.tmp-*")):
        assert parts[0].poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parts[0].send_signal(signal.SIGKILL)
    assert parts[0].wait() == -signal.SIGKILL
    assert (store / "shard-00000.json").exists()
    assert not (store / "shard-00004.json").exists()
    twice = [start(0, pause=0.3), start(0, pause=0.2)]
    assert [part.wait(240) for part in (*parts[1:], *twice)] == [0] * 5
    assert list(store.glob("shard-00004.*.tmp-*"))  # of the killed one
    assert main(["cache", "parted.py", "--finish"]) == 0
    assert files(folder / "stores") == whole
    assert main(["cache", "parted.py", "--verify"]) == 0
