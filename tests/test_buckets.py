"""A run's folder in a bucket: its files, checkpoints and errors, against fake-gcs-server."""

import errno
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5jax import buckets
from t5jax.buckets import BucketError, RunFiles, bucket_errors, run_files
from t5jax.checkpoints import CheckpointConfig, Checkpoints, committed_steps, read_record
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.continuous import BestCheckpoint, poll_checkpoints
from t5jax.paths import check_written_run
from t5jax.runtime import ExitCode, check_shared_directory, run_guarded, share_folder
from t5jax.tracking import Tracker, TrackingConfig, read_metrics
from tests.cloud_storage import cloud_storage as cloud_storage


def objects(url: str) -> dict[str, bytes]:
    store = buckets.file_system()
    return {name.removeprefix(url[5:] + "/"): store.cat_file(name) for name in store.find(url)}


def test_files_are_objects_after_an_upload(cloud_storage, tmp_path):
    url = f"{cloud_storage}/files"
    files = RunFiles(f"{url}/")
    assert files.folder.name == "files"
    (files.folder / "evaluations/validation/20").mkdir(parents=True)
    written = {"config.txt": b"a = 1\n", "evaluations/validation/20/x.unfinished": b"{}\n"}
    ignored = ("checkpoints/1/x", "wandb/log", "loss.png.part", "x.json.tmp", ".tmp-1f")
    for name, data in {**written, **dict.fromkeys(ignored, b"")}.items():
        (files.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (files.folder / name).write_bytes(data)
    files.upload()
    assert objects(url) == written

    (files.folder / "config.txt").write_bytes(b"a = 22\n")
    half = files.folder / "evaluations/validation/20/x.unfinished"
    half.rename(half.with_suffix(".jsonl"))
    files.upload()
    now = {"config.txt": b"a = 22\n", "evaluations/validation/20/x.jsonl": b"{}\n"}
    assert objects(url) == now

    other = RunFiles(url)  # another process, or host
    other.fetch("evaluations/validation/20")
    other.fetch("config.txt")
    other.fetch("nothing")
    other.upload()
    assert objects(url) == now
    found = [path for path in other.folder.rglob("*") if path.is_file()]
    assert {path.relative_to(other.folder).as_posix(): path.read_bytes() for path in found} == now
    assert other.shown(found[0]).startswith(f"{url}/")
    assert other.shown(tmp_path) == str(tmp_path)

    (other.folder / "evaluations/validation/20/left").write_bytes(b"")
    share_folder(other, other.folder / "evaluations/validation/20")
    assert set(objects(url)) == {*now, "evaluations/validation/20/left"}
    files.fetch("evaluations/validation/20")
    assert (files.folder / "evaluations/validation/20/left").exists()


def test_files_of_a_disk_stay_where_they_are(tmp_path):
    files = run_files(tmp_path)
    assert (files.folder, files.url) == (tmp_path, None)
    (tmp_path / "config.txt").write_text("a")
    files.fetch("config.txt")
    files.upload()
    files.upload_in_time()
    share_folder(files, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.txt"]


def test_a_long_log_is_appended_to_within_the_store(cloud_storage, monkeypatch):
    monkeypatch.setattr(buckets, "APPEND_FROM_BYTES", 50)
    url = f"{cloud_storage}/log"
    files, log = RunFiles(url), b""
    sent = []
    store, pipe = buckets.file_system(), buckets.file_system().pipe_file
    monkeypatch.setattr(store, "pipe_file", lambda x, data: (sent.append(len(data)), pipe(x, data)))
    for number in range(4):
        log += b"line %d of the log, of about thirty bytes\n" % number
        (files.folder / "metrics.jsonl").write_bytes(log + b"half a li")
        files.upload()
        assert objects(url) == {"metrics.jsonl": log}
    length = len(log) // 4
    assert sent == [length, 2 * length, length, length]

    store.pipe_file(f"{url}/metrics.jsonl", b"of another process")
    log += b"one more\n"
    (files.folder / "metrics.jsonl").write_bytes(log)
    files.upload()
    assert objects(url) == {"metrics.jsonl": log}


def test_the_log_of_a_run_goes_on_in_another_process(cloud_storage):
    url = f"{cloud_storage}/tracked"
    settings = TrackingConfig(progress="off", plot=False)
    for step in (1, 2):
        buckets._run_files.cache_clear()
        with Tracker(url, settings, num_train_steps=2, is_primary=True) as tracker:
            tracker.train(step, {"train/loss": step / 3})
            tracker.upload()
            lines = map(json.loads, objects(url)["metrics.jsonl"].splitlines())
            assert [x["step"] for x in lines if x["kind"] == "train"] == [1, 2][:step]
            tracker.event(step, "saved")
    records = read_metrics(run_files(url).folder / "metrics.jsonl")
    assert [record["kind"] for record in records] == ["train", "saved"] * 2
    names = [name.split(".")[0] for name in objects(url)]
    assert sorted(names) == ["metrics", "tensorboard/events", "tensorboard/events"]


def test_an_upload_in_time_is_made_beside_the_run(cloud_storage, monkeypatch):
    files = RunFiles(f"{cloud_storage}/in_time")
    (files.folder / "a").write_bytes(b"1")
    files.upload_in_time()
    assert files._thread is None  # none is due
    monkeypatch.setattr(buckets, "SECONDS_BETWEEN_UPLOADS", 0.0)
    files.upload_in_time()
    assert files._thread is not None
    files._thread.join()
    assert objects(f"{cloud_storage}/in_time") == {"a": b"1"}


def make_state(seed: int) -> dict[str, jax.Array]:
    return {"w": jax.random.normal(jax.random.key(seed), (5, 3)), "step": jnp.int32(seed)}


@pytest.fixture(scope="module")
def saved(cloud_storage) -> str:
    """Steps 1, 2 and 3 of a run, the third damaged: one of its objects is cut."""
    url = f"{cloud_storage}/run/checkpoints"
    checkpoints = Checkpoints(url, CheckpointConfig(save_every_steps=1, keep_newest=4))
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {"config": step}, awaits_metrics=True)
        checkpoints.add_metrics(step, {"a/x": float(step)})
    checkpoints.close()
    store = buckets.file_system()
    data = [name for name in store.find(f"{url}/3/state") if "/d/" in name]
    for name in data:
        store.pipe_file(name, store.cat_file(name)[:-7])
    return url


def test_a_damaged_step_in_a_bucket_is_set_aside_and_the_next_is_saved(saved):
    assert committed_steps(saved) == [1, 2, 3]
    damaged = objects(f"{saved}/3")
    checkpoints = Checkpoints(saved, CheckpointConfig(save_every_steps=1, keep_newest=2))
    notes: list[str] = []
    restored = checkpoints.restore(jax.eval_shape(lambda: make_state(0)), log=notes.append)
    assert restored is not None
    assert restored.step == 2
    assert len(notes) == 1
    assert notes[0].startswith("CHECKPOINT OF STEP 3 IS DAMAGED")
    np.testing.assert_array_equal(restored.state["w"], make_state(2)["w"])
    assert restored.metrics == {"a/x": 2.0}

    assert checkpoints.save(3, make_state(7), {"config": "again"})
    checkpoints.close()
    assert committed_steps(saved) == [2, 3]
    assert read_record(saved, 3).content == {"config": "again"}
    assert objects(f"{saved}_set_aside/3") == damaged

    again = Checkpoints(saved, CheckpointConfig(save_every_steps=1))
    restored = again.restore(jax.eval_shape(lambda: make_state(0)))
    assert restored is not None
    np.testing.assert_array_equal(restored.state["w"], make_state(7)["w"])


def test_a_step_without_its_last_object_was_not_saved(saved, cloud_storage):
    target = f"{cloud_storage}/half/checkpoints"
    buckets.copy_folder(f"{saved}/2", f"{target}/2")
    assert committed_steps(target) == [2]
    assert objects(f"{target}/2") == objects(f"{saved}/2")
    buckets.file_system().rm_file(f"{target}/2/{buckets.COMMITTED}")
    assert committed_steps(target) == []
    buckets.delete_folder(f"{target}/2")
    assert objects(target) == {}


def test_the_best_step_is_copied_within_the_bucket(saved):
    workdir = saved.rpartition("/")[0]
    steps = list(poll_checkpoints(saved, timeout_seconds=0.0))
    best = BestCheckpoint(workdir, "a/x", "max")
    for step in steps[:2]:
        assert best.update(step, {"a/x": step / 2})
        assert committed_steps(f"{workdir}/best/checkpoints") == [step]
        copied = objects(f"{workdir}/best")
        assert json.loads(copied.pop("best.json"))["value"] == step / 2
        assert {
            f"checkpoints/{step}/{k}": v for k, v in objects(f"{saved}/{step}").items()
        } == copied
    buckets._run_files.cache_clear()
    assert not BestCheckpoint(workdir, "a/x", "max").update(9, {"a/x": steps[1] / 2})


def test_a_store_that_fails_says_nothing_about_a_step(saved, monkeypatch):
    """Else good steps would be passed over, and set aside, because the network was away."""

    def fail(*_, **__):
        raise OSError("Forbidden: t5jax-test/run\nno access")

    monkeypatch.setattr(buckets.file_system(), "open", fail)
    with pytest.raises(BucketError, match="Forbidden"):
        read_record(saved, None)


def test_hosts_see_a_bucket(cloud_storage):
    url = f"{cloud_storage}/shared"
    check_shared_directory(url)
    assert objects(url) == {}
    with pytest.raises(BucketError, match="there is no bucket 'no-such-bucket'") as caught:
        check_shared_directory("gs://no-such-bucket/run")
    assert caught.value.errno == errno.ENXIO


class HttpError(Exception):
    __module__ = "gcsfs.retry"

    def __init__(self, code: int):
        super().__init__(f"Invalid Credentials, {code}")
        self.code = code


@pytest.mark.parametrize(
    ("error", "number", "said"),
    [
        (OSError("Forbidden: https://x\nno access"), errno.EACCES, "OSError: Forbidden: https://x"),
        (HttpError(401), errno.EACCES, "HttpError: Invalid Credentials, 401"),
        (HttpError(503), errno.EIO, "HttpError: Invalid Credentials, 503"),
        (TimeoutError(), errno.EIO, "TimeoutError: "),
    ],
)  # fmt: skip
def test_errors_of_a_bucket_are_one_line(cloud_storage, error, number, said, capsys):
    def fail():
        with bucket_errors("gs://bucket/run/config.txt"):
            raise error

    with pytest.raises(BucketError) as caught:
        fail()
    assert caught.value.errno == number
    assert run_guarded(fail) == ExitCode.CANNOT_WRITE
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: gs://bucket/run/config.txt: {said}")
    assert printed.count("\n") == 1

    def fail_to_exist(*_, **__):
        raise error

    store = buckets.file_system()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "exists", fail_to_exist)
        with pytest.raises(DataError, match="gs://bucket/run cannot be read"):
            buckets.check_readable("gs://bucket/run")


def test_other_errors_pass_a_bucket_as_they_are(cloud_storage, tmp_path):
    for url, error in (
        ("gs://b/x", FileNotFoundError("b/x")),
        ("gs://b/x", KeyError("a defect")),
        ("gs://b/x", OSError(errno.ENOSPC, "of the disk")),
        (str(tmp_path), OSError("Forbidden")),
    ):
        with pytest.raises(type(error)) as caught, bucket_errors(url):
            raise error
        assert caught.value is error


def test_without_gcsfs_a_bucket_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gs://b/x: gs:// needs gcsfs.*t5jax\[gcs\]"):
        buckets.check_driver("gs://b/x")
    with pytest.raises(ConfigError, match="gs:// needs gcsfs"):
        run_files("gs://bucket/x")
    buckets.check_driver(tmp_path)


def test_names_of_folders_in_a_bucket():
    for url in ("gs://bucket/run", "gs://b.c_d-3/a/b=1/x@y+z,w/", "gs://abc/_.x"):
        check_written_run(url)
    for url in ("gs://bucket", "gs://bucket/", "gs://bu/x", "gs://bucket//x", "gs://bucket/a b",
                "gs://bucket/a[1]", "gs://bucket/../x", "gs://bucket/a#1", "gs://bucket/a%20",
                "gs://Bucket/x"):  # fmt: skip
        with pytest.raises(ConfigError, match=r"a run in a bucket is written to gs://BUCKET/"):
            check_written_run(url)


def test_etils_reads_without_tensorflow_whatever_it_has_decided_before(monkeypatch):
    """As in a process in which tensorflow-datasets has opened a bucket."""
    from etils.epath import gpath

    monkeypatch.delenv("EPATH_USE_TF", raising=False)
    gpath._is_tf_installed.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # all is installed
    assert gpath._is_tf_installed()
    buckets.check_driver("/a/folder")
    assert gpath._is_tf_installed()  # of no concern to who has no bucket
    buckets.check_driver("gs://bucket/run")
    assert not gpath._is_tf_installed()
