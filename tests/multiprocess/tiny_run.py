"""A run small enough to be started dozens of times: its config file, its text, its loss lines."""

import json
import pathlib
import pydoc_data.topics

CONFIG = """
from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config
from t5jax.tracking import TrackingConfig
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant


def config() -> RunConfig:
    return RunConfig(
        workdir="{folder}/run",
        model=T5Config(vocab_size=384, emb_dim=24, num_heads=4, head_dim=6, mlp_dim=40,
                       num_encoder_layers=1, num_decoder_layers=1, dropout_rate=0.1,
                       dtype="float32"),
        data=DataConfig(mixture="text_span_corruption", train_files=("{folder}/*.txt",),
                        vocabulary=ByteVocabulary(extra_ids=100), inputs_length=61,
                        cache_dir="{folder}/cache"),
        train=TrainConfig(num_train_steps={steps}, batch_size=8, eval_every_steps=0),
        optimizer=Adafactor(learning_rate=0.02, schedule=Constant(), min_dim_size_to_factor=16),
        checkpoints=CheckpointConfig(save_every_steps=5),
        tracking=TrackingConfig(tensorboard=False, plot=False, seconds_between_lines=0),
    )
"""


def write_config(folder: pathlib.Path, steps: int) -> pathlib.Path:
    """Writes config and text (the language reference that Python carries); builds the store."""
    from t5jax.commands.cache import cache_command

    text = "\n\n".join(pydoc_data.topics.topics.values())
    (folder / "reference.txt").write_text(text, encoding="utf-8")
    path = folder / "tiny.py"
    path.write_text(CONFIG.format(folder=folder, steps=steps))
    cache_command(str(path), [], splits=["train"], num_processes=1, overwrite=False)
    return path


def loss_lines(workdir: pathlib.Path) -> list[tuple[int, str]]:
    """(step, exact bits of the loss) of every training line, in the order they were written."""
    records = []
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            records.append((record["step"], record["train/loss_hex"]))
    return records
