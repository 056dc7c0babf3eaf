"""Run directories of t5jax as a source and as a target of conversion."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5jax.checkpoints import BlockArray, open_step, save_streamed
from t5jax.config import RunConfig, TrainConfig, WarmStart, from_record, to_text
from t5jax.convert import parameter_names
from t5jax.convert.lazy_arrays import Cast, Finite, InMemory, Zeros
from t5jax.convert.peft_directory import with_factors
from t5jax.convert.source_checkpoint import SourceCheckpoint
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import Vocabulary, save_vocabulary
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.layer_stack import stack_of
from t5jax.model.registry import init_params
from t5jax.training.optimizers import Adafactor
from t5jax.training.peft import LoRA, partition_params
from t5jax.training.schedules import Constant
from t5jax.training.train_step import TrainState

CHECKPOINTS = "checkpoints"


def is_run(path: pathlib.Path) -> bool:
    return (path / CHECKPOINTS).is_dir()


def open_run_directory(
    path: str, step: int | None = None, *, merged: bool = False
) -> SourceCheckpoint:
    """The parameters of a run's newest good step, or of `step`, verified; one array open at a time.
    `merged`: LoRA's factors are added to their weights as these are read.

    Raises:
      CheckpointError: there is none.
      ConfigError: they include LoRA factors, which are not to be merged.
    """
    stored = open_step(pathlib.Path(path) / CHECKPOINTS, "params", step, log=print)
    content = stored.record.content
    config = from_record(content, path)
    if config.finetuning.has_merge and not merged:
        raise ConfigError(
            f"{path} was fine-tuned with {type(config.finetuning).__name__}, whose factors are "
            f"separate parameters: merge them first, with t5jax merge {path} TARGET, and convert "
            "TARGET"
        )
    params = stored.arrays("params")
    if isinstance(config.finetuning, LoRA):
        params = with_factors(params, config.finetuning)
    expected = {name: leaf.shape for name, leaf in parameter_names.parameters(config.model).items()}
    if {name: array.shape for name, array in params.items()} != expected:
        raise CheckpointError(
            f"{path}: the parameters of step {stored.record.step} are not those of its config"
        )
    return SourceCheckpoint(
        kind="t5jax",
        path=path,
        model=config.model,
        params={name: Finite(array, f"{path}: params/{name}") for name, array in params.items()},
        origins={name: _origins(name, shape) for name, shape in expected.items()},
        vocabulary=config.data.vocabulary,
        step=stored.record.step,
        vocabulary_fingerprint=content["vocabulary"],
        decoding=config.decoding,
    )


def _origins(name: str, shape: tuple[int, ...]) -> list[str]:
    if not stack_of(name):
        return [f"params/{name}"]
    return [f"params/{name}[{layer}]" for layer in range(shape[0])]


# ---- writing


def write_run(
    source: SourceCheckpoint,
    directory: pathlib.Path,
    workdir: str,
    vocabulary: Vocabulary,
    *,
    with_slots: bool,
    environment: Mapping[str, str],
    progress: Callable[[str], None] = lambda path: None,
) -> int:
    """Writes a run with one checkpoint into `directory`, to be renamed `workdir`; returns its step.

    That is the source's step where the optimizer's slots are converted, because their decay depends
    on it; otherwise 0.
    """
    slots = source.slots if with_slots else None
    step = (source.step or 0) if slots is not None else 0
    here = save_vocabulary(vocabulary, directory)
    config = _config(source, workdir, here, step, with_slots=slots is not None)
    config.check()
    arrays = _state(source, slots, step, config)
    final = save_vocabulary(vocabulary, directory, workdir)
    config.data.vocabulary = final  # pyright: ignore[reportAttributeAccessIssue]
    content = {
        "config": to_text(config),
        "data": {"converted_from": source.path},  # in place of a data position: nothing was read
        "vocabulary": here.fingerprint,
        "environment": dict(environment),
        "converted_from": {"format": source.kind, "path": source.path, "step": source.step},
    }
    save_streamed(directory / CHECKPOINTS, step, arrays, content, progress)
    (directory / "config.txt").write_text(to_text(config))
    return step


def _config(
    source: SourceCheckpoint, workdir: str, vocabulary: Vocabulary, step: int, *, with_slots: bool
) -> RunConfig:
    """A config for prediction and, once a task is named, evaluation and training: T5's
    fine-tuning."""
    settings: dict[str, Any] = source.slot_settings if with_slots else {}
    if vocabulary.vocab_size > source.model.vocab_size:
        raise ConfigError(
            f"the vocabulary has {vocabulary.vocab_size} ids, the token table of {source.path} "
            f"{source.model.vocab_size} rows: they do not fit; give the right vocabulary with "
            "--vocabulary (and --extra-ids)"
        )
    return RunConfig(
        workdir=workdir,
        model=source.model,
        data=DataConfig(mixture=None, vocabulary=vocabulary, cache_dir=None),  # pyright: ignore[reportArgumentType]
        train=TrainConfig(num_train_steps=max(1, step)),
        optimizer=Adafactor(learning_rate=1e-3, schedule=Constant(), **settings),
        finetuning=source.finetuning,  # pyright: ignore[reportArgumentType]
        init=WarmStart(path=source.base),
        decoding=source.decoding,
    )


def _state(
    source: SourceCheckpoint, slots: Mapping[str, BlockArray] | None, step: int, config: RunConfig
) -> dict[str, BlockArray]:
    """The train state of the config, by path: parameters in float32, slots, counters."""
    tx = config.optimizer.build(config.train.num_train_steps)

    def init(key: jax.Array) -> TrainState:
        params = config.finetuning.add_parameters(init_params(config.model, key), key)
        trained, _ = partition_params(params, config.finetuning.is_trainable)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, tx.init(trained), zero)

    arrays: dict[str, BlockArray] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(init, jax.random.key(0))):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        kind, _, rest = path.partition("/")
        if kind == "params":
            array = Cast(source.params[rest], np.float32)
        elif path in ("step", "opt_state/count"):
            array = InMemory(np.array(step, np.int32))
        elif kind == "opt_state" and slots is not None:
            array = slots[rest]
        else:
            array = Zeros(leaf.shape, leaf.dtype)  # Adafactor's initial state
        if (array.shape, array.dtype.name) != (leaf.shape, leaf.dtype.name):
            raise CheckpointError(
                f"{source.path}: {path} would be {array.dtype}{list(array.shape)}, the state has "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
        arrays[path] = array
    return arrays
