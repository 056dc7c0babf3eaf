"""`kill -9`, again and again, of a run and of a build of its stores that lie in a bucket."""

import os
import pathlib
import pydoc_data.topics
import random
import re
import subprocess
import sys

import pytest

from t5jax import buckets
from t5jax.commands.cache import cache_command
from tests.cloud_storage import cloud_storage as cloud_storage
from tests.multiprocess import tiny_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,  # 20 starts of a process each; in one: test_bucket_run, test_bucket_store
    pytest.mark.usefixtures("default_signals"),
]
KILLS, STEPS, FILES = 20, 60, 45


def killed_after(command: list[str], pattern: str, count: int) -> list[str]:
    """Starts the command and kills it when it has said so many lines of the pattern; what it
    said."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        count -= re.search(pattern, line) is not None
        if not count:
            break
    process.kill()
    process.communicate()
    return said


def environment() -> dict[str, str]:
    return {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_run_in_a_bucket_loses_no_step(cloud_storage, tmp_path):
    config = tiny_run.write_config(tmp_path, steps=STEPS)
    in_bucket = ["--data.cache-dir", f"{cloud_storage}/kills/cache"]
    cache_command(str(config), in_bucket, splits=["train"], num_processes=1, overwrite=False)
    command = [sys.executable, "-m", "t5jax", "train", str(config)]
    command += ["--checkpoints.save-every-steps", "3"]
    command += ["--runtime.compilation-cache", str(tmp_path / "compiled")]
    whole = [*command, "--workdir", str(tmp_path / "whole")]
    subprocess.run(whole, check=True, env=environment())
    expected = dict(tiny_run.loss_lines(tmp_path / "whole"))
    assert set(expected) == set(range(1, STEPS + 1))

    url, rng = f"{cloud_storage}/kills/run", random.Random(7)
    command += ["--workdir", url, *in_bucket]
    for _ in range(KILLS):
        said = killed_after(command, r"^step \d+/", rng.randrange(1, 6))
        assert not any("error" in line for line in said), "".join(said)
    subprocess.run(command, check=True, env=environment())
    files = buckets.run_files(url)
    files.fetch("metrics.jsonl")
    lines = tiny_run.loss_lines(files.folder)
    print(f"{KILLS} kills, {len(lines)} loss lines, {len(lines) - STEPS} of steps done again")
    assert set(lines) == set(expected.items()), "every step, with the same bits each time"


def test_a_store_in_a_bucket_is_completed(cloud_storage, tmp_path):
    config = tiny_run.write_config(tmp_path, steps=STEPS)
    (tmp_path / "texts").mkdir()
    topics = list(pydoc_data.topics.topics.values())
    for number in range(FILES):
        text = "\n\n".join(topics[number::FILES])
        (tmp_path / "texts" / f"part-{number:02d}.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "t5jax", "cache", str(config)]
    command += ["--data.train-files", f"{tmp_path}/texts/*.txt", "--data.cache-dir"]
    url, rng = f"{cloud_storage}/kills/parts", random.Random(8)
    for _ in range(KILLS):
        said = killed_after([*command, url], r"cache: \d+/", rng.randrange(1, 4))
        assert not any("error" in line for line in said), "".join(said)
    subprocess.run([*command, url], check=True, env=environment())
    subprocess.run([*command, f"{tmp_path}/disk"], check=True, env=environment())
    store, disk = buckets.file_system(), pathlib.Path(tmp_path, "disk")
    there = {name.partition("/parts/")[2]: store.cat_file(name) for name in store.find(url)}
    here = {
        path.relative_to(disk).as_posix(): path.read_bytes()
        for path in disk.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert there == here
