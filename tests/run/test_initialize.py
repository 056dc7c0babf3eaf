"""A run that begins with another's parameters: what is taken over, what is refused and how."""

import dataclasses
import json
import pathlib
import shutil

import jax
import pytest

from t5jax.checkpoints import read_record
from t5jax.checkpoints.record import encode_record
from t5jax.cli import main
from t5jax.config import RunConfig, WarmStart, load_config, to_text
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import CheckpointError, ConfigError
from t5jax.run.build import build_program
from t5jax.run.initialize import begin
from t5jax.training.optimizers import Adafactor, AdamW
from t5jax.training.peft import LoRA
from t5jax.training.schedules import Linear
from tests.commands.saved_runs import bits, random_state, save_run
from tests.marks import slow_but

# A read that fails halfway leaves futures of Orbax and TensorStore to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def config(tiny_text) -> RunConfig:
    return load_config(str(tiny_text / "tiny.py"), ["--train.num-train-steps", "50"])


@pytest.fixture(scope="module")
def old_run(config, tmp_path_factory) -> pathlib.Path:
    return save_run(config, tmp_path_factory.mktemp("old") / "run")


def started(config: RunConfig, old_run: pathlib.Path, **init):
    config = dataclasses.replace(config, init=WarmStart(path=str(old_run), **init))
    return begin(config, build_program(config))


def test_parameters_come_from_the_newest_checkpoint_and_nothing_else(config, old_run):
    start, program = started(config, old_run), build_program(config)
    assert bits(start.state.params) == bits(random_state(program, 30).params)
    fresh = program.init(config.train.seed)
    assert bits(start.state.opt_state) == bits(fresh.opt_state)
    assert (start.step, int(start.state.step), int(start.state.bad_steps)) == (0, 0, 0)
    assert start.source == {"parameters_from": str(old_run), "of_step": 30}
    for x, y in zip(
        jax.tree.leaves(start.state), jax.tree.leaves(program.abstract_state), strict=True
    ):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


@pytest.mark.slow
def test_of_an_older_step_with_the_optimizer_and_the_count_of_steps(config, old_run):
    start = started(config, old_run, step=20, optimizer="keep", keep_step=True)
    old = random_state(build_program(config), 20)
    assert bits(start.state.params) == bits(old.params)
    assert bits(start.state.opt_state) == bits(old.opt_state)
    assert (start.step, int(start.state.step), int(start.state.bad_steps)) == (20, 20, 0)


@pytest.mark.slow
def test_with_the_optimizer_from_step_0(config, old_run):
    start = started(config, old_run, optimizer="keep")
    assert bits(start.state.opt_state) == bits(random_state(build_program(config), 30).opt_state)
    assert start.step == int(start.state.step) == 0


def test_a_damaged_checkpoint_is_passed_over(config, old_run, tmp_path):
    copy = shutil.copytree(old_run, tmp_path / "copy")
    (copy / "checkpoints/30/state/manifest.ocdbt").write_bytes(b"")
    assert started(config, copy).source["of_step"] == 20
    with pytest.raises(CheckpointError, match="checkpoint of step 30 is damaged"):
        started(config, copy, step=30)


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        ({"step": 3}, "init.step, .* no effect without init.path"),
        ({"optimizer": "keep"}, "init.optimizer .* no effect without init.path"),
        ({"path": ""}, "init.path = '': name the workdir"),
        ({"path": "x", "step": -1}, "init.step = -1: 0 or more"),
        ({"path": "x", "optimizer": "kept"}, "init.optimizer = 'kept': choose"),
        ({"path": "x", "keep_step": True}, "keep both, or neither"),
    ],
)
def test_settings_without_sense(init, reason):
    with pytest.raises(ConfigError, match=reason):
        WarmStart(**init)


@pytest.mark.parametrize("scaled", slow_but([True], [True, False]))
def test_factors_that_begin_at_zero_and_updates_relative_to_them_are_said(config, old_run, scaled):
    tune = dataclasses.replace(
        config,
        finetuning=LoRA(rank=2),
        optimizer=Adafactor(learning_rate=1e-3, multiply_by_parameter_scale=scaled),
    )
    note = started(tune, old_run).source.get("note", "")
    assert note.startswith("LoRA has matrices that begin at 0, and Adafactor's updates") == scaled
    assert ("--optimizer.multiply-by-parameter-scale False, or AdamW" in note) == scaled


def test_a_run_does_not_begin_with_itself(config):
    config = dataclasses.replace(config, init=WarmStart(path=f"{config.workdir}/../run"))
    with pytest.raises(ConfigError, match="the run's own workdir"):
        config.check()


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("model", {"emb_dim": 32}, "model.emb_dim = 32: .* has 24; set that$"),
        ("model", {"mlp_activations": ("silu", "linear")}, "model.mlp_activations = .* has .*gelu"),
        ("model", {"vocab_size": 400}, "model.vocab_size = 400: .* has 384; .* `t5jax vocab grow`"),
        (
            "data",
            {"vocabulary": ByteVocabulary(extra_ids=99)},
            r"data.vocabulary = .*99.* is not the one that .* was trained with",
        ),
        ("train", {"num_train_steps": 30}, "num_train_steps = 30, but the run begins at step 30"),
    ],
)
def test_another_model_or_vocabulary_is_refused(config, old_run, section, changes, reason):
    changed = dataclasses.replace(getattr(config, section), **changes)
    with pytest.raises(ConfigError, match=reason):
        started(
            dataclasses.replace(config, **{section: changed}),
            old_run,
            optimizer="keep",
            keep_step=True,
        )


def test_how_the_model_is_computed_may_differ(config, old_run):
    model = dataclasses.replace(config.model, dropout_rate=0.0, dtype="bfloat16", remat="full")
    assert started(dataclasses.replace(config, model=model), old_run).source["of_step"] == 30


@pytest.mark.slow
def test_another_optimizer_cannot_be_kept(config, old_run):
    other = dataclasses.replace(config, optimizer=AdamW())
    with pytest.raises(ConfigError, match=r"(?s)opt_state/.*not saved.*'keep' needs the same"):
        started(other, old_run, optimizer="keep")


@pytest.mark.slow
def test_arrays_that_do_not_fit_are_named(config, old_run, tmp_path):
    """A checkpoint whose arrays are not those of its own config."""
    other = dataclasses.replace(
        config, model=dataclasses.replace(config.model, tied_embeddings=True)
    )
    workdir = save_run(other, tmp_path / "tied", steps=(1,))
    record = read_record(workdir / "checkpoints", 1)
    record = dataclasses.replace(record, content=record.content | {"config": to_text(config)})
    path = workdir / "checkpoints/1/record/record.json"
    path.write_text(json.dumps(encode_record(record)))
    with pytest.raises(ConfigError, match=r"logits_dense: not saved, the model has float32"):
        started(config, workdir)


def test_where_there_is_no_run(config, tmp_path):
    (tmp_path / "notes.txt").write_text("no run")
    with pytest.raises(
        ConfigError, match=r"init\.path = .* holds no checkpoints: name the workdir"
    ):
        started(config, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mt5"}')
    with pytest.raises(ConfigError, match=r"init\.path = .* is a Hugging Face directory \(mt5\)"):
        started(config, tmp_path)


def records(workdir: pathlib.Path, kind: str) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.mark.slow
def test_a_schedule_that_has_ended_is_refused(tiny, old_run, tmp_path, capsys):
    text = (tiny / "tiny.py").read_text().replace("schedules import Constant", "schedules import *")
    text = text.replace("schedule=Constant()", "schedule=Linear()")
    (tmp_path / "linear.py").write_text(text)
    assert load_config(str(tmp_path / "linear.py")).optimizer.schedule == Linear()
    words = ["train", str(tmp_path / "linear.py"), "--workdir", str(tmp_path / "run")]
    words += ["--init.path", str(old_run), "--init.optimizer", "keep"]
    assert main(words) == 64
    assert "optimizer.schedule ends before update 70" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_does_not_read_the_other_again(tiny, old_run, tmp_path):
    other = shutil.copytree(old_run, tmp_path / "other")
    words = ["train", str(tiny / "tiny.py"), "--init.path", str(other), "--init.optimizer", "keep"]
    words += ["--init.keep-step", "True", "--optimizer.learning-rate", "0.001"]
    words += ["--train.eval-every-steps", "0", "--train.num-eval-rows", "None"]
    words += ["--checkpoints.save-every-steps", "3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, "--train.num-train-steps", "36", "--workdir", str(whole)]) == 0
    assert main([*words, "--train.num-train-steps", "33", "--workdir", str(parts)]) == 0
    shutil.rmtree(other)
    assert main([*words, "--train.num-train-steps", "36", "--workdir", str(parts)]) == 0
    (start,) = records(parts, "started")
    assert (start["step"], start["of_step"]) == (30, 30)
    losses = lambda run: {r["step"]: r["train/loss_hex"] for r in records(run, "train")}
    assert list(losses(whole)) == [31, 32, 33, 34, 35, 36]
    assert losses(parts) == losses(whole)
