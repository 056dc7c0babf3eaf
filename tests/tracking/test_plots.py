"""The loss curve: drawn at any stage of a run, with something to see on it."""

import math
import random

import matplotlib.image
import numpy as np
import pytest

from t5jax.tracking import Tracker, TrackingConfig
from t5jax.tracking.plots import plot_run, running_mean, smooth, thin


def record_run(workdir, steps, loss=lambda step: 3 + 7 * math.exp(-step / 40)):
    rng = random.Random(11)
    config = TrackingConfig(tensorboard=False, progress="off", plot=False)
    with Tracker(workdir, config, num_train_steps=1000, is_primary=True) as tracker:
        for step in range(1, steps + 1):
            value = loss(step) + rng.gauss(0, 0.1)
            metrics = {"train/loss": value, "train/text_loss": value - 0.3}
            metrics["train/learning_rate"] = 0.01 / step
            tracker.train(step, metrics)
            if step % 25 == 0:
                tracker.evaluation(step, "validation", {"loss": value + 0.2})


def pixels_of(png, hex_colour):
    """How many pixels have that colour, or nearly."""
    pixels = matplotlib.image.imread(png)[..., :3] * 255
    wanted = [int(hex_colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (np.abs(pixels - wanted) < 12).all(axis=-1).sum()


def test_the_curve_shows_losses_evaluations_and_learning_rate(tmp_path):
    record_run(tmp_path, 120)
    png = plot_run(tmp_path)
    assert png == tmp_path / "loss.png"
    image = matplotlib.image.imread(png)
    assert image.shape[:2] == (672, 1200)
    faint = "#ccd8e8"  # training loss of every step: a quarter of the colour on white
    for drawn, least in (("#3465a4", 800), ("#c4622d", 800), ("#2e7d32", 50), (faint, 500)):
        assert pixels_of(png, drawn) > least, f"too little is drawn in {drawn}"
    assert not list(tmp_path.glob("*.part"))


def test_the_picture_changes_with_the_run(tmp_path):
    record_run(tmp_path, 50)
    before = matplotlib.image.imread(plot_run(tmp_path))
    record_run(tmp_path, 50, loss=lambda step: 9.0 - 0.1 * step)
    after = matplotlib.image.imread(plot_run(tmp_path))
    assert (before != after).any(axis=-1).mean() > 0.005


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_few_steps_can_be_drawn(tmp_path, steps):
    record_run(tmp_path, steps)
    assert pixels_of(plot_run(tmp_path), "#3465a4") > 40


@pytest.mark.slow
def test_steps_that_are_not_finite_do_not_spoil_the_picture(tmp_path):
    bad = {7: math.nan, 8: math.inf}
    record_run(tmp_path, 60, loss=lambda step: bad.get(step, 3.0 + 1 / step))
    assert pixels_of(plot_run(tmp_path), "#3465a4") > 40
    everywhere = tmp_path / "nan"
    record_run(everywhere, 3, loss=lambda step: math.nan)
    assert plot_run(everywhere) == everywhere / "loss.png"


def test_before_the_first_step_there_is_nothing_to_draw(tmp_path):
    config = TrackingConfig(tensorboard=False, progress="off")
    with Tracker(tmp_path, config, num_train_steps=5, is_primary=True) as tracker:
        tracker.event(0, "started")
    assert plot_run(tmp_path) is None
    assert not (tmp_path / "loss.png").exists()


def test_drawing_leaves_pyplot_alone(tmp_path):
    import matplotlib.pyplot as plt

    record_run(tmp_path, 5)
    backend = matplotlib.get_backend()
    plot_run(tmp_path)
    assert plt.get_fignums() == []
    assert matplotlib.get_backend() == backend


def test_running_mean_is_the_mean_of_the_finite_neighbours():
    values = np.array([4.0, 8.0, np.nan, 2.0, np.inf, 6.0, 1.0])
    for window in (1, 2, 3, 5):
        before, after = (window - 1) // 2, window // 2
        expected = []
        for place in range(len(values)):
            around = values[max(0, place - before) : place + after + 1]
            around = around[np.isfinite(around)]
            expected.append(around.mean() if len(around) else np.nan)
        np.testing.assert_allclose(running_mean(values, window), expected)
    np.testing.assert_allclose(smooth(np.full(9, 2.5), 4), 2.5)


def test_thinning_keeps_order_and_extremes():
    values = np.sin(np.arange(100_003) / 999)
    values[51_234], values[70_001] = 40.0, -40.0
    steps, thinned = thin(np.arange(1, 100_004), values, bins=150)
    assert len(steps) <= 300
    assert (np.diff(steps) > 0).all()
    assert thinned[steps == 51_235] == 40.0
    assert thinned[steps == 70_002] == -40.0
    np.testing.assert_array_equal(thinned, values[steps - 1])
    few = np.arange(5.0)
    assert thin(np.arange(5), few, bins=150)[1] is few
