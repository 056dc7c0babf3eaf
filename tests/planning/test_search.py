"""The search for a layout: candidates, pruning by arithmetic, order, budget, ranking."""

import dataclasses
import functools

import pytest

from t5jax.errors import ConfigError
from t5jax.planning import chips
from t5jax.planning import search as search_module
from t5jax.planning.candidates import Candidate, candidates, meshes
from t5jax.planning.child import CompilationFailed, CutOff
from t5jax.planning.rough import RoughModel, StateShapes
from t5jax.planning.search import Budget, rough_trials, search
from t5jax.planning.search_report import search_as_json, search_report
from t5jax.planning.topology import parse_topology
from t5jax.sharding import MeshConfig
from tests.planning.programs import tiny_config, with_memory

ROOMY = 1e12


@pytest.fixture(autouse=True)
def fixed_host(monkeypatch):
    """A matrix peak and a bandwidth that are not measured."""
    monkeypatch.setattr(chips, "_host_matmul_peak", lambda dtype: 8 * 200e12)
    monkeypatch.setattr(chips, "_host_copy_bandwidth", lambda: 8 * 0.8e12)


@functools.cache
def trials_of_big_batch():
    return tuple(rough_trials(big_batch(), topology()))


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """The candidates of `big_batch`, which all these searches begin with, anew for each."""
    fresh = lambda config, target: [dataclasses.replace(x) for x in trials_of_big_batch()]
    monkeypatch.setattr(search_module, "rough_trials", fresh)


def topology(nbytes=ROOMY):
    """Eight virtual devices with the figures of a TPU."""
    found = parse_topology("cpu:8")
    chip = dataclasses.replace(found.chip, link_bandwidth=90e9)
    return with_memory(dataclasses.replace(found, chip=chip), nbytes)


def big_batch(**changes):
    return tiny_config(
        model={"attention": "auto", "vocab_size": 392},
        batch_size=2048,
        num_microbatches=1,
        **changes,
    )


class Compiler:
    """In place of compiling: times and memory by a rule, and a record of what was asked for."""

    def __init__(self, step_seconds, memory_gb=lambda config: 1.0, hbm_gb=10.0, takes=60.0):
        self.step_seconds, self.memory_gb = step_seconds, memory_gb
        self.hbm_gb, self.takes, self.now, self.asked = hbm_gb, takes, 0.0, []

    def __call__(self, config, seconds):
        self.asked.append(config)
        takes = self.takes(config) if callable(self.takes) else self.takes
        if takes > seconds:
            self.now += seconds
            raise CutOff(f"cut off after {seconds:.0f} s")
        self.now += takes
        memory = self.memory_gb(config)
        fits = memory <= self.hbm_gb
        return {
            "fits": fits, "memory_gb": memory, "hbm_gb": self.hbm_gb, "compile_seconds": takes,
            "step_seconds": self.step_seconds(config) if fits else None,
            "mfu": 0.4 if fits else None, "days": 3.25 if fits else None,
        }  # fmt: skip

    def run(self, target=None, minutes=30, compiles=9):
        log = []
        budget = Budget(seconds=60 * minutes, compiles=compiles)
        found = search(
            big_batch(), target or topology(), self, budget, log=log.append,
            clock=lambda: self.now,
        )  # fmt: skip
        return found, log


def is_unrolled(config) -> bool:
    return config.model.unroll_layers == "all"


def test_meshes_divide_devices_heads_and_embedding():
    config = tiny_config(model={"vocab_size": 392})  # 4 heads, emb_dim 24, mlp_dim 44
    found = [(mesh.data, mesh.fsdp, mesh.tensor) for mesh in meshes(config, topology())]
    assert found == [
        *((8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1)),
        *((4, 1, 2), (2, 2, 2), (1, 4, 2)),
        *((2, 1, 4), (1, 2, 4)),
    ]
    prime = tiny_config(model={"vocab_size": 389})
    odd = [mesh.tensor for mesh in meshes(prime, topology())]
    assert set(odd) == {1}


def test_microbatches_keep_devices_busy_and_divide_the_rows():
    config = big_batch()
    mesh = MeshConfig(data=4, fsdp=2, tensor=1)
    found = list(candidates(config, mesh, tokens=80))
    # 256 rows on a device; 32 rows of 80 positions are the least over 2048
    assert sorted({x.num_microbatches for x in found}) == [1, 2, 4, 8]
    assert len(found) == 4 * 3 * 2
    small = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=24))
    assert {x.num_microbatches for x in candidates(small, mesh, tokens=80)} == {1}
    small.train.batch_size = 23
    assert list(candidates(small, mesh, tokens=80)) == []


def test_a_candidate_is_its_settings():
    config = big_batch()
    layout = Candidate(data=2, fsdp=4, tensor=1, num_microbatches=16, remat="dots", unrolled=True)
    changed = layout.apply(config)
    assert (changed.mesh.data, changed.mesh.fsdp, changed.mesh.tensor) == (2, 4, 1)
    assert (changed.train.num_microbatches, changed.train.batch_size) == (16, 2048)
    assert (changed.model.remat, changed.model.unroll_layers) == ("dots", "all")
    assert config.train.num_microbatches == 1
    assert config.mesh.fsdp == MeshConfig().fsdp
    assert layout.flags == (
        "--mesh.data 2 --mesh.fsdp 4 --mesh.tensor 1 --train.num-microbatches 16 "
        "--model.remat dots --model.unroll-layers all"
    )


def test_the_rough_time_orders_as_the_hardware_does():
    """Recomputing costs FLOPs, scans copies, microbatches weights' traffic and FSDP gathers."""
    config = tiny_config(
        batch_size=2048, num_microbatches=1,
        model={"attention": "auto", "dtype": "bfloat16", "emb_dim": 512, "num_heads": 8,
               "head_dim": 64, "mlp_dim": 1024, "vocab_size": 32128},
    )  # fmt: skip
    target = topology()
    rough, shapes = RoughModel(config, target, (512, 114)), StateShapes(config, target)
    plain = Candidate(data=8, fsdp=1, tensor=1, num_microbatches=1, remat="none", unrolled=True)

    def seconds(**changes):
        layout = dataclasses.replace(plain, **changes)
        mesh = MeshConfig(data=layout.data, fsdp=layout.fsdp, tensor=layout.tensor)
        return rough.seconds(layout, shapes.over(mesh))

    assert seconds() < seconds(unrolled=False)
    assert seconds() < seconds(num_microbatches=64)
    assert seconds(remat="dots") < seconds(remat="full")
    many = {"num_microbatches": 64}
    assert seconds(data=1, fsdp=8, **many) > seconds(**many)
    assert seconds(data=1, tensor=8) > seconds()


def test_sharding_takes_memory_off_and_so_does_recomputing():
    config, target = big_batch(), topology()
    rough, shapes = RoughModel(config, target, (56, 20)), StateShapes(config, target)
    plain = Candidate(data=8, fsdp=1, tensor=1, num_microbatches=1, remat="none", unrolled=True)

    def nbytes(**changes):
        layout = dataclasses.replace(plain, **changes)
        mesh = MeshConfig(data=layout.data, fsdp=layout.fsdp, tensor=layout.tensor)
        return rough.memory(layout, shapes.over(mesh))

    assert nbytes(data=1, fsdp=8) < nbytes(data=2, fsdp=4) < nbytes()
    assert nbytes(remat="full") < nbytes(remat="dots") < nbytes()
    halves = nbytes() - nbytes(num_microbatches=2)
    assert 0 < halves < nbytes() / 2


def test_what_cannot_fit_is_never_compiled():
    sizes = sorted(trial.rough_bytes for trial in trials_of_big_batch())
    middle = sizes[len(sizes) // 2]
    compiler = Compiler(lambda config: 1.0)
    found, _ = compiler.run(target=topology(nbytes=middle * 1.0501))
    refused = [trial for trial in found.trials if trial.rough_bytes > middle]
    assert refused
    assert all(trial.plan is None for trial in refused)
    assert all("does not fit: about" in trial.reason for trial in refused)
    assert found.best is not None


def test_where_arithmetic_fits_nothing_the_smallest_is_compiled():
    least = min(trial.rough_bytes for trial in trials_of_big_batch())
    compiler = Compiler(lambda config: 1.0)
    found, _ = compiler.run(target=topology(nbytes=least * 0.9))
    assert found.best is not None
    assert found.best.rough_bytes == least
    hopeless, _ = Compiler(lambda config: 1.0).run(target=topology(nbytes=least / 3))
    assert hopeless.best is None
    assert "nothing was compiled" in search_report(hopeless)
    full, _ = Compiler(lambda config: 1.0, memory_gb=lambda config: 11.0).run(compiles=2)
    assert full.best is None
    assert "nothing that was compiled fits" in search_report(full)
    assert search_as_json(hopeless)["fits"] is False


def test_the_fastest_that_fits_is_the_best_and_scanned_ones_come_first():
    def step_seconds(config):
        return config.mesh.fsdp * 0.1 + (0.2 if config.model.remat == "full" else 0.3)

    compiler = Compiler(step_seconds)
    found, log = compiler.run(compiles=9)
    times = [trial.step_seconds for trial in found.ranked]
    assert times == sorted(times)
    assert found.best is found.ranked[0]
    assert len(compiler.asked) == 9
    kinds = [is_unrolled(config) for config in compiler.asked]
    assert kinds == [False] * 6 + [True] * 3  # a third is kept for unrolled ones
    fastest = min(compiler.asked[:6], key=step_seconds)
    assert compiler.asked[6].mesh == fastest.mesh, "the mesh that was fastest when scanned"
    assert sum("compiling" in line for line in log) == 9
    left = [trial for trial in found.trials if trial.plan is None]
    assert left
    assert all(trial.reason for trial in left)


def test_more_microbatches_than_needed_are_dominated():
    compiler = Compiler(lambda config: 1.0)
    found, _ = compiler.run(compiles=200, minutes=10_000)
    compiled = [trial.candidate for trial in found.trials if trial.plan is not None]
    alike = {dataclasses.replace(x, num_microbatches=1) for x in compiled}
    assert len(alike) == len(compiled), "one number of microbatches of each layout"
    assert any(trial.reason.startswith("dominated") for trial in found.trials)


def test_what_did_not_fit_rules_out_what_needs_more():
    compiler = Compiler(
        lambda config: 1.0, memory_gb=lambda config: 80.0 / config.train.num_microbatches
    )
    found, _ = compiler.run(compiles=400, minutes=100_000)
    for trial in found.trials:
        if trial.plan is not None:
            assert trial.fits == (trial.candidate.num_microbatches >= 8)
    assert found.best is not None
    assert found.best.candidate.num_microbatches == 8
    assert any("of 10.00 GB" in trial.reason for trial in found.trials)


def test_it_ends_in_time_whatever_the_compiler_takes():
    compiler = Compiler(
        lambda config: 1.0, takes=lambda config: 9000 if is_unrolled(config) else 70
    )
    found, _ = compiler.run(minutes=10)
    assert compiler.now <= 10 * 60
    assert found.best is not None
    assert not found.best.candidate.unrolled
    assert any("cut off" in x.reason or "minutes, " in x.reason for x in found.trials)


def test_a_layout_that_fails_is_passed_over():
    def step_seconds(config):
        if config.mesh.fsdp == 1:
            raise CompilationFailed("XlaRuntimeError: no such luck")
        return 1.0

    compiler = Compiler(step_seconds)
    found, _ = compiler.run()
    assert found.best is not None
    assert found.best.candidate.fsdp > 1
    assert any(trial.reason == "XlaRuntimeError: no such luck" for trial in found.trials)


def test_cached_plans_cost_no_compilation():
    class Cached(Compiler):
        def __call__(self, config, seconds):
            return {**super().__call__(config, seconds), "cached": True}

    compiler = Cached(lambda config: 1.0, takes=1.0)
    found, _ = compiler.run(compiles=1)
    assert len(compiler.asked) > 1
    assert sum(trial.plan is not None for trial in found.trials) == len(compiler.asked)


def test_the_table_says_why_the_others_are_not_in_it():
    found, _ = Compiler(lambda config: 0.25 * config.mesh.fsdp).run()
    text = search_report(found)
    best = found.best
    assert best is not None
    first = next(line for line in text.splitlines() if line.startswith(" 1  "))
    assert str(best.candidate) in first
    assert "250.0" in first
    assert "40.0%" in first
    assert "3.25" in first
    assert "dominated" in text or "was used up" in text
    content = search_as_json(found)
    assert content["flags"] == best.candidate.flags
    assert content["step_seconds"] == 0.25
    assert len(content["search"]) == len(found.trials)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"seconds": 0}, "--search-minutes"), ({"compiles": 0}, "--search-compiles")],
)
def test_budgets_of_nothing_are_refused(changes, word):
    with pytest.raises(ConfigError, match=word):
        Budget(**{"seconds": 60, "compiles": 3} | changes)


def test_auto_and_the_layout_of_the_config_do_not_narrow_the_search():
    wide = trials_of_big_batch()
    narrow = rough_trials(big_batch(mesh={"data": 2, "fsdp": 4}), topology())
    assert {x.candidate for x in wide} == {x.candidate for x in narrow}
