"""A config over two tasks of GLUE, with made-up rows in files of GLUE's form."""

import pathlib

import pytest

from t5jax.cli import main
from t5jax.config import load_config
from tests.commands.saved_runs import save_run

CONFIG = """
from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.decoding import DecodingConfig
from t5jax.evaluation.config import EvaluationConfig
from t5jax.model.config import T5Config
from t5jax.tracking import TrackingConfig
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant


def config() -> RunConfig:
    return RunConfig(
        workdir="{folder}/run",
        model=T5Config(
            vocab_size=384, emb_dim=24, num_heads=4, head_dim=6, mlp_dim=40,
            num_encoder_layers=1, num_decoder_layers=1, dtype="float32",
        ),
        data=DataConfig(
            mixture="glue_sst2_v002", datasets_dir="{folder}/data",
            vocabulary=ByteVocabulary(extra_ids=100), inputs_length=61, targets_length=19,
            cache_dir="{folder}/cache",
        ),
        train=TrainConfig(num_train_steps=4, batch_size=8, eval_every_steps=0),
        optimizer=Adafactor(learning_rate=0.02, schedule=Constant(), min_dim_size_to_factor=16),
        decoding=DecodingConfig(max_length=13),
        evaluation=EvaluationConfig(batch_size=8),
        checkpoints=CheckpointConfig(save_every_steps=2),
        tracking=TrackingConfig(tensorboard=False, plot=False),
    )
"""
NUM_EXAMPLES = 11  # of a validation split; divides by no number of hosts
_WORDS = ("a", "dull", "bright", "slow", "moving", "film", "story", "that", "is", "never", "always")


def write(folder: pathlib.Path) -> pathlib.Path:
    """The config's file, and the data beside it."""
    for task in ("SST-2", "CoLA"):
        place = folder / "data" / "glue" / task
        place.mkdir(parents=True)
        for split, num in {"train": 40, "validation": NUM_EXAMPLES, "test": 5}.items():
            rows = [(_sentence(n, len(split)), _label(n, split)) for n in range(num)]
            lines = [f"{text}\t{label}" for text, label in rows]
            if task == "CoLA" and split != "test":  # as it comes: four columns, no header
                lines = [f"x\t{label}\t\t{text}" for text, label in rows]
            else:
                lines.insert(0, "sentence\tlabel")
            (place / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    path = folder / "glue.py"
    path.write_text(CONFIG.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config's file, whose data is cached."""
    path = write(tmp_path_factory.mktemp("glue"))
    assert main(["cache", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def saved(config, tmp_path_factory):
    """A run that was never trained, with random weights after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    return save_run(load_config(str(config)), folder, steps=(2, 4))


def _sentence(number: int, salt: int) -> str:
    places = range(1, 4 + number % 5)
    return " ".join(_WORDS[(number * k + k * k + salt) % len(_WORDS)] for k in places)


def _label(number: int, split: str) -> int:
    return -1 if split == "test" else number * number % 2
