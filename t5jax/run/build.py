"""A run put together: from a RunConfig to its data and its programs."""

import dataclasses
from collections.abc import Sequence

from t5jax.config import RunConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.data.pipeline.opening import open_in_order, open_loader
from t5jax.data.pipeline.streaming import LiveLoader
from t5jax.errors import ConfigError
from t5jax.evaluation import evaluator
from t5jax.training.program import Program

TrainLoader = Loader | LiveLoader


def open_train_loader(config: RunConfig) -> TrainLoader:
    """The shuffled batches of the run, checked against vocabulary, model and loss.

    Raises:
      DataError: there is no store (the message has the command that makes it), or it is damaged.
      ConfigError: lengths, objective, vocabulary and model do not fit each other.
    """
    _check_vocabulary(config)
    loader = open_loader(
        config.data, batch_size=config.train.batch_size, architecture=config.model.architecture
    )
    _check_chunks(config, loader)
    if config.model.prompt_length and "encoder_segment_ids" in loader.element_spec:
        raise ConfigError(
            f"model.prompt_length = {config.model.prompt_length}: a prompt stands in front of one "
            "input, and rows of this mixture are packed with several: set data.pack = False"
        )
    return loader


def open_evaluation_loaders(
    config: RunConfig, split: str, num_rows: int | None = None, *, replicas: int = 1
) -> dict[str, Loader]:
    """By task, one pass over a split in order, in batches of one of the train step's microbatches,
    because evaluation must not need more memory than training; rounded up to what `replicas`
    divide. No more than `num_rows` of each task will be read (None: all). Empty when no task has
    the split. Raises as `open_train_loader`."""
    _check_vocabulary(config)
    microbatch = config.train.batch_size // config.train.num_microbatches
    loaders = open_in_order(
        config.data,
        split,
        batch_size=-(-microbatch // replicas) * replicas,
        num_rows=num_rows,
        architecture=config.model.architecture,
    )
    for loader in loaders.values():
        _check_chunks(config, loader)
    return loaders


def open_suite(
    config: RunConfig, split: str, names: Sequence[str] = ()
) -> evaluator.Evaluator | None:
    """What the run is evaluated on by answering: its mixture, or tasks and mixtures by name; None
    where no task has metrics and the split, and for a model that generates no text. Raises as
    `evaluation.evaluator.build_evaluator`."""
    if config.model.architecture == "encoder_only":
        return None
    return evaluator.build_evaluator(config.data, config.decoding, config.evaluation, split, names)


def _check_vocabulary(config: RunConfig) -> None:
    if config.data.vocabulary.vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: the vocabulary has "
            f"{config.data.vocabulary.vocab_size} ids; the table needs at least as many rows"
        )
    first, given = config.data.vocabulary.first_sentinel_id, config.loss.first_sentinel_id
    if given not in (None, first):
        raise ConfigError(
            f"loss.first_sentinel_id = {given}: the vocabulary's is {first}; leave it None"
        )


def _check_chunks(config: RunConfig, loader: TrainLoader) -> None:
    encoder_length, decoder_length = loader.lengths
    positions = decoder_length or encoder_length
    if config.loss.num_chunks > positions:
        raise ConfigError(
            f"loss.num_chunks = {config.loss.num_chunks}: at most the {positions} targets"
        )


def build_program(config: RunConfig, num_tasks: int = 1) -> Program:
    """Model, loss, optimizer and mesh of the run; the loss of each of several tasks is told apart.

    Uses devices, so after `runtime.start`.
    """
    loss = config.loss
    if loss.first_sentinel_id is None:
        first = config.data.vocabulary.first_sentinel_id
        loss = dataclasses.replace(loss, first_sentinel_id=first)
    if num_tasks > 1:
        loss = dataclasses.replace(loss, num_tasks=num_tasks)
    return Program(
        model=config.model,
        loss=loss,
        tx=config.build_optimizer(),
        mesh_config=config.mesh,
        mesh=config.mesh.build(),
        num_microbatches=config.train.num_microbatches,
        finetuning=config.finetuning,
    )
