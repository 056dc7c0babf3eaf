"""How a run begins: its own newest checkpoint (resume), another run's parameters (warm start), or
fresh parameters.

What a warm start reads must fit: the same vocabulary, the same model but for how it is computed,
every parameter in its shape. Only what fine-tuning adds (adapters, a prompt, LoRA's factors) may be
missing there and begins fresh. All of it is verified as it is read, and refused by name where it
does not fit.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from t5jax.buckets import check_readable, in_bucket, make_folder
from t5jax.checkpoints import (
    Checkpoints,
    Record,
    array_differences,
    checkpoint_directory,
    committed_steps,
    explain,
    leaves_by_path,
    listed,
    nested,
    read_record,
    restore_leaves,
)
from t5jax.config import RunConfig, describe_run, from_text, to_text
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config, architecture_differences
from t5jax.model.registry import abstract_model
from t5jax.paths import check_written_run, refuse_file_in_the_way
from t5jax.run.auto import Resolved
from t5jax.run.build import TrainLoader
from t5jax.run.provenance import changed_lines, environment_changes
from t5jax.run.summary import run_size
from t5jax.tracking import Tracker
from t5jax.training.optimizers import Adafactor
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState

_ADDED = ("adapter_dim", "prompt_length")  # fields that add parameters to those of the old model


def initialize(
    resolved: Resolved,
    program: Program,
    loader: TrainLoader,
    checkpoints: Checkpoints,
    tracker: Tracker,
    *,
    evaluated: Collection[str],
) -> tuple[int, TrainState]:
    """(step, state) to go on from, with the loader at that position: the newest good checkpoint of
    the run's workdir; if nothing was ever saved, what the config's `init` says. Logged as an event.

    Raises ConfigError where the checkpoint's vocabulary is another, and as `begin`.
    """
    config = resolved.config
    notes: list[str] = []
    restored = checkpoints.restore(program.abstract_state, log=notes.append)
    for note in notes:
        tracker.event(0, "fell_back", reason=note)
    if restored is None:
        step, state, source = begin(config, program)
        if step:
            loader.restore(loader.state(0), step)  # from the first row all the same
        tracker.event(step, "started", **source, **run_size(config, program, loader, evaluated))
        return step, state
    if restored.record["vocabulary"] != config.data.vocabulary.fingerprint:
        raise ConfigError(
            f"data.vocabulary = {config.data.vocabulary} is not the one that "
            f"{config.workdir} was trained with (the file has changed since)"
        )
    data = restored.record["data"]
    if "converted_from" in data:  # another program's parameters: its data are not ours
        data = loader.state(0)
    loader.restore(data, restored.step)
    changed = changed_lines(restored.record["config"], to_text(resolved.written))
    environment = environment_changes(restored.record)
    fields = {"changed": changed or None, "environment": environment or None}
    tracker.event(restored.step, "resumed", **fields)
    return restored.step, restored.state


class Beginning(NamedTuple):
    """The state before the first step of a run, and for its log where that came from."""

    step: int
    state: TrainState
    source: dict[str, Any]


def begin(config: RunConfig, program: Program) -> Beginning:
    """The first state of the config's run.

    Raises:
      ConfigError: the other run has another vocabulary or model, or holds no such parameters.
      CheckpointError: its checkpoints are damaged, or the step is missing.
      DataError: its bucket cannot be read.
    """
    if config.init.path is None:
        return Beginning(0, program.init(config.train.seed), {})
    directory = checkpoint_directory(config.init.path)
    check_readable(directory)
    if not directory.is_dir():
        text = explain(config.init.path, "name the workdir of a run (`t5jax train` prints it)")
        raise ConfigError(f"init.path = {config.init.path!r}{text.removeprefix(config.init.path)}")
    record = read_record(directory, config.init.step)
    _check_run(config, record.content)
    wanted, fresh = _wanted(config, program, record)
    restored = restore_leaves(directory, wanted, config.init.step)
    _check_run(config, restored.record)  # it may be an older one, if the newest is damaged
    params = {path.removeprefix("params/"): x for path, x in _under("params/", restored.state)}
    state = _replaced(program.init(config.train.seed, nested(params)), restored.state)
    first = int(np.asarray(state.step))
    if first >= config.train.num_train_steps:
        raise ConfigError(
            f"train.num_train_steps = {config.train.num_train_steps}, but the run begins at step "
            f"{first} of {config.init.path} (init.keep_step): steps are counted from its first"
        )
    source = {"parameters_from": config.init.path, "of_step": restored.step}
    if fresh:
        source["fresh_parameters"] = sum(x.size for x in fresh.values())
    if config.finetuning.starts_at_zero and _scales_by_parameters(config.optimizer):
        source["note"] = (
            f"{type(config.finetuning).__name__} has matrices that begin at 0, and Adafactor's "
            "updates are relative to their size (at least 0.001): they will hardly move; take "
            "--optimizer.multiply-by-parameter-scale False, or AdamW"
        )
    return Beginning(first, state, source)


def _scales_by_parameters(optimizer: Any) -> bool:
    return isinstance(optimizer, Adafactor) and optimizer.multiply_by_parameter_scale


def begin_run(config: RunConfig, state: TrainState, record: Mapping[str, Any]) -> None:
    """Writes what the config's run is and its step 0, for a command that makes it of another run;
    see `refuse_existing_run`."""
    if jax.process_index() == 0:
        describe_run(config)
    checkpoints = Checkpoints(checkpoint_directory(config.workdir), config.checkpoints)
    checkpoints.save(0, state, dict(record))
    checkpoints.close()


def refuse_existing_run(workdir: str) -> None:
    """Raises ConfigError for a folder with a run's checkpoints in it and for one that cannot be
    written to, NotADirectoryError for a file in its way, BucketError for a bucket that is not there
    or may not be written to."""
    check_written_run(workdir)
    refuse_file_in_the_way(workdir)
    if in_bucket(workdir):
        make_folder(workdir)
    if committed_steps(checkpoint_directory(workdir)):
        raise ConfigError(f"workdir = {workdir!r} holds a run already; choose another folder")


def check_same_model(
    old: T5Config, new: T5Config, *, where: str, free: tuple[str, ...] = ()
) -> None:
    """Raises ConfigError for a field that parameters depend on and that differs, but for `free`
    ones and for what the new model adds."""
    for name, before, now in architecture_differences(old, new):
        added = name in _ADDED and not before
        if name not in free and not added:
            hint = "; `t5jax vocab grow` makes a larger table" * (name == "vocab_size")
            raise ConfigError(f"model.{name} = {now}: {where} has {before}; set that{hint}")


def _check_run(config: RunConfig, content: Mapping[str, Any]) -> None:
    where = str(config.init.path)
    check_same_model(from_text(content["config"]).model, config.model, where=where)
    ours, theirs = config.data.vocabulary.fingerprint, content["vocabulary"]
    if ours != theirs:
        raise ConfigError(
            f"data.vocabulary = {config.data.vocabulary} is not the one that {where} was trained "
            f"with ({ours[:12]}… here, {theirs[:12]}… there): take that one; for one that extends "
            "it, see `t5jax vocab grow`"
        )


def _wanted(
    config: RunConfig, program: Program, record: Record
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what to read by path, all of it known to be there in the right shape; what begins fresh)"""
    kinds = ["params/"]
    if config.init.optimizer == "keep":
        kinds += ["opt_state/"]
    if config.init.keep_step:
        kinds += ["step"]
    wanted = dict(_under(tuple(kinds), leaves_by_path(program.abstract_state)))
    missing = [path for path in wanted if path not in record.leaves]
    fresh = {path: wanted.pop(path) for path in missing if path in _added(program)}
    if problems := array_differences(record, wanted, tuple(kinds)):
        raise ConfigError(
            f"init.path = {config.init.path!r} does not fit this run {listed(problems)}\n"
            f"{_advice(problems)}"
        )
    for path in fresh:
        if not program.finetuning.is_trainable(path.removeprefix("params/")):
            raise ConfigError(
                f"init.path = {config.init.path!r} has no {path}, and finetuning = "
                f"{type(config.finetuning).__name__} does not train it: it would stay as it "
                "begins; set model.adapter_dim or model.prompt_length to 0, or train them"
            )
    return wanted, fresh


def _added(program: Program) -> set[str]:
    """Paths of parameters that a plain model of the same sizes does not have."""
    model = dataclasses.replace(program.model, **dict.fromkeys(_ADDED, 0))
    plain = nnx.to_pure_dict(nnx.state(abstract_model(model), nnx.Param))
    whole = leaves_by_path(program.abstract_state.params)
    return {f"params/{path}" for path in whole.keys() - leaves_by_path(plain).keys()}


def _advice(problems: list[str]) -> str:
    if all(problem.startswith("opt_state/") for problem in problems):
        return (
            "init.optimizer = 'keep' needs the same optimizer and the same trained parameters: "
            "take those of that run, or 'reset'"
        )
    if any("_lora/" in problem and "no such array" in problem for problem in problems):
        return "That run has LoRA factors: add them to their weights first, with `t5jax merge`"
    return "Set the model section as it is in that run's config.txt"


def _under(prefix: str | tuple[str, ...], leaves: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((path, leaf) for path, leaf in leaves.items() if path.startswith(prefix))


def _replaced(state: TrainState, arrays: Mapping[str, jax.Array]) -> TrainState:
    """The state with optimizer and step as they were read; parameters are in it already."""
    leaves = [
        leaf if path.startswith("params/") else arrays.get(path, leaf)
        for path, leaf in leaves_by_path(state).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)
