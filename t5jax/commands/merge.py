"""`t5jax merge WORKDIR TARGET`: merges LoRA factors into the weights of a new run."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from t5jax import runtime
from t5jax.checkpoints import restore_params
from t5jax.config import RunConfig, WarmStart
from t5jax.errors import ConfigError
from t5jax.run.build import build_program
from t5jax.run.initialize import begin_run, refuse_existing_run
from t5jax.run.provenance import checkpoint_record
from t5jax.run.restore import apply_flags, read_saved_config, saved_checkpoints
from t5jax.training.peft import Adapters, AllParameters, PromptTuning
from t5jax.training.steps import Program
from t5jax.types import Params

_NOT_WEIGHTS = {
    Adapters: "adapters are layers of their own, between the others and not linear: no weights of "
    "the model without them compute the same",
    PromptTuning: "a prompt is input to the encoder: no weights of the model without it compute "
    "the same",
}


def merge_command(workdir: str, target: str, flags: list[str], *, step: int | None) -> None:
    """Writes step 0 of a run in `target`: the same model, LoRA factors added to the weights.

    It can be evaluated, converted, begun with (`init.path`) and trained on, all parameters then;
    the optimizer begins anew. Raises ConfigError for a run that has nothing to merge.
    """
    change = apply_flags(flags, command="merge", workdir=workdir)
    config, record = read_saved_config(workdir, step, change, command="merge")
    _check_merges(config, workdir)
    refuse_existing_run(target)
    runtime.start_distributed(config.runtime)
    config.check_mesh(jax.device_count(), trains=False)
    program = build_program(config)
    source, step = saved_checkpoints(workdir), record.step
    restored = restore_params(source, program.abstract_state.params, step)
    params = program.merge(restored.state)
    difference = _difference(program, restored.state, params)
    plain = dataclasses.replace(
        config, workdir=target, init=WarmStart(), finetuning=AllParameters()
    )
    content = checkpoint_record(plain, restored.record["data"])
    content["merged_from"] = {"workdir": workdir, "step": step}
    begin_run(plain, build_program(plain).init(plain.train.seed, params), content)
    if jax.process_index() == 0:
        print(
            f"{target}: step 0 is step {step} of {workdir} without factors; logits of "
            f"random tokens differ by {difference:.1e} of the largest"
        )


def _check_merges(config: RunConfig, workdir: str) -> None:
    if config.finetuning.has_merge:
        return
    kind = type(config.finetuning)
    reason = _NOT_WEIGHTS.get(kind)
    if reason is None:
        raise ConfigError(
            f"{workdir} was trained with {kind.__name__}, which adds no parameters: there is "
            "nothing to merge, its checkpoints are plain already"
        )
    raise ConfigError(
        f"{workdir} cannot be merged: {reason}. evaluate, predict and init.path take the run as "
        "it is"
    )


def _difference(program: Program, params: Params, merged: Params) -> float:
    """The largest difference of logits, in float32, over the largest logit.

    Raises RuntimeError if that is more than rounding.
    """
    before, after = _logits(program, params), _logits(program.without_peft, merged)
    difference = float(np.abs(before - after).max() / np.abs(before).max())
    if not difference < 1e-4:
        raise RuntimeError(f"merged logits differ by {difference:.1e} of the largest: a defect")
    return difference


def _logits(program: Program, params: Params) -> np.ndarray:
    tokens = np.random.default_rng(0).integers(2, program.model.vocab_size, (program.mesh.size, 8))
    tokens = jax.device_put(tokens.astype(np.int32), program.batch_sharding)
    names = "encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens"

    def logits(params, tokens):
        model = nnx.merge(program.model_def, program.finetuning.merge_parameters(params))
        return model(dict.fromkeys(names, tokens))

    with program.use_mesh():
        return np.asarray(jax.jit(logits, out_shardings=program.replicated)(params, tokens))
