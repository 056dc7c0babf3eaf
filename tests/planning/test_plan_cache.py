"""Plans that were made before: what they depend on, and folders that cannot be used."""

import dataclasses

import pytest

from t5jax.planning import plan_cache
from t5jax.planning.plan_cache import PlanCache, default_folder, plan_key, through
from t5jax.planning.topology import parse_topology
from tests.planning.programs import tiny_config

TOPOLOGY = parse_topology("v5e:2x4")


def test_the_key_is_that_of_what_is_compiled():
    config, elsewhere = tiny_config(), tiny_config()
    elsewhere.workdir = "somewhere/else"
    assert plan_key(config, TOPOLOGY) == plan_key(elsewhere, TOPOLOGY)
    different = [
        plan_key(tiny_config(num_microbatches=2), TOPOLOGY),
        plan_key(tiny_config(mesh={"data": 4, "fsdp": 2}), TOPOLOGY),
        plan_key(config, parse_topology("v5e:4x4")),
        plan_key(config, parse_topology("v5e:2x4", slices=2)),
        plan_key(config, parse_topology("v6e:2x4")),
    ]
    assert len({plan_key(config, TOPOLOGY), *different}) == 1 + len(different)


@pytest.mark.parametrize("name", ["_versions", "source_fingerprint"])
def test_other_compilers_and_other_sources_make_other_plans(monkeypatch, name):
    before = plan_key(tiny_config(), TOPOLOGY)
    value = getattr(plan_cache, name)()
    changed = [*value, "jaxlib 0.99"] if isinstance(value, list) else f"{value}0"
    monkeypatch.setattr(plan_cache, name, lambda: changed)
    assert plan_key(tiny_config(), TOPOLOGY) != before


def test_the_fingerprint_follows_the_source_of_what_is_compiled(tmp_path, monkeypatch):
    for room in ("model", "planning", "cli"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(plan_cache, "_ROOT", tmp_path)
    fingerprint = plan_cache.source_fingerprint.__wrapped__
    first = fingerprint()
    (tmp_path / "cli" / "a.py").write_text("x = 2\n")
    assert fingerprint() == first
    (tmp_path / "model" / "a.py").write_text("x = 2\n")
    assert fingerprint() != first


def test_a_plan_is_made_once(tmp_path):
    asked, cache = [], PlanCache(tmp_path / "new" / "plans")

    def compiles(config, seconds):
        asked.append(seconds)
        return {"fits": True, "memory_gb": 3.5}

    config = tiny_config()
    plans = through(cache, TOPOLOGY, compiles)
    assert plans(config, 77.0) == {"fits": True, "memory_gb": 3.5}
    assert plans(config, 5.0) == {"fits": True, "memory_gb": 3.5, "cached": True}
    assert asked == [77.0]
    plans(dataclasses.replace(config, workdir="elsewhere"), 5.0)
    assert asked == [77.0]


def test_a_damaged_file_is_no_plan(tmp_path):
    cache, config = PlanCache(tmp_path), tiny_config()
    cache.keep(config, TOPOLOGY, {"fits": False})
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-3])
    assert cache.get(config, TOPOLOGY) is None
    cache.keep(config, TOPOLOGY, {"fits": True})
    assert cache.get(config, TOPOLOGY) == {"fits": True}


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = PlanCache(tmp_path / "file" / "plans")
    cache.keep(tiny_config(), TOPOLOGY, {"fits": True})
    assert cache.get(tiny_config(), TOPOLOGY) is None


def test_the_folder_is_where_caches_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "t5jax" / "plans"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "t5jax" / "plans"
