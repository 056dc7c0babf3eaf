"""`t5jax vocab grow RUN CONFIG`: a new run that begins with another's parameters, grown."""

import dataclasses

import jax
from etils import epath

from t5jax import runtime
from t5jax.checkpoints import (
    Checkpoints,
    committed_steps,
    latest_record,
    read_record,
    restore_params,
)
from t5jax.config import RunConfig, describe_run, from_text, load
from t5jax.data.vocabularies import Extension
from t5jax.errors import ConfigError
from t5jax.model.resize_vocab import grow_vocabulary
from t5jax.run.build import build_program, open_train_loader
from t5jax.run.initialize import check_same_model
from t5jax.run.restore import checkpoint_directory
from t5jax.run.trainer import checkpoint_record


def run(workdir: str, config_file: str, flags: list[str], *, step: int | None) -> None:
    """Writes step 0 of the config's run; `t5jax train CONFIG` goes on from there.

    The parameters are those of the newest good step of `workdir`, or of `step`, with tables for the
    config's vocabulary, which `t5jax vocab extend` made of the run's. The optimizer begins anew.
    Raises ConfigError or CheckpointError when run, extension and config do not fit each other.
    """
    config = load(config_file, flags)
    directory = checkpoint_directory(workdir)
    record = latest_record(directory) if step is None else read_record(directory, step)
    old_model = from_text(record.content["config"]).model
    extension = _extension(config, record.content["vocabulary"], workdir)
    check_same_model(old_model, config.model, where="the run that is grown", free=("vocab_size",))
    if config.init.path is not None:
        raise ConfigError(
            f"init.path = {config.init.path!r} has no effect on a run that `t5jax vocab grow` "
            "begins: leave it out"
        )
    target = epath.Path(config.workdir) / "checkpoints"
    if committed_steps(target):
        raise ConfigError(f"workdir = {config.workdir!r} holds a run already; choose another")
    runtime.start(config.runtime)
    if jax.process_count() > 1:
        raise ConfigError("`t5jax vocab grow` rewrites whole tables: start it on one host")
    config.check_mesh(jax.device_count())
    loader = open_train_loader(config)
    old_program = build_program(dataclasses.replace(config, model=old_model))
    restored = restore_params(directory, old_program.abstract_state.params, record.step)
    grown = grow_vocabulary(restored.state, extension.sources(), config.model.vocab_size)
    state = build_program(config).begin(grown)
    checkpoints = Checkpoints(target, config.checkpoints)
    grown_from = {"workdir": workdir, "step": restored.step}
    record = {**checkpoint_record(config, loader, 0), "grown_from": grown_from}
    describe_run(config)
    checkpoints.save(0, state, record)
    checkpoints.close()
    print(
        f"{config.workdir}: step 0 has the parameters of {workdir}, step {restored.step}, with "
        f"{extension.new_size - extension.old_size:,} new pieces and a table of "
        f"{config.model.vocab_size:,} rows (was {old_model.vocab_size:,}); go on with: t5jax train "
        f"{config_file}"
    )


def _extension(config: RunConfig, trained_with: str, workdir: str) -> Extension:
    """The record beside the config's vocabulary; it must lead from the run's to this one."""
    vocabulary = config.data.vocabulary
    path = getattr(vocabulary, "path", None)
    if path is None:
        raise ConfigError(f"data.vocabulary = {vocabulary}: give one of `t5jax vocab extend`")
    extension = Extension.load(path)
    if extension.new_fingerprint != vocabulary.fingerprint:
        raise ConfigError(
            f"data.vocabulary.path = {path} has changed since it was extended (or extra_ids = "
            f"{vocabulary.extra_ids} is not as it was): extend the vocabulary again"
        )
    if extension.old_fingerprint != trained_with:
        raise ConfigError(
            f"data.vocabulary.path = {path} extends vocabulary {extension.old_fingerprint[:12]}…, "
            f"{workdir} was trained with {trained_with[:12]}…: extend the vocabulary of that run"
        )
    return extension
