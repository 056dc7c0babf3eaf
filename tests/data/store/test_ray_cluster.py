"""A store built by a Ray cluster: a stand-in for the package that pickles all that it is given and
runs it in a process of its own, elsewhere; and the package itself where it is installed."""

import importlib.util
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import types

import numpy as np
import pytest

from t5jax.data.store import ray_cluster
from t5jax.data.store.build import build_cache
from t5jax.data.store.parts import Part, build_part
from t5jax.data.store.reader import META, TokenStore
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from t5jax.runtime import ExitCode, exit_at_sigterm
from tests.data.store.test_store_build import Memory, Pairs, contents, texts

ROOT = pathlib.Path(__file__).parents[3]
NODE = """
import pickle, sys
function, arguments = pickle.load(sys.stdin.buffer)
try:
    result = function(*arguments)
except Exception as error:
    result = error
pickle.dump(result, sys.stdout.buffer)
"""


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__("pages of tracebacks")
        self.cause = cause


class Cluster(types.ModuleType):
    """The parts of the package that are used, strict about how."""

    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self):
        super().__init__("ray")
        self.address, self.ran, self.cancelled, self.lost = None, 0, 0, ""

    def is_initialized(self):
        return self.address is not None

    def init(self, *, address):
        if address == "nobody":
            raise ConnectionError("Could not find any running Ray instance.\nAnd a page more.")
        self.address = address
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": 3}
        assert self.is_initialized()
        pack = lambda function, words: pickle.dumps((function, words))
        return lambda function: types.SimpleNamespace(remote=lambda *words: pack(function, words))

    def put(self, value):
        return pickle.loads(pickle.dumps(value))

    def wait(self, references, *, num_returns):
        assert num_returns == 1
        return [references[-1]], references[:-1]  # in another order than they were given

    def get(self, reference):
        self.ran += 1
        if self.lost:
            raise RayError(self.lost)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "-c", NODE], input=reference, capture_output=True, cwd="/",
            env=environment, check=True,
        )  # fmt: skip
        result = pickle.loads(ended.stdout)
        if isinstance(result, Exception):
            raise RayTaskError(result)
        return result

    def cancel(self, reference):
        self.cancelled += 1


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    cluster = Cluster()
    monkeypatch.setitem(sys.modules, "ray", cluster)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "_SECONDS_UNTIL_SEEN", 0.0)
    monkeypatch.chdir(tmp_path)
    return cluster


VOCABULARY = ByteVocabulary(extra_ids=7)
PADDED = Pairs({"a": [("x", "y")], "b": [("", "z")], "c": [(np.array([5, 0]), np.array([1]))]})


def build(source, directory="ray", **options):
    return build_cache(source, "train", directory, vocabulary=VOCABULARY, **options)


def test_a_cluster_writes_the_bytes_of_one_host(cluster):
    """Of a relative folder, by processes that start in another one."""
    build(texts(3), "one")
    build_part(texts(3), "train", "ray", vocabulary=VOCABULARY, part=Part(1, 3))
    lines = []
    build(texts(3), engine="ray", progress=lines.append)
    assert contents("ray") == contents("one")
    assert (cluster.address, cluster.ran, cluster.cancelled) == ("auto", 2, 0)
    assert "cache: 1/3 shards were finished before and are kept" in lines
    assert lines[-1].startswith("cache: 3/3 shards, 18 documents")
    build(texts(3), engine="ray")
    assert cluster.ran == 2  # what is finished needs no cluster


def test_what_a_unit_raises_is_raised_and_the_others_are_cancelled(cluster, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_reach", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(DataError, match=r"^c: document 0 encodes to id 0, which is reserved"):
        build(PADDED, engine="ray")
    assert (cluster.address, cluster.ran, cluster.cancelled) == ("head:6379", 1, 2)
    assert not pathlib.Path("ray", META).exists()


def test_a_lost_task_is_said_with_its_source(cluster):
    cluster.lost = "The worker died unexpectedly.\nAnd a page more."
    message = (
        r"a Ray task was lost at b \(The worker died unexpectedly\.\); finished shards are kept"
    )
    with pytest.raises(DataError, match=message):
        build(Memory({"a": ["x"], "b": ["y"]}), engine="ray")


def test_nodes_that_share_no_disk_are_refused(cluster, monkeypatch):
    def elsewhere(reference):
        function, arguments = pickle.loads(reference)
        record = function(*arguments)
        for file in pathlib.Path("ray").glob("shard-*"):
            file.unlink()
        return record

    monkeypatch.setattr(cluster, "get", elsewhere)
    with pytest.raises(DataError, match=r"shard-00000 .* data.cache_dir must be on a disk"):
        build(Memory({"a": ["x"]}), engine="ray")
    with pytest.raises(DataError, match=r"not finished|no tokenised store"):
        TokenStore.open("ray")
    with pytest.raises(DataError, match=r"node \S+ of the Ray cluster has no /no/folder"):
        ray_cluster._build_there("/no/folder", [], b"", None)


def test_no_package_and_no_cluster(cluster, monkeypatch):
    source = Memory({"a": ["x"]})
    monkeypatch.setenv("RAY_ADDRESS", "nobody")
    message = r"no Ray cluster at nobody \(Could not find any running Ray instance\.\); start"
    with pytest.raises(ConfigError, match=message):
        build(source, engine="ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=rf"at {address} \(.*refused\); start one"):
            build(source, engine="ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"here and on the cluster: pip install 't5jax\[ray\]'"):
        build(source, engine="ray")


def test_sigterm_stays_the_command_s(cluster, monkeypatch, capsys, default_signals):
    get = cluster.get

    def get_and_be_ended(reference):
        record = get(reference)
        os.kill(os.getpid(), signal.SIGTERM)
        return record

    monkeypatch.setattr(cluster, "get", get_and_be_ended)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, exit_at_sigterm("preempted"):
        build(texts(3), engine="ray")
    assert ended.value.code == ExitCode.PREEMPTED
    assert capsys.readouterr().err == "preempted\n"
    assert (cluster.ran, cluster.cancelled) == (1, 2)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed (pip install 't5jax[ray]'; the lock is without it)",
)
def test_the_package_itself(tmp_path, monkeypatch):
    import ray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the workers, which import t5jax
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        build(texts(5), "one")
        build(texts(5), engine="ray")
        assert contents("ray") == contents("one")
        with pytest.raises(DataError, match=r"^c: document 0 encodes to id 0, which is reserved"):
            build(PADDED, "padded", engine="ray")
    finally:
        ray.shutdown()
