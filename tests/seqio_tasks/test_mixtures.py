"""Rates of seqio's mixtures: those of t5jax, with the sizes that seqio's tasks have."""

import pytest

from t5jax.data import registry
from t5jax.data.benchmarks.mixtures import MIXTURES
from t5jax.data.config import DataConfig
from t5jax.data.registry import add_mixture, add_task
from t5jax.data.tasks import (
    Custom,
    Equal,
    LanguageAlpha,
    Mixture,
    Proportional,
    Scheduled,
    UniMax,
)
from t5jax.data.tasks.mixture import shares
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from t5jax.seqio_tasks import register
from tests.seqio_tasks.small_tasks import small_task

BYTES = ByteVocabulary(extra_ids=30)
DATA = DataConfig(mixture="any", vocabulary=BYTES, cache_dir=None)
C4 = 364_613_570


def shares_of(mixture) -> dict[str, float]:
    """By task, with a total of 1, of what a seqio mixture trains on."""
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks if "train" in task.splits}
    total = sum(rates.values())
    return {name: rate / total for name, rate in rates.items() if rate}


@pytest.fixture
def c4_size(monkeypatch):
    """TFDS's number of C4's examples."""
    from t5jax.data.sources import Tfds

    monkeypatch.setattr(Tfds, "num_records", lambda self, split: C4)


def test_every_mixture_of_the_paper_has_its_rates(seqio, c4_size):
    register(list(MIXTURES), vocabulary=BYTES)
    for name, mixture in MIXTURES.items():
        tasks = {task.name: task for task in registry.definitions_of(name, DATA).tasks}
        sizes = {
            name: (getattr(task, "num_examples", C4) or 0) if "train" in task.splits else 0
            for name, task in tasks.items()
        }
        found = shares_of(seqio.MixtureRegistry.get(name))
        assert found == pytest.approx(shares(mixture, sizes)), name
        assert len(found) > 1 or name == "glue_mnli_and_dev_v002"


def test_rates_that_do_not_depend_on_unknown_sizes_are_numbers(seqio):
    register(["glue_v002_proportional", "c4:ul2", "all_equal"], vocabulary=BYTES)
    rates = seqio.MixtureRegistry.get("glue_v002_proportional").rate_per_task_name
    assert rates["glue_cola_v002"] == 8551.0
    assert rates["glue_ax_v002"] == 0.0
    ul2 = seqio.MixtureRegistry.get("c4:ul2").rate_per_task_name
    assert ul2["c4:ul2_s_prefix_lm_25"] == 0.2
    equal = seqio.MixtureRegistry.get("all_equal").rate_per_task_name
    assert set(equal.values()) == {1.0}, "those of evaluation too, for a validation split"


def own(rate, tasks=("so_a", "so_b", "so_c"), name="so_mix") -> Mixture:
    for task, size in (("so_a", 100), ("so_b", 700), ("so_c", 20_000)):
        add_task(small_task(task, num_examples=size))
    return add_mixture(Mixture(name=name, tasks=tasks, rate=rate))


SIZES = {"so_a": 100, "so_b": 700, "so_c": 20_000}


@pytest.mark.parametrize(
    "rate",
    [
        Proportional(maximum=1000.0, temperature=2.0),
        Custom(weights={"so_b": 5.0}, others=Proportional(scale=0.5)),
        LanguageAlpha(),
        UniMax(budget=1500.0, max_epochs=2.0),
        Equal(),
    ],
)
def test_every_rule_of_rates(seqio, rate):
    mixture = own(rate)
    register(["so_mix"], vocabulary=BYTES)
    found = shares_of(seqio.MixtureRegistry.get("so_mix"))
    assert found == pytest.approx(shares(mixture, SIZES))


def test_a_mixture_inside_keeps_its_ratios(seqio):
    inner = own(Proportional(), tasks=("so_a", "so_b"), name="so_inner")
    outer = own(Custom(weights={"so_inner": 3.0, "so_c": 1.0}), ("so_inner", "so_c"), "so_outer")
    register(["so_outer"], vocabulary=BYTES)
    found = shares_of(seqio.MixtureRegistry.get("so_outer"))
    assert found == pytest.approx(shares(outer, SIZES, mixtures={"so_inner": inner}))
    assert found == pytest.approx({"so_a": 0.75 / 8, "so_b": 0.75 * 7 / 8, "so_c": 0.25})


def test_an_unknown_size_is_named(seqio, tmp_path):
    add_task(small_task("so_unsized"))
    own(Proportional(), ("so_a", "so_unsized"))
    register(["so_mix"], vocabulary=BYTES)
    mixture = seqio.MixtureRegistry.get("so_mix")
    with pytest.raises(ConfigError, match="training examples of so_unsized, which its source"):
        mixture.get_rate(mixture.tasks[0])


def test_rates_that_change_need_a_step(seqio):
    late = Custom(weights={"so_a": 1.0, "so_b": 0.0, "so_c": 3.0})
    own(Scheduled(stages=((0, Equal()), (1000, late))))
    register(["so_mix"], vocabulary=BYTES)
    mixture = seqio.MixtureRegistry.get("so_mix")
    with pytest.raises(ConfigError, match=r"other rates from training steps 1000 on.*step=N"):
        mixture.get_rate(mixture.tasks[0])
    register(["so_mix"], vocabulary=BYTES, step=1200)
    assert shares_of(seqio.MixtureRegistry.get("so_mix")) == {"so_a": 0.25, "so_c": 0.75}
