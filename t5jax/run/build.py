"""The composition root: from a RunConfig to its data, its evaluator and its compiled steps."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from t5jax.config import RunConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.data.pipeline.opening import open_in_order, open_loader
from t5jax.data.pipeline.streaming import StreamingLoader
from t5jax.data.registry.resolve import ResolvedMixture, resolve
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation import evaluator
from t5jax.run.validation import SPLIT, Validation
from t5jax.training.losses import with_run_settings
from t5jax.training.steps import Program

TrainLoader = Loader | StreamingLoader


def resolve_mixture(config: RunConfig) -> ResolvedMixture:
    """The run's mixture, checked against vocabulary, model and loss.

    Raises ConfigError where lengths, objective, vocabulary and model do not fit each other, and
    DataError where a user's own mixture was not cached.
    """
    vocabulary = config.data.vocabulary
    if vocabulary.vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: the vocabulary has "
            f"{vocabulary.vocab_size} ids; the table needs at least as many rows"
        )
    check_special_ids(config)
    given = getattr(config.loss, "first_sentinel_id", None)
    if given not in (None, vocabulary.first_sentinel_id):
        raise ConfigError(
            f"loss.first_sentinel_id = {given}: the vocabulary's is "
            f"{vocabulary.first_sentinel_id}; leave it None"
        )
    mixture = resolve(config.data, config.model.architecture, config.model.decoder_start_id)
    encoder_length, decoder_length = mixture.row_format.lengths
    positions = decoder_length or encoder_length
    num_chunks = getattr(config.loss, "num_chunks", 1)
    if num_chunks != "auto" and num_chunks > positions:
        raise ConfigError(f"loss.num_chunks = {num_chunks}: at most the {positions} targets")
    return mixture


def check_special_ids(config: RunConfig) -> None:
    """Raises ConfigError where the model's padding or EOS is not the vocabulary's, or the softmax
    leaves ids of the vocabulary out."""
    model, vocabulary = config.model, config.data.vocabulary
    for field in ("pad_id", "eos_id"):
        ours, theirs = getattr(model, field), getattr(vocabulary, field)
        if ours != theirs:
            raise ConfigError(
                f"model.{field} = {ours}, but the vocabulary's {field} is {theirs} ({vocabulary}): "
                f"rows are made with the vocabulary's; set model.{field} = {theirs}, or data."
                "vocabulary to the one that the model was made with"
            )
    if model.softmax_size and model.softmax_size < vocabulary.vocab_size:
        raise ConfigError(
            f"model.softmax_size = {model.softmax_size}: the vocabulary has "
            f"{vocabulary.vocab_size} ids, which all need a probability; set as many, or 0"
        )


def build_train_loader(config: RunConfig, mixture: ResolvedMixture) -> TrainLoader:
    """The shuffled batches of the run.

    Raises DataError when there is no store (the message has the command that makes it), or it is
    damaged; ConfigError for a prompt in front of packed rows.
    """
    loader = open_loader(mixture, batch_size=config.train.batch_size)
    if config.model.prompt_length and "encoder_segment_ids" in loader.element_spec:
        raise ConfigError(
            f"model.prompt_length = {config.model.prompt_length}: a prompt stands in front of one "
            "input, and rows of this mixture are packed with several: set data.pack = False"
        )
    return loader


def build_evaluation_loaders(
    config: RunConfig,
    mixture: ResolvedMixture,
    split: str,
    num_rows: int | None = None,
    *,
    replicas: int = 1,
) -> dict[str, Loader]:
    """By task, one pass over a split in order, in batches of one of the train step's microbatches,
    because evaluation must not need more memory than training; rounded up to what `replicas`
    divide. No more than `num_rows` of each task will be read (None: all). Empty when no task has
    the split. Raises DataError for a damaged store."""
    batch_size = -(-config.train.microbatch_size // replicas) * replicas
    return open_in_order(mixture, split, batch_size=batch_size, num_rows=num_rows)


def build_run_evaluator(
    config: RunConfig, split: str, names: Sequence[str] = ()
) -> evaluator.Evaluator | None:
    """What generates and scores predictions for the tasks of the run's mixture, or for tasks and
    mixtures by name; None where no task has metrics and the split, and for a model that generates
    no text. Raises as `evaluation.evaluator.build_evaluator`."""
    if config.model.architecture == "encoder_only":
        return None
    return evaluator.build_evaluator(config.data, config.decoding, config.evaluation, split, names)


def build_validation(config: RunConfig, mixture: ResolvedMixture) -> Validation:
    """What the config's run is evaluated on.

    Raises DataError when there is nothing, ConfigError for a best metric that no task has.
    """
    loaders, found = {}, None
    if config.train.eval_every_steps:
        loaders = build_evaluation_loaders(config, mixture, SPLIT, config.train.num_eval_rows)
        if not loaders:
            raise DataError(
                f"no task of {config.data.mixture} has a split {SPLIT!r} in "
                f"{config.data.cache_dir}: t5jax cache CONFIG makes it where the source has one; "
                "to train without evaluating set train.eval_every_steps = 0 and "
                "train.num_eval_rows = None"
            )
    if config.evaluation.every_steps:
        found = build_run_evaluator(config, SPLIT)
        if found is None:
            raise ConfigError(
                f"evaluation.every_steps = {config.evaluation.every_steps}, but no task of "
                f"{config.data.mixture} has metrics and a split {SPLIT!r}: set it to 0"
            )
    _check_best_metric(config, found)
    return Validation(config, loaders, found)


def build_program(
    config: RunConfig, num_tasks: int = 1, mesh: jax.sharding.Mesh | None = None
) -> Program:
    """Model, loss, optimizer and mesh of the run; with several tasks the loss is summed by task.

    Without a mesh that of this process's devices, so after `runtime.start_distributed`.
    """
    vocabulary = config.data.vocabulary
    settings: dict[str, Any] = {"first_sentinel_id": vocabulary.first_sentinel_id}
    at_the_top = range(vocabulary.first_sentinel_id, vocabulary.vocab_size)
    if sorted(vocabulary.sentinel_ids) != list(at_the_top):
        settings["sentinel_ids"] = vocabulary.sentinel_ids
    if num_tasks > 1:
        settings["num_tasks"] = num_tasks
    program = build_program_without_vocabulary(config, mesh)
    return dataclasses.replace(program, loss=with_run_settings(config.loss, **settings))


def build_program_without_vocabulary(
    config: RunConfig, mesh: jax.sharding.Mesh | None = None
) -> Program:
    """The same for sizes and layouts alone: its loss knows no sentinels and no tasks."""
    return Program(
        model=config.model,
        loss=config.loss,
        tx=config.build_optimizer(),
        mesh_config=config.mesh,
        mesh=mesh or config.mesh.build(),
        num_microbatches=config.train.batch_size // config.train.microbatch_size,
        finetuning=config.finetuning,
        tensor_norms=config.tracking.norms_every_steps > 0,
    )


def _check_best_metric(config: RunConfig, found: evaluator.Evaluator | None) -> None:
    wanted = config.checkpoints.best_metric.removeprefix(f"{SPLIT}/")
    if not config.checkpoints.keep_best or "/" not in wanted or found is None:
        return
    known = found.metric_names()
    if known is not None and wanted not in known:
        raise ConfigError(
            f"checkpoints.best_metric = {config.checkpoints.best_metric!r}: the tasks have "
            f"{', '.join(f'{SPLIT}/{name}' for name in sorted(known))}"
        )
