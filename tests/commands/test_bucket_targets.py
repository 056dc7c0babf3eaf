"""Stores, targets and outputs in a bucket: what each command writes there is what it writes on a
disk, and runs there are followed, scored, exported and replayed."""

import dataclasses
import json
import pathlib

import pytest
from etils import epath

import t5jax
from t5jax import buckets
from t5jax.cli import main
from t5jax.config import WarmStart, load_config
from t5jax.data.store import local_copy
from t5jax.export.exported_run import ExportedRun
from t5jax.tracking import read_metrics
from t5jax.training.peft import LoRA
from tests.cloud_storage import cloud_storage as cloud_storage
from tests.commands.saved_runs import bits, restore_run, save_run
from tests.convert.foreign import tiny_huggingface

pytestmark = pytest.mark.slow
SHORT = ["--decoding.max-length", "6"]
ROWS = [{"input": f"A <extra_id_0> of {number}", "target": "x" * number} for number in range(7)]


@pytest.fixture(autouse=True)
def copy_of_stores(tmp_path, monkeypatch):
    monkeypatch.setenv(local_copy.FOLDER, str(tmp_path))
    local_copy.local_copy.cache_clear()
    yield
    local_copy.local_copy.cache_clear()


def fetched(url: str, folder: pathlib.Path) -> dict[str, bytes]:
    """The objects below a URL by name, and as files of a folder."""
    store = buckets.file_system()
    found = {}
    for name in store.find(url):
        path = folder / name.removeprefix(url.removeprefix("gs://") + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.cat_file(name))
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def files(folder: pathlib.Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def losses(workdir):
    return {x["step"]: x["train/loss_hex"] for x in read_metrics(workdir) if x["kind"] == "train"}


@pytest.mark.long  # a minute of a processor; what it stands on: tests/data/store/test_bucket_store
def test_a_run_whose_store_is_in_a_bucket_is_the_run_of_a_disk(
    tiny, cloud_storage, tmp_path, capsys
):
    store, url = f"{cloud_storage}/tiny/cache", f"{cloud_storage}/tiny/run"
    config, in_bucket = str(tiny / "tiny.py"), ["--data.cache-dir", store]
    assert main(["cache", config, *in_bucket]) == 0
    assert main(["cache", config, "--verify", *in_bucket]) == 0
    said = capsys.readouterr().out
    assert f"{store}/text/train: " in said
    assert said.count("all as written") == 2
    on_disk = {k: x for k, x in files(tiny / "cache").items() if not k.endswith(".lock")}
    assert fetched(store, tmp_path / "store") == on_disk

    short = ["--train.num-train-steps", "4", "--train.eval-every-steps", "4"]
    short += ["--checkpoints.save-every-steps", "2", "--tracking.seconds-between-lines", "0"]
    assert main(["train", config, *short, "--workdir", str(tmp_path / "disk")]) == 0
    assert main(["train", config, *short, "--workdir", url, *in_bucket]) == 0
    said = capsys.readouterr().err
    assert "of tokens in a bucket are read through a copy in" in said
    assert "requests/step" in said
    (tmp_path / "ours.jsonl").write_bytes(buckets.file_system().cat_file(f"{url}/metrics.jsonl"))
    assert losses(tmp_path / "ours.jsonl") == losses(tmp_path / "disk/metrics.jsonl")
    records = [x for x in read_metrics(tmp_path / "ours.jsonl") if "data/rows_per_second" in x]
    assert records[0]["data/requests_per_step"] > 0
    assert records[0]["data/bytes_per_step"] > 0

    assert main(["replay", url, "--step", "4", "--norms"]) == 0
    assert "step 4 repeats bit for bit" in capsys.readouterr().out
    assert main(["replay", url, "--step", "9"]) == 1
    assert main(["inspect", "data", config, *in_bucket, "--step", "3", "--rows", "1"]) == 0
    assert main(["evaluate", url, "--follow", "--wait", "0", "--only", "loss"]) == 0
    said = capsys.readouterr().out.splitlines()
    followed = [x.split(" on ")[0] for x in said if x.startswith("step ") and " of gs://" in x]
    assert followed == [f"step {n} of {url}" for n in (2, 4)]


@pytest.fixture(scope="module")
def workdirs(tiny, cloud_storage, tmp_path_factory):
    """One run on a disk and in the bucket."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    config = load_config(str(tiny / "tiny.py"), ["--workdir", str(folder)])
    save_run(config, folder, steps=(30,))
    url = f"{cloud_storage}/saved/run"
    save_run(dataclasses.replace(config, workdir=url), epath.Path(url), steps=(30,))  # pyright: ignore
    return str(folder), url


@pytest.mark.parametrize("command", [pytest.param("predict", marks=pytest.mark.long), "score"])
def test_outputs_in_a_bucket_are_those_of_a_disk(
    workdirs, cloud_storage, tmp_path, command, capsys, monkeypatch
):
    monkeypatch.setattr(buckets, "APPEND_FROM_BYTES", 100)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["--input", str(tmp_path / "rows.jsonl"), "--batch-size", "2"]
    words += SHORT if command == "predict" else []
    target = f"{cloud_storage}/outputs/{command}.jsonl"
    disk, url = workdirs
    assert main([command, disk, *words, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert main([command, url, *words, "--output", target]) == 0
    store, expected = buckets.file_system(), (tmp_path / "out.jsonl").read_bytes()
    assert store.cat_file(target) == expected
    job = json.loads(store.cat_file(f"{target}.job.json"))
    assert job["checkpoints"] == [f"{url}, step 30"]

    store.pipe_file(target, expected[:-20])  # what an upload before a kill had left
    assert main([command, url, *words, "--output", target]) == 0
    assert store.cat_file(target) == expected
    other = [*words, "--output", target, "--prefix", "x"]
    assert main([command, url, *other]) == 64
    assert f"--output {target} holds lines of another job: prefix" in capsys.readouterr().err
    assert main([command, url, *words, "--output", target, "--shard", "1/2"]) == 0
    part = store.cat_file(f"{cloud_storage}/outputs/{command}-00001-of-00002.jsonl")
    assert len(part.splitlines()) == 3


def test_an_export_goes_from_bucket_to_bucket(workdirs, cloud_storage, tmp_path, capsys):
    words = ["--inputs-length", "24", "--platforms", "cpu", *SHORT]
    target = f"{cloud_storage}/exported"
    assert main(["export", workdirs[1], target, *words]) == 0
    assert main(["export", workdirs[1], target, *words]) == 64
    assert f"{target} exists already" in capsys.readouterr().err
    fetched(target, tmp_path / "there")
    texts = [row["input"] for row in ROWS[:3]]
    run = t5jax.load(workdirs[1], decoding={"max_length": 6})
    found = ExportedRun(tmp_path / "there").predict(texts)
    assert [one[0].text for one in found] == run.predict(texts)
    assert run.members[0].workdir == workdirs[1]


@pytest.mark.long
def test_converted_and_merged_runs_lie_in_a_bucket(tiny, cloud_storage, tmp_path, capsys):
    source = tiny_huggingface(tmp_path / "hf", "byt5")
    target, back = f"{cloud_storage}/converted", f"{cloud_storage}/back"
    for place in (target, str(tmp_path / "run")):
        assert main(["convert", str(source), place, "--reference", "numpy"]) == 0
    assert f"report: {target}/conversion.txt" in capsys.readouterr().out
    ours, theirs = restore_run(target), restore_run(tmp_path / "run")
    assert bits(ours.params) == bits(theirs.params)
    assert ours.config.workdir == target
    options = ["--to", "huggingface", "--reference", "numpy"]
    assert main(["convert", str(tmp_path / "run"), back, *options]) == 0
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "back"), *options]) == 0
    there, here = fetched(back, tmp_path / "fetched"), files(tmp_path / "back")
    assert there.keys() == here.keys()
    assert there["model.safetensors"] == here["model.safetensors"]

    config = load_config(str(tiny / "tiny.py"), ["--workdir", str(tmp_path / "lora")])
    begun = WarmStart(path="elsewhere")
    config = dataclasses.replace(config, finetuning=LoRA(rank=3, alpha=6.0), init=begun)
    save_run(config, tmp_path / "lora", steps=(30,))
    merged = f"{cloud_storage}/merged"
    for place in (merged, str(tmp_path / "merged")):
        assert main(["merge", str(tmp_path / "lora"), place]) == 0
    assert bits(restore_run(merged).params) == bits(restore_run(tmp_path / "merged").params)
    assert main(["merge", str(tmp_path / "lora"), merged]) == 64
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("export {run} gs://no-such-bucket/x", 73, "there is no bucket 'no-such-bucket'"),
        ("predict {run} text --output gs://no-such-bucket/x.jsonl", 73, "there is no bucket"),
        ("evaluate gs://no-such-bucket/run", 66, "gs://no-such-bucket/run"),
        ("replay gs://no-such-bucket/run --step 3", 64, "has no metrics.jsonl"),
    ],
)
def test_buckets_that_are_not_there(workdirs, words, code, said, capsys):
    assert main(words.format(run=workdirs[0]).split()) == code
    assert said in capsys.readouterr().err
