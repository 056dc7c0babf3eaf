"""A run in a bucket: two hosts train, are killed, one goes on; evaluated, and asked, from there."""

import json
import os
import signal
import subprocess
import sys

import pytest

from t5jax import buckets
from t5jax.cli import main
from t5jax.tracking import read_metrics
from tests.cloud_storage import cloud_storage as cloud_storage
from tests.cloud_storage import forget_clients
from tests.commands import glue_run
from tests.multiprocess.test_launch_local import local
from tests.multiprocess.tiny_run import loss_lines

pytestmark = pytest.mark.slow
STEPS, TASK = 6, "glue_sst2_v002"
# Commands in one process, none of which may load TensorFlow.
COMMANDS = """
import sys
from t5jax.cli import main
for words in sys.argv[1:]:
    code = main(words.split())
    if code:
        sys.exit(f"{words}: {code}")
sys.exit("TensorFlow was loaded" if "tensorflow" in sys.modules else 0)
"""


def commands(*words: str) -> subprocess.CompletedProcess:
    ended = subprocess.run(
        [sys.executable, "-c", COMMANDS, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = glue_run.write(tmp_path_factory.mktemp("glue"))
    assert main(["cache", str(path)]) == 0
    return path


def test_a_run_in_a_bucket_is_the_run_on_a_disk(config, cloud_storage, capsys):
    url, disk = f"{cloud_storage}/runs/whole", config.parent / "run"
    train = ["train", str(config), "--evaluation.every-steps", "4"]
    assert main(train) == 0
    for steps in ("2", "4"):
        forget_clients()  # as another process would begin
        assert main([*train, "--workdir", url, "--train.num-train-steps", steps]) == 0
    assert main(["evaluate", url, "--keep-best", f"{TASK}/accuracy"]) == 0
    assert f"predictions: {url}/evaluations/validation/4\n" in capsys.readouterr().out

    store = buckets.file_system()
    found = {name.partition("runs/whole/")[2]: store.cat_file(name) for name in store.find(url)}
    (disk / "again.jsonl").write_bytes(found["metrics.jsonl"])
    again = read_metrics(disk / "again.jsonl")
    losses = lambda records: [x["train/loss_hex"] for x in records if x["kind"] == "train"]
    assert losses(again) == losses(read_metrics(disk / "metrics.jsonl"))
    assert [x["step"] for x in again if x["kind"] == "resumed"] == [2]
    for file in ("results.json", f"{TASK}.jsonl"):
        name = f"evaluations/validation/4/{file}"
        assert found[name] == (disk / name).read_bytes()
    assert json.loads(found["best/best.json"])["step"] == 4
    assert f"best/checkpoints/4/{buckets.COMMITTED}" in found
    assert not [name for name in found if name.endswith((".unfinished", ".part", ".tmp"))]


@pytest.mark.long
@pytest.mark.usefixtures("default_signals")
def test_a_run_in_a_bucket_survives_a_kill_and_is_evaluated_there(
    config, cloud_storage, tmp_path, monkeypatch
):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    url = f"{cloud_storage}/runs/glue"
    flags = f"--train.num-train-steps {STEPS} --mesh.data 2 --evaluation.every-steps {STEPS}"
    train = f"train {config} {flags} --tracking.seconds-between-lines 0"
    commands(f"{train} --workdir {tmp_path}/run")  # the uninterrupted run, on a disk
    expected = loss_lines(tmp_path / "run")
    assert [step for step, _ in expected] == list(range(1, STEPS + 1))

    job = local.Job(
        [sys.executable, "-m", "t5jax", *train.split(), "--workdir", url], 2, devices=1,
        faults=(local.Fault(process=0, signal=signal.SIGKILL, when=f"step 5/{STEPS}"),),
    )  # fmt: skip
    outcome = job.wait(grace_seconds=60, timeout_seconds=240)
    assert outcome.code != 0, "\n".join(outcome.lines)
    text = tmp_path / "asked.txt"
    text.write_text("sst2 sentence: a dull story\n")
    ended = commands(
        f"{train} --workdir {url}",
        f"evaluate {url} --keep-best {TASK}/accuracy --show 1",
        f"predict {url} {text}",
        f"train {config} --workdir {tmp_path}/warm --init.path {url} --train.num-train-steps 1",
    )

    files = buckets.run_files(url)
    files.fetch("metrics.jsonl")
    records = read_metrics(files.folder / "metrics.jsonl")
    (resumed,) = [record["step"] for record in records if record["kind"] == "resumed"]
    assert resumed in (2, 4)
    assert set(loss_lines(files.folder)) == set(expected)
    store = buckets.file_system()
    names = {name.partition("runs/glue/")[2] for name in store.find(url)}
    assert {"config.txt", "metrics.jsonl", "best/best.json"} <= names
    for file in ("results.json", f"{TASK}.jsonl"):
        name = f"evaluations/validation/{STEPS}/{file}"
        assert store.cat_file(f"{url}/{name}") == (tmp_path / "run" / name).read_bytes()
    best = json.loads(store.cat_file(f"{url}/best/best.json"))
    assert f"best/checkpoints/{best['step']}/{buckets.COMMITTED}" in names
    assert f"predictions: {url}/evaluations/validation/{STEPS}" in ended.stdout
    warm = read_metrics(tmp_path / "warm/metrics.jsonl")[0]
    assert (warm["parameters_from"], warm["of_step"]) == (url, STEPS)
