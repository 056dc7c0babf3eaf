"""Small runs and compiled programs for the tests of planning."""

import dataclasses

import jax

from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.model.config import T5Config
from t5jax.planning.abstract_run import abstract_run
from t5jax.sharding import MeshConfig
from t5jax.training.optimizers import AdamW


def tiny_config(*, model=None, mesh=None, **train) -> RunConfig:
    """A run whose vocabulary, stores and workdir are nowhere; sizes odd and different."""
    sizes = {
        "vocab_size": 390, "emb_dim": 24, "num_heads": 4, "head_dim": 10, "mlp_dim": 44,
        "num_encoder_layers": 2, "num_decoder_layers": 1, "dtype": "float32",
        "attention": "einsum", "remat": "none",
    }  # fmt: skip
    return RunConfig(
        workdir="nowhere",
        model=T5Config(**sizes | (model or {})),
        data=DataConfig(
            mixture="docstrings_span_corruption",
            vocabulary=SentencePieceVocabulary(path="nowhere/spiece.model"),
            inputs_length=56,
            cache_dir="nowhere",
        ),
        train=TrainConfig(**{"num_train_steps": 70, "batch_size": 16} | train),
        mesh=MeshConfig(**mesh or {}),
        optimizer=AdamW(),  # compiles in a third of the time of Adafactor
    )


def abstract_program(config: RunConfig):
    """(the run, its program on eight devices)"""
    run = abstract_run(config)
    return run, run.program(config.mesh.build(jax.devices()[:8]))


def with_memory(topology, nbytes: float):
    """The topology with devices of so much memory."""
    chip = dataclasses.replace(topology.chip, memory_bytes=nbytes)
    return dataclasses.replace(topology, chip=chip)
