"""Profiles of flags: what they set, what of the user's stays, when they come too late."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from t5jax import runtime
from t5jax.errors import ConfigError
from t5jax.runtime import RuntimeConfig
from t5jax.runtime.flags import PROFILES, set_flags
from t5jax.training.compiler_options import OPTIONS

HIDING = "--xla_gpu_enable_latency_hiding_scheduler"


def test_nothing_is_set_without_a_profile():
    environ = {"XLA_FLAGS": "--xla_a=1"}
    assert set_flags((), environ, started=True) == []
    assert environ == {"XLA_FLAGS": "--xla_a=1"}


def test_a_profile_adds_to_what_the_user_has_set():
    environ = {"XLA_FLAGS": "--xla_a=1 --xla_b"}
    assert set_flags(("gpu",), environ, started=False) == [f"flags gpu: XLA_FLAGS {HIDING}=true"]
    assert environ == {"XLA_FLAGS": f"--xla_a=1 --xla_b {HIDING}=true"}
    assert set_flags(("gpu",), environ, started=True) == []  # it is set already


def test_a_value_of_the_users_stays_and_is_said():
    environ = {"XLA_FLAGS": f"{HIDING}=false", "NCCL_PROTO": "Simple"}
    said = set_flags(("gpu", "nccl_one_host"), environ, started=False)
    assert said == [
        f"flags gpu: XLA_FLAGS {HIDING} = false stays, as you have set it (the profile says true)",
        "flags nccl_one_host: NCCL_LL128_BUFFSIZE -2; NCCL_LL_BUFFSIZE -2",
        "flags nccl_one_host: NCCL_PROTO = Simple stays, as you have set it (the profile says "
        "SIMPLE,LL,LL128)",
    ]
    assert environ == {
        "XLA_FLAGS": f"{HIDING}=false", "NCCL_PROTO": "Simple",
        "NCCL_LL128_BUFFSIZE": "-2", "NCCL_LL_BUFFSIZE": "-2",
    }  # fmt: skip


def test_profiles_of_the_variable_come_beside_the_configs():
    environ = {"T5JAX_FLAGS": " tpu_slices, gpu"}
    said = set_flags(("gpu",), environ, started=False)
    assert [line.split(":")[0] for line in said] == ["flags gpu", "flags tpu_slices"]
    assert environ["LIBTPU_INIT_ARGS"].startswith("--xla_tpu_enable_data_parallel_all_reduce_opt=")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"T5JAX_FLAGS": "fast"}, "T5JAX_FLAGS: no profile 'fast'; choose of tpu, tpu_slices, gpu"),
        (
            {"XLA_FLAGS": "my/flags"},
            f"XLA_FLAGS = my/flags: names a file .* write {HIDING}=true",
        ),
        ({}, "flags gpu: JAX has started its devices and reads no flags any more"),
    ],
)
def test_what_cannot_be_set_is_refused(environ, message):
    with pytest.raises(ConfigError, match=message):
        set_flags(("gpu",), environ, started=True)


def test_a_config_with_an_unknown_profile_is_refused():
    with pytest.raises(ConfigError, match=r"runtime\.flags: no profile 'tpus'; choose of tpu,"):
        RuntimeConfig(flags=("tpus",))


def test_a_run_that_comes_too_late_is_refused(monkeypatch):
    import jax

    jax.devices()
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert runtime.devices_are_started()
    with pytest.raises(ConfigError, match="flags gpu: JAX has started"):
        runtime.start_distributed(RuntimeConfig(flags=("gpu",)))


def test_the_train_steps_options_for_tpus_are_those_of_all_programs():
    flags = PROFILES["tpu"].flags["LIBTPU_INIT_ARGS"]
    assert flags == {f"--{name}": str(value).lower() for name, value in OPTIONS["tpu"].items()}
    assert {f"--{name}" for name in OPTIONS["gpu"]} <= PROFILES["gpu"].flags["XLA_FLAGS"].keys()


START = """
import json, sys
from t5jax import runtime
from t5jax.planning.topology import parse_topology, prepare_process
names = tuple(sys.argv[1:])
runtime.start_distributed(runtime.RuntimeConfig(flags=names, detect_cluster=False))
assert not runtime.devices_are_started()
prepare_process(parse_topology("v5e:2x4"))
import jax
jax.devices()  # XLA ends a process that gives it a flag it does not know
number = 0
if "tpu" in names:
    number = len(parse_topology("v5e:2x4").devices())  # and so does libtpu
print(json.dumps([runtime.ambient_settings(), number]))
"""


def start(*profiles: str) -> tuple[dict, int, str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/tmp")}
    ended = subprocess.run(
        [sys.executable, "-c", START, *profiles], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return *json.loads(ended.stdout), ended.stderr


@pytest.mark.slow
def test_a_run_sets_flags_before_jax_starts_and_records_them():
    settings, _, said = start("gpu_fsdp", "gpu_deterministic", "nccl_one_host")
    assert f"flags gpu_fsdp: XLA_FLAGS {HIDING}=true --xla_gpu_enable_pipelined_all_g" in said
    assert settings["XLA_FLAGS --xla_gpu_deterministic_ops"] == "true"
    assert settings["NCCL_PROTO"] == "SIMPLE,LL,LL128"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: make .venv/installed-plan"
)
def test_libtpu_knows_the_flags_beside_those_for_gpus():
    settings, number, _ = start(*PROFILES)
    assert number == 8
    assert settings["LIBTPU_INIT_ARGS --xla_tpu_enable_data_parallel_all_reduce_opt"] == "true"
