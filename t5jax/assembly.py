"""A run put together: from a RunConfig to its data and its programs."""

import dataclasses

from t5jax.config import RunConfig
from t5jax.data.cache import cache_directory
from t5jax.data.loader import Loader
from t5jax.data.objectives import from_dict
from t5jax.data.token_store import TokenCache
from t5jax.errors import ConfigError, DataError
from t5jax.training.program import Program


def open_loader(config: RunConfig, split: str, *, shuffle: bool) -> Loader:
    """The rows of a split from its token store, checked against vocabulary, model and loss.

    Shuffled, in batches of the train step; in order, in batches of one of its microbatches, because
    evaluation must not need more memory than training.

    Raises:
      DataError: there is no store (the message has the command that makes it), or it is damaged.
      ConfigError: lengths, objective, vocabulary and model do not fit each other.
    """
    data = config.data
    store = TokenCache.open(cache_directory(data.cache_dir, data.mixture, split), data.vocabulary)
    if store.info.objective is None:
        raise DataError(f"the store {store.directory} records no objective; build it again")
    objective = from_dict(store.info.objective)
    if data.vocabulary.vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: the vocabulary has "
            f"{data.vocabulary.vocab_size} ids; the table needs at least as many rows"
        )
    targets_length = data.targets_length_for(objective)
    if config.loss.num_chunks > targets_length:
        raise ConfigError(
            f"loss.num_chunks = {config.loss.num_chunks}: at most the {targets_length} targets"
        )
    return Loader(
        store,
        objective,
        data.vocabulary,
        batch_size=config.train.batch_size // (1 if shuffle else config.train.num_microbatches),
        inputs_length=data.inputs_length,
        targets_length=targets_length,
        seed=data.seed,
        shuffle=shuffle,
    )


def build_program(config: RunConfig) -> Program:
    """Model, loss, optimizer and mesh of the run. Uses devices, so after `runtime.start`."""
    loss = config.loss
    if loss.first_sentinel_id is None:
        first = config.data.vocabulary.first_sentinel_id
        loss = dataclasses.replace(loss, first_sentinel_id=first)
    return Program(
        model=config.model,
        loss=loss,
        tx=config.optimizer.build(config.train.num_train_steps),
        mesh_config=config.mesh,
        mesh=config.mesh.build(),
        num_microbatches=config.train.num_microbatches,
    )
