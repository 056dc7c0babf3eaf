"""Run directories of t5jax: opened, and begun with the weights of another program."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5jax.checkpoints import BlockArray, open_step, save_streamed
from t5jax.config import RunConfig, TrainConfig, from_record, to_text
from t5jax.convert import names
from t5jax.convert.source import Source
from t5jax.convert.views import Cast, InMemory, Zeros
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import Vocabulary, save_vocabulary
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.layer_stack import stack_of
from t5jax.model.registry import init_params
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant
from t5jax.training.train_step import TrainState

CHECKPOINTS = "checkpoints"
_MIXTURE = "docstrings_span_corruption"  # comes with t5jax and needs no files


def is_run(path: pathlib.Path) -> bool:
    return (path / CHECKPOINTS).is_dir()


def open_run_directory(path: str, step: int | None = None) -> Source:
    """The parameters of a run's newest good step, or of `step`, verified; one array open at a time.

    Raises:
      CheckpointError: there is none.
      ConfigError: they are not the model's alone, but LoRA's factors too.
    """
    stored = open_step(pathlib.Path(path) / CHECKPOINTS, "params", step, log=print)
    content = stored.record.content
    config = from_record(content, path)
    if config.finetuning.merges:
        raise ConfigError(
            f"{path} was fine-tuned with {type(config.finetuning).__name__}, whose factors stand "
            f"beside the weights: add them first, with t5jax merge {path} TARGET, and convert that"
        )
    params = stored.arrays("params")
    wanted = {name: leaf.shape for name, leaf in names.parameters(config.model).items()}
    if {name: array.shape for name, array in params.items()} != wanted:
        raise CheckpointError(
            f"{path}: the parameters of step {stored.record.step} are not those of its config"
        )
    return Source(
        kind="t5jax",
        path=path,
        model=config.model,
        params=params,
        origins={name: _origins(name, shape) for name, shape in wanted.items()},
        vocabulary=config.data.vocabulary,
        step=stored.record.step,
        vocabulary_fingerprint=content["vocabulary"],
    )


def _origins(name: str, shape: tuple[int, ...]) -> list[str]:
    if not stack_of(name):
        return [f"params/{name}"]
    return [f"params/{name}[{layer}]" for layer in range(shape[0])]


# ---- writing


def write_run(
    source: Source,
    directory: pathlib.Path,
    workdir: str,
    vocabulary: Vocabulary,
    *,
    with_slots: bool,
    environment: Mapping[str, str],
    progress: Callable[[str], None] = lambda path: None,
) -> int:
    """Fills `directory`, which will be `workdir`, with one checkpoint; returns its step.

    That is the foreign step where the optimizer's slots come along, for their decay depends on it;
    otherwise training begins, and it is 0.
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
        "data": {"converted_from": source.path},  # a position in no data: nothing was read
        "vocabulary": here.fingerprint,
        "environment": dict(environment),
        "converted_from": {"format": source.kind, "path": source.path, "step": source.step},
    }
    save_streamed(directory / CHECKPOINTS, step, arrays, content, progress)
    (directory / "config.txt").write_text(to_text(config))
    return step


def _config(
    source: Source, workdir: str, vocabulary: Vocabulary, step: int, *, with_slots: bool
) -> RunConfig:
    """A config to evaluate, predict and go on from: T5's fine-tuning, text without files."""
    settings: dict[str, Any] = source.slot_settings if with_slots else {}
    if vocabulary.vocab_size > source.model.vocab_size:
        raise ConfigError(
            f"the vocabulary has {vocabulary.vocab_size} ids, the token table of {source.path} "
            f"{source.model.vocab_size} rows: they do not belong together; name the right one with "
            "--vocabulary (and --extra-ids)"
        )
    return RunConfig(
        workdir=workdir,
        model=source.model,
        data=DataConfig(mixture=_MIXTURE, vocabulary=vocabulary, cache_dir=None),  # pyright: ignore[reportArgumentType]
        train=TrainConfig(num_train_steps=max(1, step)),
        optimizer=Adafactor(learning_rate=1e-3, schedule=Constant(), **settings),
    )


def _state(
    source: Source, slots: Mapping[str, BlockArray] | None, step: int, config: RunConfig
) -> dict[str, BlockArray]:
    """The train state of the config, by path: parameters in float32, slots, counters."""
    tx = config.optimizer.build(config.train.num_train_steps)

    def begin(key: jax.Array) -> TrainState:
        params = init_params(config.model, key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, tx.init(params), zero)

    arrays: dict[str, BlockArray] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(begin, jax.random.key(0))):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        kind, _, rest = path.partition("/")
        if kind == "params":
            array = Cast(source.params[rest], np.float32)
        elif path in ("step", "opt_state/count"):
            array = InMemory(np.array(step, np.int32))
        elif kind == "opt_state" and slots is not None:
            array = slots[rest]
        else:
            array = Zeros(leaf.shape, leaf.dtype)  # as a fresh Adafactor begins
        if (array.shape, array.dtype.name) != (leaf.shape, leaf.dtype.name):
            raise CheckpointError(
                f"{source.path}: {path} would be {array.dtype}{list(array.shape)}, the state has "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
        arrays[path] = array
    return arrays
