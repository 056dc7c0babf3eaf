"""Schedules against their formulas in plain Python, and settings that cannot be."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.errors import ConfigError
from t5jax.training.schedules import (
    Constant,
    Cosine,
    HostSchedule,
    Linear,
    Rsqrt,
    WarmupStableDecay,
)

RATE = 0.3
RUN = 97  # training steps
WARMUP = 11
# First, inside and at the edge of the warm-up, middle, decay, last update, end, beyond.
STEPS = (0, 1, 10, 11, 12, 53, 80, 96, 97, 150)


def clip01(x):
    return min(1.0, max(0.0, x))


def ramp(step, start=0.0):
    return start + (1 - start) * min(1.0, step / WARMUP)


FORMULAS = [
    (Constant(), lambda s: RATE),
    (Constant(warmup_steps=WARMUP), lambda s: RATE * ramp(s)),
    (Rsqrt(warmup_steps=WARMUP), lambda s: RATE / math.sqrt(max(s, WARMUP))),
    (
        Rsqrt(warmup_steps=WARMUP, linear_warmup=True, decay_fraction=0.2),
        lambda s: RATE / math.sqrt(max(s, WARMUP)) * ramp(s) * clip01((RUN - s) / (RUN * 0.2)),
    ),
    (
        Linear(warmup_steps=WARMUP, final_fraction=0.1),
        lambda s: RATE * ramp(s) * (0.1 + 0.9 * clip01((RUN - s) / (RUN - WARMUP))),
    ),
    (
        Cosine(warmup_steps=WARMUP, initial_fraction=0.5, final_fraction=0.05),
        lambda s: (
            RATE * ramp(s, 0.5)
            if s < WARMUP
            else RATE
            * (0.05 + 0.95 * (1 + math.cos(math.pi * clip01((s - WARMUP) / (RUN - WARMUP)))) / 2)
        ),
    ),
    (
        WarmupStableDecay(warmup_steps=WARMUP, decay_fraction=0.25, final_fraction=0.1),
        lambda s: RATE * ramp(s) * (0.1 + 0.9 * clip01((RUN - s) / (RUN * 0.25))),
    ),
    (
        WarmupStableDecay(warmup_steps=WARMUP, decay_fraction=0.25, shape="sqrt"),
        lambda s: RATE * ramp(s) * (1 - math.sqrt(1 - clip01((RUN - s) / (RUN * 0.25)))),
    ),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS)
def test_schedule_follows_its_formula(schedule, formula):
    rates = jax.vmap(jax.jit(schedule.build(RATE, RUN)))(jnp.array(STEPS, jnp.int32))
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates, [formula(s) for s in STEPS], rtol=1e-6, atol=1e-7 * RATE)


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS)
def test_schedule_takes_all_steps_of_a_run_at_once(schedule, formula):
    """The loop asks for the rates before it begins, so that it need not ask between steps."""
    rates = np.broadcast_to(schedule.build(RATE, RUN)(np.arange(RUN, dtype=np.int32)), RUN)
    expected = [formula(s) for s in range(RUN)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-7 * RATE)


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS)
def test_schedule_takes_python_integers_and_int32_scalars(schedule, formula):
    rate = schedule.build(RATE, RUN)
    for step in (3, jnp.int32(3), np.int64(3)):
        assert rate(step).shape == ()
        assert rate(step).dtype == jnp.float32
        assert float(rate(step)) == pytest.approx(formula(3), rel=1e-6)


def test_t5_pretraining_rates():
    rate = Rsqrt().build(1.0, 524_288)
    steps = (0, 9_999, 10_000, 40_000, 524_287)
    expected = (0.01, 0.01, 0.01, 0.005, 1 / math.sqrt(524_287))
    np.testing.assert_allclose([rate(s) for s in steps], expected, rtol=1e-6)


def test_nanot5_rates():
    """torch: LinearLR(start_factor=0.5, total_iters=10000), CosineAnnealingLR(eta_min=1e-5)."""
    schedule = Cosine(warmup_steps=10_000, initial_fraction=0.5, final_fraction=5e-4)
    rate = schedule.build(2e-2, 65_536)
    middle = 10_000 + (65_536 - 10_000) // 2
    expected = {0: 1e-2, 5_000: 1.5e-2, 10_000: 2e-2, middle: (2e-2 + 1e-5) / 2, 65_536: 1e-5}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, rel=1e-5)


def test_warmup_as_long_as_the_run_reaches_the_rate_at_its_end():
    for schedule in (Constant, Linear, Cosine):
        rate = schedule(warmup_steps=RUN).build(RATE, RUN)
        np.testing.assert_allclose([rate(0), rate(RUN - 1)], [0, RATE * 96 / 97], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(warmup_steps=-1), "Constant.warmup_steps is -1"),
        (lambda: Constant(initial_fraction=0.5), "no warm-up"),
        (lambda: Rsqrt(warmup_steps=0), "Rsqrt.warmup_steps is 0"),
        (lambda: Rsqrt(decay_fraction=1.5), "Rsqrt.decay_fraction is 1.5"),
        (lambda: Linear(final_fraction=-0.1), "Linear.final_fraction is -0.1"),
        (lambda: Cosine(warmup_steps=5, initial_fraction=2.0), "Cosine.initial_fraction is 2.0"),
        (lambda: Cosine(final_fraction=math.nan), "Cosine.final_fraction is nan"),
        (lambda: WarmupStableDecay(decay_fraction=0.0), "nothing decays"),
        (lambda: WarmupStableDecay(shape="cubic"), "'cubic'"),  # type: ignore[arg-type]
        (lambda: Linear(warmup_steps=98).build(RATE, RUN), "longer than the run of 97"),
        (lambda: Rsqrt(linear_warmup=True).build(RATE, RUN), "longer than the run of 97"),
        (
            lambda: WarmupStableDecay(warmup_steps=80, decay_fraction=0.2).build(RATE, RUN),
            "do not fit into 97",
        ),
        (lambda: Constant().build(-0.1, RUN), "learning_rate is -0.1"),
        (lambda: Constant().build(math.inf, RUN), "learning_rate is inf"),
        (lambda: Constant().build(RATE, 0), "num_train_steps is 0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_fields_changed_after_construction_are_checked_by_build():
    schedule = Cosine()
    schedule.final_fraction = 3.0
    with pytest.raises(ConfigError, match=r"final_fraction is 3\.0"):
        schedule.build(RATE, RUN)
    with pytest.raises(ConfigError):
        dataclasses.replace(schedule)


@pytest.mark.parametrize("first", [0, 7, 8, 39])
def test_host_schedule_equals_the_schedule(monkeypatch, first):
    """Block after block, whichever step is first; no more is asked than the next block."""
    monkeypatch.setattr(HostSchedule, "BLOCK_STEPS", 8)
    schedule, asked = Cosine(warmup_steps=WARMUP).build(RATE, RUN), []
    rates = HostSchedule(lambda step: (asked.append(step), schedule(step))[1], first)
    for step in range(first, RUN):
        assert rates(step) == rates(step)
        assert rates(step) == pytest.approx(float(schedule(step)), rel=1e-6, abs=1e-9)
        assert step < asked[-1][0] <= step + 8
    assert [len(steps) for steps in asked] == [8] * len(asked)
