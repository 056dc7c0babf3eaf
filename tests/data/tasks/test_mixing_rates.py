"""Rules of mixing rates against hand calculations, seqio's own function and the papers."""

import math

import pytest

from t5jax.data.tasks.rates import (
    Custom,
    Equal,
    LanguageAlpha,
    Proportional,
    Scheduled,
    UniMax,
    changes,
)
from t5jax.errors import ConfigError

SIZES = {"small": 120, "large": 90_000, "empty": 0, "middle": 2_500}


def test_every_rule_keeps_order_and_gives_nothing_to_empty_tasks():
    rules = [
        Proportional(),
        Proportional(maximum=1000, temperature=2),
        Equal(),
        Custom(weights={"small": 3, "empty": 5}, others=Equal()),
        LanguageAlpha(alpha=0.0),
        LanguageAlpha(alpha=0.3),
        UniMax(budget=100_000, max_epochs=4),
        Scheduled(stages=((0, Equal()), (5, Proportional()))),
    ]
    for rule in rules:
        rates = rule.rates(SIZES, 7)
        assert list(rates) == list(SIZES)
        assert rates["empty"] == 0.0
        assert all(rates[name] > 0 for name in ("small", "large", "middle"))


def test_proportional_scales_then_caps_then_takes_the_root():
    assert Proportional().rates(SIZES) == SIZES
    assert Proportional(maximum=2_000).rates(SIZES) == {
        "small": 120,
        "large": 2_000,
        "empty": 0,
        "middle": 2_000,
    }
    rates = Proportional(scale=0.5, maximum=1_000, temperature=2).rates(SIZES)
    assert rates == pytest.approx(
        {"small": math.sqrt(60), "large": math.sqrt(1000), "empty": 0, "middle": math.sqrt(1000)}
    )


@pytest.mark.parametrize(
    ("maximum", "scale", "temperature"), [(None, 1.0, 1.0), (2**11, 1.0, 4.0), (777, 0.31, 8.0)]
)
def test_proportional_equals_seqios(maximum, scale, temperature):
    from t5jax.data.tensorflow_import import import_seqio

    seqio = import_seqio()

    class Task:
        cache_dir = None

        def __init__(self, name, size):
            self.name, self.size = name, size

        def num_input_examples(self, split):
            return self.size

    rule = Proportional(maximum=maximum, scale=scale, temperature=temperature)
    for name, rate in rule.rates(SIZES).items():
        expected = seqio.mixing_rate_num_examples(
            Task(name, SIZES[name]), maximum=maximum, scale=scale, temperature=temperature
        )
        assert rate == expected


def test_custom_names_unknown_tasks():
    rule = Custom(weights={"small": 2, "large": 0.5}, others=Proportional(maximum=100))
    assert rule.rates(SIZES) == {"small": 2, "large": 0.5, "empty": 0, "middle": 100}
    with pytest.raises(ConfigError, match="middle"):
        Custom(weights={"small": 1, "large": 1, "empty": 0}).rates(SIZES)
    with pytest.raises(ConfigError, match="misspelt"):
        Custom(weights={"misspelt": 1}, others=Equal()).rates(SIZES)
    with pytest.raises(ConfigError, match="-1"):
        Custom(weights={"small": -1})


def test_alpha_of_languages():
    rates = LanguageAlpha(alpha=0.3).rates({"en": 10**9, "sw": 10**6})
    assert rates["en"] / rates["sw"] == pytest.approx(10**0.9)
    assert LanguageAlpha(alpha=1.0).rates(SIZES) == SIZES


def test_unimax_by_hand():
    # Budget 100 over sizes 2, 10, 50, 1000, at most 3 epochs: 25 each, but the smallest has only
    # 6; 94 / 3 = 31.33, but the next has only 30; the rest, 64, is halved: 32 each (<= 150, 3000).
    sizes = {"d": 1000, "b": 10, "a": 2, "c": 50}
    rates = UniMax(budget=100, max_epochs=3).rates(sizes)
    assert rates == pytest.approx({"d": 32, "b": 30, "a": 6, "c": 32})
    assert list(rates) == list(sizes)
    # Plenty of text: all alike. Too large a budget: all of everything.
    assert set(UniMax(budget=4, max_epochs=3).rates(sizes).values()) == {1.0}
    everything = UniMax(budget=10**6, max_epochs=3).rates(sizes)
    assert everything == {name: 3 * size for name, size in sizes.items()}


def test_schedule_changes_at_its_steps():
    warm = Scheduled(stages=((0, Equal()), (100, Proportional()), (250, Proportional(maximum=9))))
    for step, rule in [(0, Equal()), (99, Equal()), (100, Proportional()), (249, Proportional())]:
        assert warm.rates(SIZES, step) == rule.rates(SIZES)
    assert warm.rates(SIZES, 10**9)["large"] == 9
    assert changes(warm) == {0, 100, 250}
    inner = Scheduled(stages=((0, Equal()), (40, Proportional()), (120, Equal())))
    assert changes(Scheduled(stages=((0, inner), (100, warm)))) == {0, 40, 100, 250}
    assert changes(Custom(weights={}, others=inner)) == {0, 40, 120}
    assert changes(Equal()) == {0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Proportional(maximum=0),
        lambda: Proportional(temperature=0),
        lambda: Proportional(scale=-1),
        lambda: LanguageAlpha(alpha=1.5),
        lambda: UniMax(budget=0),
        lambda: Scheduled(stages=()),
        lambda: Scheduled(stages=((1, Equal()),)),
        lambda: Scheduled(stages=((0, Equal()), (0, Equal()))),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ConfigError):
        make()
