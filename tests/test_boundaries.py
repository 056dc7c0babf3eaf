"""Every place where a run calls code of a user's module: whatever is raised there is one line that
names the class, file and line; requests to stop pass; a tracker does not end the run."""

import dataclasses
import functools
import json
import re
import warnings
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5jax.config import RunConfig, TrainConfig
from t5jax.config.overrides import load_config
from t5jax.config.serialization import from_text, to_text
from t5jax.data.config import DataConfig
from t5jax.data.modules import load_modules
from t5jax.data.objectives import Objective, SpanCorruption
from t5jax.data.objectives.base import lengths_of, objective_code
from t5jax.data.objectives.named import parse_objective
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.decode_state import apply_logits_processors
from t5jax.errors import ConfigError, DataError
from t5jax.model.config import T5Config
from t5jax.runtime.exits import exit_code
from t5jax.tracking import Tracker, TrackingConfig
from t5jax.training.losses import call_loss, divisor_of
from t5jax.training.optimizers import AdamW, build_transformation, learning_rates_of
from t5jax.training.schedules import build_schedule
from tests.raising import EXCEPTIONS

RAISED = {"error": None}  # what the classes below raise; a config holds no exceptions


def fails(*_, **__):
    raise RAISED["error"]


def of(error):
    RAISED["error"] = error


@dataclasses.dataclass(kw_only=True)
class OwnSchedule:
    at_once: bool = True

    def build(self, learning_rate, num_train_steps):
        return fails() if self.at_once else fails


@dataclasses.dataclass(kw_only=True)
class OwnOptimizer:
    part: str = "build"

    def build(self, num_train_steps):
        if self.part == "build":
            fails()
        good = optax.sgd(0.1)
        return optax.GradientTransformation(
            fails if self.part == "init" else good.init,
            fails if self.part == "update" else good.update,
        )

    def learning_rate_at(self, num_train_steps):
        return fails() if self.part == "rate at once" else fails


@dataclasses.dataclass(kw_only=True)
class OwnLoss:
    def __call__(self, model, batch, keys_B):
        fails()

    def divisor(self, denominator):
        fails()


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnObjective(Objective):
    name: ClassVar[str] = "own"
    documents_end_with_eos: ClassVar[bool] = False
    packs: ClassVar[bool] = False
    lengths = check = apply = fails


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefusingObjective(OwnObjective):
    def __post_init__(self):
        fails()


@dataclasses.dataclass(kw_only=True)
class RefusingLoss(OwnLoss):
    def __post_init__(self):
        if RAISED["error"] is not None:
            fails()


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnProcessor:
    def __call__(self, scores_BKV, tokens_BKT, index):
        fails()


@dataclasses.dataclass(kw_only=True)
class OwnTracker:
    part: str = "build"

    def build(self, workdir):
        if self.part == "build":
            fails()
        writer = Silent()
        setattr(writer, self.part, fails)
        return writer


class Silent:
    """A writer that keeps nothing."""

    def __init__(self):
        self.scalars = self.restart = self.close = lambda *_: None


def updated(part):
    tx = build_transformation(OwnOptimizer(part=part), 5)
    params = {"kernel": jnp.ones((3, 2))}
    return jax.jit(lambda: tx.update(params, tx.init(params), params))()


def processed(process):
    decoder = type("Decoder", (), {"eos_id": 1, "history": staticmethod(lambda tokens: tokens)})
    config = DecodingConfig(logits_processors=(process,))
    scores, tokens = jnp.zeros((2, 1, 7)), jnp.zeros((2, 1, 5), jnp.int32)
    return apply_logits_processors(scores, tokens, jnp.int32(1), config, decoder, None)


def objective_applied():
    with objective_code(OwnObjective(), "rows 0 to 3", DataError):
        OwnObjective().apply(None, None, 0, None)


def saved_and_opened(error):
    of(None)
    run = RunConfig(
        workdir="x",
        model=T5Config(vocab_size=384, emb_dim=6, num_heads=2, head_dim=3, mlp_dim=5),
        data=DataConfig(
            mixture="own", vocabulary=ByteVocabulary(), inputs_length=9, cache_dir=None
        ),
        train=TrainConfig(num_train_steps=3, batch_size=2),
        loss=RefusingLoss(),
    )
    text = to_text(run)
    of(error)
    return from_text(text)


def tracked(tmp_path, tracker, **settings):
    config = TrackingConfig(
        trackers=(tracker,), progress="lines", tensorboard=False, plot=False, **settings
    )
    return Tracker(tmp_path, config, num_train_steps=9, is_primary=True)


# name: (what is called with a folder and the exception, what the message names)
BOUNDARIES = {
    "schedule": (lambda *_: build_schedule(OwnSchedule(), 0.1, 5), "schedule OwnSchedule"),
    "rate": (lambda *_: build_schedule(OwnSchedule(at_once=False), 0.1, 5)(2), "OwnSchedule"),
    "rate of AdamW": (
        lambda *_: AdamW(schedule=OwnSchedule()).build(5),
        "schedule OwnSchedule",
    ),
    "optimizer": (lambda *_: updated("build"), "optimizer OwnOptimizer"),
    "optimizer.init": (lambda *_: updated("init"), "optimizer OwnOptimizer"),
    "optimizer.update": (lambda *_: updated("update"), "optimizer OwnOptimizer"),
    "learning rates": (
        lambda *_: learning_rates_of(OwnOptimizer(part="rate at once"), 5),
        "optimizer OwnOptimizer",
    ),
    "a learning rate": (lambda *_: learning_rates_of(OwnOptimizer(), 5)(1), "OwnOptimizer"),
    "loss": (lambda *_: call_loss(OwnLoss(), None, {}, None), "loss OwnLoss"),
    "a function as loss": (lambda *_: call_loss(fails, None, {}, None), "loss fails"),
    "a partial as loss": (
        lambda *_: call_loss(functools.partial(fails, 3), None, {}, None),
        "loss fails",
    ),
    "divisor": (lambda *_: divisor_of(OwnLoss(), jnp.float32(3)), "loss OwnLoss"),
    "objective": (
        lambda *_: parse_objective(f"{__name__}.RefusingObjective()"),
        "RefusingObjective",
    ),
    "objective.lengths": (lambda *_: lengths_of(OwnObjective(), 9), "objective OwnObjective"),
    "logits processor": (lambda *_: processed(OwnProcessor()), "logits processor OwnProcessor"),
    "a saved class": (lambda _, error: saved_and_opened(error), "class RefusingLoss"),
    "tracker": (lambda folder, _: tracked(folder, OwnTracker()), "tracker OwnTracker"),
}


@pytest.mark.parametrize("name", EXCEPTIONS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_what_a_users_code_raises_is_one_line(tmp_path, boundary, name):
    call, named = BOUNDARIES[boundary]
    check_one_line(lambda: call(tmp_path, RAISED["error"]), EXCEPTIONS[name](), name, named)


def check_one_line(call, error, name, named):
    of(error)
    with pytest.raises(ConfigError) as raised:
        call()
    (line,) = str(raised.value).splitlines()
    *kind, who = named.split(" ")
    assert f"{name} in " in line
    assert f"{' '.join(['the', *kind, '']) if kind else ''}" in line
    assert who in line
    assert "(test_boundaries.py, line " in line
    assert line.isprintable()
    assert exit_code(raised.value) == 64


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=type)
def test_requests_to_stop_pass_every_boundary(tmp_path, boundary, error):
    of(error)
    with pytest.raises(type(error)) as raised:
        BOUNDARIES[boundary][0](tmp_path, error)
    assert raised.value is error


def test_groups_of_exceptions_and_warnings_turned_errors_are_named():
    group = ExceptionGroup("two of three", [ValueError("a"), KeyError("b")])
    call = lambda: call_loss(fails, None, {}, None)
    check_one_line(call, group, "ExceptionGroup", "loss fails")

    def warns(*_):
        warnings.warn("overflow in cast", RuntimeWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="RuntimeWarning in the loss"):
            call_loss(warns, None, {}, None)


def test_an_objective_that_fails_on_rows_is_bad_data_with_its_rows():
    of(ZeroDivisionError("division by zero"))
    with pytest.raises(DataError, match=r"^rows 0 to 3: ZeroDivisionError in the objective"):
        objective_applied()


def test_t5jaxs_own_code_has_no_boundary():
    with pytest.raises(ZeroDivisionError), objective_code(SpanCorruption()):
        raise ZeroDivisionError


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_a_module_that_fails_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(tmp_path)
    for kind in ("module", "config"):
        lines = ["from tests.raising import raises", "", f"raises({name!r})"]
        (tmp_path / f"own_{kind}_{name}.py").write_text("\n".join(lines))
    for call, place in (
        (lambda: load_modules((f"own_module_{name}",)), f"own_module_{name}.py, line 3"),
        (
            lambda: load_config(str(tmp_path / f"own_config_{name}.py"), []),
            f"own_config_{name}.py, line 3",
        ),
    ):
        with pytest.raises(ConfigError) as raised:
            call()
        (line,) = str(raised.value).splitlines()
        assert name in line
        assert place in line


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (0.5, "returned float: t5jax.training.losses.LossSums is expected"),
        (None, "returned NoneType"),
        ((1.0, 2.0), "returned tuple"),
    ],
)
def test_a_loss_that_returns_no_sums_is_refused(returned, said):
    with pytest.raises(ConfigError, match=r"the loss .*<lambda> returned") as raised:
        call_loss(lambda *_: returned, None, {}, None)
    assert said in str(raised.value)


def test_an_optimizer_that_builds_none_is_refused():
    own = dataclasses.make_dataclass("Own", [])
    own.build = lambda self, num_train_steps: 0.1
    with pytest.raises(ConfigError, match=r"Own.build returned float: an\s+optax"):
        build_transformation(own(), 5)


def test_a_guarded_optimizer_is_the_same_transformation():
    @dataclasses.dataclass
    class Own:
        def build(self, num_train_steps):
            return optax.adam(0.1)

    params = {"a": jnp.arange(3.0)}
    ours, theirs = build_transformation(Own(), 5), optax.adam(0.1)
    found, _ = ours.update(params, ours.init(params), params)
    expected, _ = theirs.update(params, theirs.init(params), params)
    np.testing.assert_array_equal(found["a"], expected["a"])
    assert isinstance(ours, optax.GradientTransformationExtraArgs) == isinstance(
        theirs, optax.GradientTransformationExtraArgs
    )


# ---- trackers


@pytest.mark.parametrize("name", [*EXCEPTIONS, "ConnectionError"])
@pytest.mark.parametrize("part", ["scalars", "restart", "close"])
def test_a_tracker_that_fails_is_said_and_recorded_and_the_run_goes_on(tmp_path, capfd, part, name):
    of(ConnectionError("no route to host") if name == "ConnectionError" else EXCEPTIONS[name]())
    with tracked(tmp_path, OwnTracker(part=part)) as tracker:
        tracker.event(2, "resumed")
        for step in (3, 4, 5):
            tracker.train(step, {"train/loss": 0.5})
        tracker.event(5, "finished")
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in records if x["kind"] == "train"] == [3, 4, 5]
    failed = [x for x in records if x["kind"] == "tracker_failed"]
    first = failed[0]["error"]
    assert first.startswith(f"{name} in the tracker {__name__}.OwnTracker")
    assert re.search(r"\(test_boundaries.py, line \d+\); the run goes on$", first)
    assert len(failed) == (2 if part == "scalars" else 1)
    if part == "scalars":
        assert failed[1]["error"].endswith(
            "OwnTracker: 3 of 5 calls failed; metrics.jsonl has what is missing"
        )
    assert first[:60] in capfd.readouterr().err


def test_a_tracker_that_comes_back_is_said_again_when_it_fails_again(tmp_path):
    @dataclasses.dataclass
    class Flaky:
        def build(self, workdir):
            writer = Silent()
            writer.scalars = lambda step, values: fails() if step in (2, 3, 6) else None
            return writer

    of(TimeoutError("timed out"))
    with tracked(tmp_path, Flaky()) as tracker:
        for step in range(1, 8):
            tracker.train(step, {"train/loss": 0.5})
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    failed = [(x["step"], x["error"]) for x in records if x["kind"] == "tracker_failed"]
    assert [step for step, _ in failed] == [2, 6, 7]
    assert "3 of 8 calls failed" in failed[2][1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=type)
def test_requests_to_stop_pass_a_tracker(tmp_path, error):
    of(error)
    tracker = tracked(tmp_path, OwnTracker(part="scalars"))
    with pytest.raises(type(error)):
        tracker.train(1, {"train/loss": 0.5})


def test_a_tracker_that_changes_its_values_changes_no_others(tmp_path):
    seen = []

    @dataclasses.dataclass
    class Greedy:
        def build(self, workdir):
            writer = Silent()
            writer.scalars = lambda step, values: (seen.append(dict(values)), values.clear())
            return writer

    config = TrackingConfig(
        trackers=(Greedy(), Greedy()), progress="off", tensorboard=False, plot=False
    )
    with Tracker(tmp_path, config, num_train_steps=9, is_primary=True) as tracker:
        tracker.train(1, {"train/loss": 0.5})
    assert seen == [{"train/loss": 0.5}] * 2


def test_a_tracker_that_builds_no_writer_is_refused(tmp_path):
    @dataclasses.dataclass
    class Own:
        def build(self, workdir):
            return print

    with pytest.raises(ConfigError, match="builtin_function_or_method, which lacks scalars"):
        tracked(tmp_path, Own())
