"""Train steps and decoding of T5 1.1 at full size on one device, parts of accelerator.py.

What is planned comes from the compiled program: its memory from the compiler, its time from the
cost model of `t5jax plan` (`t5jax/planning`).
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention import first_line
from t5jax.decoding import DecodingConfig, Generator
from t5jax.model.config import SIZES, T5Config
from t5jax.sharding import MESH_AXES, MeshConfig
from t5jax.tracking.throughput import model_flops, peak_flops
from t5jax.training.losses import CrossEntropy
from t5jax.training.memory import activation_bytes, resident_bytes
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program

INPUTS, TARGETS = 512, 114
FILLED = 0.90  # of the device's memory: the largest batch is planned to take so much
GOOD_ENOUGH = 0.75  # of it: then a larger batch is not looked for
# Layers one after the other are faster and take minutes to compile on a TPU.
_UNROLLED = {"unroll_layers": "all", "remat": "none"}
_SCANNED = {"unroll_layers": 1, "remat": "dots"}


class Clock:
    """Seconds that are left of a part."""

    def __init__(self, seconds: float):
        self._end = time.perf_counter() + seconds

    @property
    def left(self) -> float:
        return self._end - time.perf_counter()


def model_of(size: str, smoke: bool) -> T5Config:
    """T5 1.1 in bfloat16, as fast as one device runs it; `smoke`: the same with tiny dimensions."""
    tiny = {"num_encoder_layers": 2, "num_decoder_layers": 2, "emb_dim": 64, "mlp_dim": 128}
    tiny |= {"num_heads": 3, "head_dim": 16, "vocab_size": 512}
    unrolled = size == "base" and jax.default_backend() != "tpu"
    changes: dict[str, Any] = {**(_UNROLLED if unrolled else _SCANNED), **(tiny if smoke else {})}
    return SIZES[f"t5_1_1_{size}"](dtype="bfloat16", **changes)


def program_of(cfg: T5Config) -> Program:
    """On one device, with T5's loss and optimizer."""
    mesh, devices = MeshConfig(), jax.local_devices()[:1]
    auto = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    return Program(
        model=cfg,
        loss=CrossEntropy(),
        tx=Adafactor(learning_rate=1e-3, schedule=Constant()).build(1000),
        mesh_config=mesh,
        mesh=jax.make_mesh(mesh.shape(1), MESH_AXES, axis_types=auto, devices=devices),
    )


def batch_of(cfg: T5Config, num_rows: int, lengths: tuple[int, int]) -> dict[str, np.ndarray]:
    """Full rows of random tokens under seqio's names."""
    rng = np.random.default_rng(0)
    inputs, targets = (
        rng.integers(3, cfg.vocab_size, (num_rows, n)).astype(np.int32) for n in lengths
    )
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


# ---- the train step


class Step:
    """The train step compiled for so many rows, and the bytes that its compiler plans."""

    def __init__(self, program: Program, num_rows: int, lengths: tuple[int, int]):
        self.program, self.num_rows, self.lengths = program, num_rows, lengths
        spec = {name: x.shape[1:] for name, x in batch_of(program.model, 1, lengths).items()}
        start = time.perf_counter()
        key = jax.random.key(0)
        self.compiled = program.compile_train_step(program.abstract_batch(spec, num_rows), key)
        self.compile_seconds = time.perf_counter() - start
        memory = self.compiled.memory_analysis()
        assert memory is not None
        self.planned_bytes = float(
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )

    def seconds_of_steps(self, clock: Clock, most: int = 20) -> tuple[list[float], list[float]]:
        """(seconds, losses) of steps one after the other, the first two not timed, while half of
        the part's time is left, at least three."""
        program = self.program
        data = jax.device_put(
            batch_of(program.model, self.num_rows, self.lengths), program.batch_sharding
        )
        state, key = program.init(seed=0), jax.random.key(0)
        seconds, losses, enough = [], [], clock.left / 2
        while len(seconds) < 5 or (clock.left > enough and len(seconds) < most):
            start = time.perf_counter()
            state, metrics = self.compiled(state, data, key)
            losses.append(float(metrics["loss"]))
            seconds.append(time.perf_counter() - start)
        return seconds[2:], losses


def device_memory() -> float | None:
    """Bytes that programs may use on the first device; None of a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def fixed_bytes(program: Program) -> float:
    """Parameters, optimizer and gradients: what does not grow with the rows."""
    return sum(resident_bytes(program))


def guess_rows(program: Program, memory: float, lengths: tuple[int, int]) -> int:
    """Rows that fill the memory by arithmetic, where attention stores no scores."""
    cfg = program.model
    of_row = activation_bytes(cfg, *lengths, remat=cfg.remat, scores=False)
    return whole(FILLED * memory - fixed_bytes(program), of_row)


def whole(nbytes: float, bytes_of_row: float) -> int:
    """Rows that fit: a multiple of 8, at least 8."""
    return max(8, int(nbytes / bytes_of_row) // 8 * 8)


def largest_step(program: Program, memory: float, lengths: tuple[int, int], clock: Clock) -> Step:
    """The step with the largest batch that the compiler plans to fit, as far as there is time to
    compile again: each compilation tells how the memory grows with the rows."""
    num_rows, best = guess_rows(program, memory, lengths), None
    while True:
        start = time.perf_counter()
        try:
            step = Step(program, num_rows, lengths)
        except Exception as error:
            if not is_out_of_memory(error) or num_rows <= 8:
                raise
            step, num_rows = None, max(8, num_rows // 16 * 8)
        if step is not None:
            fits = step.planned_bytes <= FILLED * memory
            if fits and (best is None or step.num_rows > best.num_rows):
                best = step
            fixed = fixed_bytes(program)
            bytes_of_row = (step.planned_bytes - fixed) / step.num_rows
            num_rows = whole(FILLED * memory - fixed, bytes_of_row)
            if fits and step.planned_bytes > GOOD_ENOUGH * FILLED * memory:
                return step
        took = time.perf_counter() - start
        if best is not None and (num_rows <= best.num_rows or clock.left < 1.5 * took + 25):
            return best
        if step is not None and num_rows == step.num_rows:
            num_rows = max(8, num_rows - 8)
        if clock.left < took:
            raise TimeoutError(f"no batch that fits was found in time; {num_rows} rows were next")


def is_out_of_memory(error: BaseException) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


def train(size: str, clock: Clock, smoke: bool) -> Iterator[dict]:
    """The figures of one size; with another batch where memory runs out while it runs."""
    cfg = model_of(size, smoke)
    program = program_of(cfg)
    lengths = (64, 24) if smoke else (INPUTS, TARGETS)
    memory, fixed = device_memory(), fixed_bytes(program)
    if memory is not None and fixed > FILLED * memory:
        reason = f"parameters, optimizer and gradients take {fixed / 1e9:.1f} GB"
        yield {"size": size, "rows": 0, "why_not": f"{reason}, {memory / 1e9:.1f} GB are there"}
        return
    if memory is None:
        step = Step(program, 8, lengths)
    else:
        step = largest_step(program, memory, lengths, clock)
    while True:
        try:
            seconds, losses = step.seconds_of_steps(clock)
            break
        except Exception as error:
            if not is_out_of_memory(error) or step.num_rows <= 8:
                raise
            yield {"size": size, "rows": step.num_rows, "why_not": first_line(error)}
            step = Step(program, max(8, int(0.85 * step.num_rows) // 8 * 8), lengths)
    yield step_figures(size, step, seconds, losses)


def step_figures(size: str, step: Step, seconds: list[float], losses: list[float]) -> dict:
    cfg, device = step.program.model, jax.local_devices()[0]
    took = float(np.median(seconds))
    flops = model_flops(cfg, step.num_rows, *step.lengths)
    peak = peak_flops(device.device_kind, cfg.dtype)
    expected = math.log(cfg.vocab_size) + 0.5  # logits of variance one
    return {
        "size": size,
        "rows": step.num_rows,
        "layers": "unrolled" if cfg.unroll_layers == "all" else "scanned",
        "remat": cfg.remat,
        "attention": cfg.attention,
        "compile_seconds": step.compile_seconds,
        "seconds": took,
        "all_seconds": seconds,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "ok": abs(losses[0] - expected) < 0.5 and bool(np.isfinite(losses).all()),
        "tokens_per_second": step.num_rows * sum(step.lengths) / took,
        "model_flops": flops,
        "mfu": peak and flops / took / peak,
        "memory_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
        "planned_memory_bytes": step.planned_bytes,
        **planned(step.program, step.compiled.as_text() or ""),
    }


def planned(program: Program, text: str) -> dict:
    """Time and FLOPs of a compiled program by the cost model of `t5jax plan`, for this device."""
    try:
        from t5jax.planning.collectives import MeshNetwork
        from t5jax.planning.cost import program_cost
        from t5jax.planning.hlo import parse_module
        from t5jax.planning.topology import Topology
    except ImportError as error:
        return {"planned_seconds": None, "plan": f"no plan: {first_line(error)}"}
    chip = chip_of(jax.local_devices()[0])
    if chip is None:
        return {
            "planned_seconds": None,
            "plan": "no plan: t5jax/planning/chips.py has no such chip",
        }
    network = MeshNetwork(program.mesh, Topology(chip, (1,) * chip.dims))
    cost = program_cost(parse_module(text), chip, network, program.model.dtype)
    return {"planned_seconds": cost.seconds, "program_flops": cost.flops, "chip": chip.name}


def chip_of(device: jax.Device):
    """The chip of a device in the planner's table, None where it has none."""
    from t5jax.planning.chips import CHIPS, virtual_cpu

    if device.platform == "cpu":
        return virtual_cpu(len(jax.local_devices()))
    return next((x for x in CHIPS.values() if x.device_kind == device.device_kind), None)


# ---- decoding


def decode(clock: Clock, smoke: bool) -> Iterator[dict]:
    """Greedy decoding: the time that a further token takes, from outputs of two lengths."""
    cfg = model_of("large", smoke)
    program = program_of(cfg)
    num_rows, inputs_length = (4, 16) if smoke else (32, INPUTS)
    lengths = (4, 12) if smoke else (32, 128)
    params = program.init(seed=0).params
    generator = Generator(program, params, num_ids=cfg.vocab_size, batch_size=num_rows)
    inputs = list(batch_of(cfg, num_rows, (inputs_length, 1))["encoder_input_tokens"])
    row = {"size": "large", "rows": num_rows, "inputs": inputs_length}
    took = []
    for length in lengths:
        config = DecodingConfig(max_length=length, min_length=length)
        start = time.perf_counter()
        generator.generate(inputs, config)
        compile_seconds = time.perf_counter() - start
        times = []
        while len(times) < 3 or (len(times) < 7 and clock.left > 10):
            start = time.perf_counter()
            generator.generate(inputs, config)
            times.append(time.perf_counter() - start)
        took.append(float(np.median(times)))
        yield row | {"tokens": length, "seconds": took[-1], "first_seconds": compile_seconds}
    token = (took[1] - took[0]) / (lengths[1] - lengths[0])
    nbytes = bytes_of_token(cfg, num_rows, inputs_length, lengths[1])
    yield row | {"milliseconds_per_token": 1e3 * token, "bytes_per_token": nbytes, **bound(nbytes)}


def bytes_of_token(cfg: T5Config, num_rows: int, inputs: int, outputs: int) -> float:
    """Bytes that a decoding step cannot but read: the decoder's weights in use and the logits
    table, keys and values of the inputs and of half of the outputs."""
    D, J, F = cfg.emb_dim, cfg.num_heads * cfg.head_dim, cfg.mlp_dim
    layer = 6 * D * J + (len(cfg.mlp_activations) + 1) * D * F  # cross keys and values are cached
    weights = cfg.num_decoder_layers * layer + D * cfg.vocab_size
    cached = 2 * cfg.num_decoder_layers * num_rows * J * (inputs + outputs / 2)
    return jnp.dtype(cfg.dtype).itemsize * float(weights + cached)


def bound(nbytes: float) -> dict:
    """The time to read so many bytes on this device, where its bandwidth is known."""
    try:
        chip = chip_of(jax.local_devices()[0])
    except ImportError as error:
        return {"bound_milliseconds": None, "plan": f"no bound: {first_line(error)}"}
    if chip is None:
        return {"bound_milliseconds": None, "plan": "no bound: no such chip is known"}
    return {"bound_milliseconds": 1e3 * nbytes / chip.memory_bandwidth, "chip": chip.name}
