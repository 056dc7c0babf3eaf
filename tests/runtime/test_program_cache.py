"""The cache of compiled programs: where it lies, what it leaves alone, what is not read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from t5jax.errors import ConfigError
from t5jax.runtime import RuntimeConfig, compilation_cache
from t5jax.runtime.program_cache import cpu_fingerprint

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def _a_folder_of_nobody(monkeypatch):
    """Whatever this process keeps; here every program is kept, however quickly it compiles."""
    monkeypatch.setattr("t5jax.runtime.program_cache._SHORTEST_SECONDS", 0.0)
    before = getattr(jax.config, SETTINGS[0])
    jax.config.update(SETTINGS[0], None)
    jax_cache.reset_cache()
    yield
    jax.config.update(SETTINGS[0], before)
    jax_cache.reset_cache()


def settings():
    return [getattr(jax.config, name) for name in SETTINGS]


def compile_program():
    """The result of a program that is traced and compiled anew, or read."""
    x = jnp.asarray(np.arange(7, dtype=np.float32))
    return np.asarray(jax.jit(lambda x: jnp.tanh(x * 0.37) @ jnp.cos(x))(x))


def entries(folder):
    return sorted(folder.glob("*/*-cache"))


def test_programs_are_kept_in_the_workdir_and_read_by_the_next_start(tmp_path):
    before, plain = settings(), compile_program()
    with compilation_cache("auto", f"{tmp_path}/"):
        first = compile_program()
    folder = tmp_path / "compilation_cache"
    kept = entries(folder)
    assert [path.parent.name for path in kept] == [f"cpu-{cpu_fingerprint()}"] * len(kept)
    assert any("lambda" in path.name for path in kept)
    assert settings() == before
    with compilation_cache("auto", str(tmp_path)):
        second = compile_program()
    assert entries(folder) == kept
    assert plain.tobytes() == first.tobytes() == second.tobytes()
    compile_program()
    assert entries(folder) == kept, "JAX has been left as it was"


def test_an_entry_that_a_kill_cut_off_is_compiled_again(tmp_path):
    with compilation_cache(str(tmp_path), "unused"):
        expected = compile_program()
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:-50])
    with (
        compilation_cache(str(tmp_path), "unused"),
        pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"),
    ):
        assert compile_program().tobytes() == expected.tobytes()


def test_what_jax_was_told_and_none_are_left_alone(tmp_path):
    before = settings()
    with compilation_cache(None, str(tmp_path)):
        assert settings() == before
    jax.config.update(SETTINGS[0], str(tmp_path / "mine"))
    with compilation_cache("auto", str(tmp_path)):
        assert settings() == [str(tmp_path / "mine"), before[1]]
    with compilation_cache(str(tmp_path / "named"), str(tmp_path)):
        assert settings()[0].startswith(str(tmp_path / "named" / "cpu-"))
    assert settings() == [str(tmp_path / "mine"), before[1]]


def test_it_can_be_turned_off_from_outside(tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with compilation_cache("auto", str(tmp_path)):
            compile_program()
        assert not entries(tmp_path / "compilation_cache")
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        jax_cache.reset_cache()


CPU = """processor\t: {n}
model name\t: EPYC
cpu MHz\t\t: {mhz}
flags\t\t: fpu {more}sse
"""


def test_cpus_with_other_instructions_share_nothing(tmp_path):
    def fingerprint(*cores):
        (tmp_path / "cpuinfo").write_text("\n".join(CPU.format(**core) for core in cores))
        return cpu_fingerprint(tmp_path / "cpuinfo")

    one = fingerprint({"n": 0, "mhz": 1800.5, "more": ""})
    more = {"n": 1, "mhz": 2400.1, "more": ""}
    assert fingerprint({"n": 0, "mhz": 1801, "more": ""}, more) == one
    assert fingerprint({"n": 0, "mhz": 1800.5, "more": "avx512f "}) != one
    assert cpu_fingerprint() == cpu_fingerprint()
    assert cpu_fingerprint(tmp_path / "missing") != cpu_fingerprint()


def test_no_folder_is_refused():
    with pytest.raises(ConfigError, match=r"runtime\.compilation_cache = ''"):
        RuntimeConfig(compilation_cache="")
    assert RuntimeConfig(compilation_cache="~/x").compilation_cache.endswith("/x")
    assert "~" not in RuntimeConfig(compilation_cache="~/x").compilation_cache
