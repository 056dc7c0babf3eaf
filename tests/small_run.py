"""A small run as a user would set it up: prose, a config file, a tokenised store."""

import pathlib
import pydoc_data.topics

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from t5jax.cli import main

CONFIG = """
from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config
from t5jax.tracking import TrackingConfig
from t5jax.runtime import RuntimeConfig
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant


def config() -> RunConfig:
    return RunConfig(
        workdir="{folder}/run",
        model=T5Config(
            vocab_size=384, emb_dim=24, num_heads=3, head_dim=5, mlp_dim=40,
            num_encoder_layers=1, num_decoder_layers=1, dropout_rate=0.1, dtype="float32",
        ),
        data=DataConfig(
            mixture="text_span_corruption",
            train_files=("{folder}/train-*.txt",),
            validation_files=("{folder}/validation.txt",),
            vocabulary=ByteVocabulary(extra_ids=100),
            inputs_length=61,
            cache_dir="{folder}/cache",
        ),
        train=TrainConfig(
            num_train_steps=30, batch_size=16, eval_every_steps=15, num_eval_rows=37
        ),
        optimizer=Adafactor(learning_rate=0.02, schedule=Constant(), min_dim_size_to_factor=16),
        checkpoints=CheckpointConfig(save_every_steps=10),
        tracking=TrackingConfig(seconds_between_lines=0),
        runtime=RuntimeConfig(detect_cluster=False),
    )
"""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(tmp_path_factory):
    """Every command compiles its programs anew: here without XLA's optimizations, and each once."""
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in settings}
    for values in (settings, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it has looked at the settings once, and not again
        if values is settings:
            yield


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory) -> pathlib.Path:
    """A folder with the language reference that Python carries as text, and a config for it."""
    folder = tmp_path_factory.mktemp("tiny")
    topics = list(pydoc_data.topics.topics.values())
    parts = {"train-0": topics[0:-8:2], "train-1": topics[1:-8:2], "validation": topics[-8:]}
    for name, texts in parts.items():
        (folder / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    (folder / "tiny.py").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_text) -> pathlib.Path:
    """The same folder after `t5jax cache`."""
    assert main(["cache", str(tiny_text / "tiny.py"), "--num-processes", "1"]) == 0
    return tiny_text
