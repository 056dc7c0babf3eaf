"""A trace of some steps: which, where it lies, and that a run that ends early leaves one."""

import jax
import jax.numpy as jnp
import pytest

from t5jax.errors import ConfigError
from t5jax.tracking import Tracker, TrackingConfig, read_metrics


def run(workdir, profile_steps, num_steps=5, first=1):
    """The results of small steps."""
    config = TrackingConfig(
        progress="off", tensorboard=False, plot=False, profile_steps=profile_steps
    )
    step_fn = jax.jit(lambda x: x * 3 + 1)
    x, found = jnp.float32(0.1), []
    with Tracker(workdir, config, num_train_steps=7, is_primary=True) as tracker:
        for step in range(first, num_steps + 1):
            with tracker.profiled(step):
                x = step_fn(x)
            tracker.end_profile(step, {"x": x})
            found.append(float(x).hex())
    return found


def test_a_trace_of_the_named_steps_is_written_and_changes_nothing(tmp_path):
    traced = run(tmp_path, "2:3")
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    text = trace.read_bytes()
    assert text.count(b"step_num") >= 1
    assert b"train" in text
    (event,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (event["kind"], event["step"]) == ("profiled", 3)
    assert event["folder"] == str(tmp_path / "profile")
    assert traced == run(tmp_path / "plain", None)
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_run_that_begins_and_ends_among_them_writes_what_there_was(tmp_path):
    run(tmp_path, "2:6", num_steps=4, first=3)
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
    run(tmp_path / "later", "2:3", first=4)
    assert not (tmp_path / "later" / "profile").exists()


@pytest.mark.parametrize("value", ["", "3", "0:2", "5:4", "a:b", "1:2:3", "-1:2", "1:", "１:２"])
def test_what_names_no_steps_is_refused(value):
    with pytest.raises(ConfigError, match=r"tracking\.profile_steps = .* must be FIRST:LAST"):
        TrackingConfig(profile_steps=value)


def test_steps_that_the_run_does_not_take_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'8:9': the run has train\.num_train_steps = 7"):
        run(tmp_path, "8:9")
