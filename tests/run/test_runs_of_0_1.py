"""A run that t5jax 0.1 trained (tests/golden/v0_1/run): opened, migrated and resumed."""

import json
import pathlib
import shutil

import pytest

from t5jax.cli import main
from t5jax.inference.loaded_run import load
from t5jax.run.restore import read_saved_config
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Rsqrt

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "v0_1"
# Of steps 5 to 9 of the same run, as 0.1 went on with it.
LOSSES = [4.144373416900635, 2.947469472885132, 2.9074268341064453, 2.8054940700531006]
LOSSES += [2.8397514820098877]
CONFIG = """
import t5jax


def config():
    return t5jax.RunConfig(
        workdir="run",
        model=t5jax.T5Config(
            vocab_size=384, emb_dim=24, num_heads=3, head_dim=8, mlp_dim=40,
            num_encoder_layers=2, num_decoder_layers=1, dropout_rate=0.1, dtype="float32",
        ),
        data=t5jax.DataConfig(
            mixture="golden_mix", modules=("golden_tasks_v0_1",), train_files=("text.txt",),
            validation_files=("text-dev.txt",),
            vocabulary=t5jax.ByteVocabulary(extra_ids=100),
            inputs_length=61, targets_length=23, cache_dir="cache",
        ),
        train=t5jax.TrainConfig(num_train_steps=9, batch_size=8, eval_every_steps=0),
        optimizer=t5jax.Adafactor(
            learning_rate=0.3, schedule=t5jax.schedules.Rsqrt(warmup_steps=3),
            min_dim_size_to_factor=16,
        ),
        checkpoints=t5jax.CheckpointConfig(save_every_steps=9),
        tracking=t5jax.TrackingConfig(tensorboard=False, plot=False, seconds_between_lines=0),
    )
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """A copy of what 0.1 left, as the working directory; the task's module is not there."""
    shutil.copytree(GOLDEN, tmp_path / "v0_1")
    monkeypatch.chdir(tmp_path / "v0_1")
    (tmp_path / "v0_1" / "resume.py").write_text(CONFIG)
    return tmp_path / "v0_1"


def test_the_config_in_the_checkpoint_is_migrated(folder):
    config, record = read_saved_config(
        "run", None, lambda config: config, command="evaluate", of_mixture=False
    )
    assert record.step == 4
    assert config.tracking.tensorboard is False
    assert config.data.mixture == "golden_mix"
    expected = Rsqrt(warmup_steps=3)
    assert config.optimizer == Adafactor(
        learning_rate=0.3, schedule=expected, min_dim_size_to_factor=16
    )


@pytest.mark.slow
def test_the_run_resumes_to_the_losses_of_0_1(folder):
    """From its checkpoint and stores, without the module that defined its tasks. (On the machine
    that made it the losses are the same bits.)"""
    assert main(["train", "resume.py"]) == 0
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    (resumed,) = [line for line in lines if line["kind"] == "resumed"]
    assert (resumed["step"], resumed["environment"]) == (4, None)  # 0.1 recorded no settings
    train = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    assert [train[step] for step in range(5, 10)] == pytest.approx(LOSSES, rel=1e-5)


@pytest.mark.slow
def test_the_run_predicts(folder):
    run = load("run")
    assert run.step == 4
    (text,) = run.predict(["review: the model"], max_length=9)
    assert isinstance(text, str)
