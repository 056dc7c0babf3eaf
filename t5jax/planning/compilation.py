"""Ahead-of-time compilation of a run's real steps, and what the compiler says of their memory."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import numpy as np

from t5jax.decoding.decode_state import Request
from t5jax.decoding.generator import decode_batch
from t5jax.errors import ConfigError
from t5jax.planning.abstract_run import AbstractRun, abstract_key, compute_params
from t5jax.planning.chips import GIB, Platform
from t5jax.training.compiler_options import compile_lowered
from t5jax.training.steps import Program

Step = Literal["train", "evaluate", "decode"]
STEPS: tuple[Step, ...] = get_args(Step)
# Without a device XLA cannot time Triton's matrix products, and gives up.
_OPTIONS: Mapping[Platform, dict[str, Any]] = {
    "tpu": {},
    "gpu": {"xla_gpu_enable_triton_gemm": False},
    "cpu": {},
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompiledMemory:
    """Bytes of one device, as the compiler plans them."""

    arguments: float
    outputs: float
    aliased: float  # outputs that take the place of arguments
    temporaries: float

    @property
    def peak(self) -> float:
        """What a run's log calls peak_gb."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompiledStep:
    """A step compiled for a mesh."""

    text: str
    memory: CompiledMemory
    seconds: float  # that tracing and compiling took


class OutOfMemory(Exception):
    """The compiler found no way to run a program in a device's memory.

    Attributes:
      needed, available: bytes; NaN where the message has no number.
      temporaries_only: whether `needed` leaves the arguments out.
      largest: the largest buffers as the compiler names them, in order.
    """

    def __init__(
        self,
        needed: float,
        available: float,
        *,
        temporaries_only: bool = False,
        largest: tuple[str, ...] = (),
    ):
        super().__init__(f"needs {needed / 1e9:.1f} GB of {available / 1e9:.1f} GB")
        self.needed, self.available = needed, available
        self.temporaries_only, self.largest = temporaries_only, largest


def compile_step(
    run: AbstractRun, program: Program, step: Step, platform: Platform
) -> CompiledStep:
    """Compiles a step of the run for the program's mesh.

    Raises OutOfMemory where libtpu refuses the program, ConfigError for a model that has no such
    step.
    """
    start = time.perf_counter()
    lowered = lower_step(run, program, step)
    try:
        options = program.compiler_options if step == "train" else {}
        compiled = compile_lowered(lowered, {**options, **_OPTIONS[platform]})
    except Exception as error:
        refused = read_out_of_memory(str(error))
        if refused is None:
            raise
        raise refused from None
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return CompiledStep(
        text=compiled.as_text() or "",
        memory=CompiledMemory(
            arguments=analysis.argument_size_in_bytes,
            outputs=analysis.output_size_in_bytes,
            aliased=analysis.alias_size_in_bytes,
            temporaries=analysis.temp_size_in_bytes,
        ),
        seconds=time.perf_counter() - start,
    )


def lower_step(run: AbstractRun, program: Program, step: Step) -> jax.stages.Lowered:
    """Traces a step. Raises ConfigError for a model that has no such step."""
    if step == "train":
        return program.lower_train_step(run.train_batch(program), abstract_key(program))
    if step == "evaluate":
        return program.lower_eval_step(run.eval_batch(program))
    return _lower_decoding(run, program)


def decoded_rows(run: AbstractRun, program: Program) -> int:
    """Rows of a batch that is decoded in evaluation."""
    return -(-run.config.evaluation.batch_size // program.replicas) * program.replicas


def _lower_decoding(run: AbstractRun, program: Program) -> jax.stages.Lowered:
    encoder_length, _ = run.lengths
    if program.model.architecture == "encoder_only":
        raise ConfigError(
            "--step decode: model.architecture = 'encoder_only' generates no text; take --step "
            "train or evaluate"
        )
    inputs_length = encoder_length or run.row_format.inputs_length
    rows, params = decoded_rows(run, program), compute_params(program)

    def ints(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, np.int32, sharding=program.batch_sharding)

    replicated = all(x.sharding.is_fully_replicated for x in jax.tree.leaves(params))
    with program.use_mesh():
        return decode_batch.lower(
            (program.without_peft.model_def,),
            (params,),
            Request(ints(rows, inputs_length), ints(rows, 0), ints(rows)),
            run.config.decoding,
            run.config.data.vocabulary.vocab_size,
            rows_per_device=program.batch_sharding if replicated else None,
        )


_UNITS = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40, "": 1}
_SIZE = r"([\d.]+)([KMGT]?)B?"
_NUM_LARGEST = 3


def read_out_of_memory(message: str) -> OutOfMemory | None:
    """The numbers of a compiler's message that a program does not fit; None for another message.

    libtpu writes `Ran out of memory in memory space hbm. Used 29.10G of 15.75G hbm.`, then the
    largest allocations, each with `Size: 2.00G` and its operator; or `Ran out of memory on HBM, the
    total memory required for HLO temporaries (22.05G) exceeds available HBM (15.75G).`
    """
    if used := re.search(rf"Used {_SIZE} of {_SIZE} hbm", message):
        found = re.findall(
            rf"Size: ({_SIZE})\s+(?:Operator: op_name=\"([^\"]*)\"\s*)?(?:Shape: (\S+))?", message
        )
        largest = (
            f"{size}B {shape} {'/'.join(operator.split('/')[-3:])}".strip()
            for size, _, _, operator, shape in found[:_NUM_LARGEST]
        )
        needed, available = _bytes(used[1], used[2]), _bytes(used[3], used[4])
        return OutOfMemory(needed, available, largest=tuple(largest))
    if used := re.search(
        rf"required for HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)", message
    ):
        needed, available = _bytes(used[1], used[2]), _bytes(used[3], used[4])
        return OutOfMemory(needed, available, temporaries_only=True)
    if "RESOURCE_EXHAUSTED" in message:
        return OutOfMemory(float("nan"), float("nan"))
    return None


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]
