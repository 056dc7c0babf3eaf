"""Ambient settings: float64 is refused, flags are read as XLA reads them, hosts must agree."""

import json

import jax
import pytest

from t5jax import runtime
from t5jax.cli import main
from t5jax.errors import ConfigError
from t5jax.runtime import ambient


@pytest.fixture
def float64():
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def test_settings_of_jax_are_recorded():
    settings = runtime.ambient_settings({})
    assert settings["jax_default_prng_impl"] == "threefry2x32"
    assert settings["jax_enable_x64"] == "False"
    assert settings["jax_threefry_partitionable"] == "True"


def test_jax_settings_are_read_as_they_are_now():
    with jax.default_matmul_precision("highest"):
        now = runtime.ambient_settings({})
    changes = runtime.ambient_changes(runtime.ambient_settings({}), now)
    assert changes == ["jax_default_matmul_precision was None, is highest"]


def test_flags_count_without_order_and_paths(tmp_path):
    one = {"XLA_FLAGS": "--xla_a=1 --xla_b --xla_a=3 --xla_dump_to=/tmp/0 --v=2 --vmodule=a=1"}
    other = {"XLA_FLAGS": " --xla_b=true  --xla_force_host_platform_device_count=7 --xla_a='3'"}
    assert runtime.ambient_settings(one) == runtime.ambient_settings(other)
    (tmp_path / "flags").write_text("--xla_a=3\n--xla_b\n")
    of_file = runtime.ambient_settings({"XLA_FLAGS": str(tmp_path / "flags")})
    assert of_file == runtime.ambient_settings(one)
    now = runtime.ambient_settings({"XLA_FLAGS": "--xla_a=4", "LIBTPU_INIT_ARGS": "--xla_c=x=y"})
    assert runtime.ambient_changes(of_file, now) == [
        "LIBTPU_INIT_ARGS --xla_c was not set, is x=y",
        "XLA_FLAGS --xla_a was 3, is 4",
        "XLA_FLAGS --xla_b was true, is not set",
    ]


def test_a_flag_with_an_open_quote_or_no_file_is_named():
    assert "XLA_FLAGS --xla_a" in runtime.ambient_settings({"XLA_FLAGS": "--xla_a='3"})
    (name,) = [x for x in runtime.ambient_settings({"XLA_FLAGS": "no/file"}) if "XLA_FLAGS" in x]
    assert "no/file, which cannot be read" in name


def hosts(monkeypatch, *of_hosts: dict[str, str]) -> None:
    ours = runtime.ambient_settings({})
    texts = [json.dumps(ours | more) for more in of_hosts]
    monkeypatch.setattr(ambient, "gather_texts", lambda text: texts)


def test_hosts_that_agree_may_start(monkeypatch):
    hosts(monkeypatch, {"NCCL_ALGO": "Ring"}, {"NCCL_ALGO": "Ring"})
    ambient.agree_on_ambient_settings()


def test_a_host_with_another_environment_is_named_with_the_values(monkeypatch):
    hosts(monkeypatch, {}, {}, {"XLA_FLAGS --xla_a": "3"}, {"jax_enable_x64": "True"})
    with pytest.raises(ConfigError) as caught:
        ambient.agree_on_ambient_settings()
    assert str(caught.value).startswith(
        "ambient settings differ between hosts: host 2 has XLA_FLAGS --xla_a = 3, host 0 not set "
        "(so do those of host 3), of 4 hosts"
    )


def test_float64_is_refused_by_name(float64, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    with pytest.raises(ConfigError, match=r"jax\.config\.update\('jax_enable_x64', False\)"):
        runtime.refuse_float64()
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    with pytest.raises(ConfigError, match=r"JAX_ENABLE_X64=1 .*float64.*unset JAX_ENABLE_X64"):
        runtime.start_distributed(runtime.RuntimeConfig(detect_cluster=False))


def test_commands_refuse_float64(float64, tmp_path, capsys):
    assert main(["convert", str(tmp_path), str(tmp_path / "run")]) == 64
    assert main(["plan", "t5jax.configs.quickstart", "--topology", "cpu:2"]) == 64
    assert capsys.readouterr().err.count("JAX would compute in float64") == 2
