"""One train step of T5 1.1 small against Hugging Face's PyTorch T5, side by side on this machine.

    python benchmarks/train_step.py [--turns 7] [--optimizer adafactor] [--dropout 0.0 0.1]
                                    [--dtypes float32 bfloat16] [--json FILE]

Work of a step: forward, backward and update; 8 rows of 512 inputs and 114 targets, the same on both
sides. Each side and dtype is a process of its own (so that peak memory is its own), and they take
turns. A turn is two steps, of which the second is timed: memory that a process has freed goes back
to the host while another one works, and touching it again would be timed as a step of training,
where steps follow each other. Only rounds without other work on the cores count (benchmarks/
turns.py). Both sides flush denormal numbers, and both must begin at a loss of about ln(32128).

t5jax is set up as its users have it: microbatches, unrolling and rematerialisation are "auto" and
printed, with the reasons. Hugging Face is what its Trainer runs: eager mode, SDPA, autocast for
bfloat16, all rows at once (`--their-microbatches 8`: one at a time, too), without the Trainer's
clipping of gradients, which t5jax's Adafactor has not either. t5jax's step computes norms of
gradients and parameters and the accuracy besides.

Needs the `parity` extra.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.turns import MOST_OTHERS, Rounds, Stopwatch, Turn, matmul_peak, spread

OURS, THEIRS = "t5jax", "Hugging Face"


def batch(vocab_size: int, options) -> dict:
    """Full rows of random tokens under seqio's names."""
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = rng.integers(3, vocab_size, (options.rows, options.inputs)).astype(np.int32)
    targets = rng.integers(3, vocab_size, (options.rows, options.targets)).astype(np.int32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def t5jax_step(options):
    """(step, what to report of its preparation)."""
    import jax
    import jax.numpy as jnp

    program, choices = t5jax_program(options)
    data = jax.device_put(batch(program.model.vocab_size, options), program.batch_sharding)
    key = jax.random.key(0)
    state = program.init(seed=0)
    start = time.perf_counter()
    compiled = program.compile_train_step(data, key)
    report = {"compile_seconds": time.perf_counter() - start, "choices": choices}
    report["program_flops"] = program_flops(compiled.as_text())
    # XLA's CPU back end and its threads flush denormal numbers; looked at rather than believed.
    tiny = jax.jit(lambda x: x * 1e-5)(jnp.full((2**22,), 1e-37))
    report["flushes_denormals"] = not bool(jnp.any(tiny != 0))

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, data, key)
        return float(metrics["loss"])

    return step, report


def t5jax_program(options):
    """(the program, what its settings of "auto" are): by the rules of a run on this machine."""
    from t5jax import recipes
    from t5jax.config import RunConfig, TrainConfig
    from t5jax.model.config import t5_1_1_small
    from t5jax.run.auto import local_machine, resolve_auto
    from t5jax.training.losses import CrossEntropy
    from t5jax.training.optimizers import Adafactor, AdamW
    from t5jax.training.schedules import Constant
    from t5jax.training.steps import Program

    rate = {"learning_rate": 1e-3, "schedule": Constant(), "global_norm_clip": None}
    parts = options.num_microbatches
    config = RunConfig(
        workdir="none",
        model=t5_1_1_small(
            dtype=options.dtype,
            dropout_rate=options.dropout,
            unroll_layers=options.unroll_layers,
        ),
        data=recipes.c4_json(),  # which is not read
        train=TrainConfig(
            num_train_steps=1000,
            batch_size=options.rows,
            num_microbatches=parts if parts == "auto" else int(parts),
        ),
        loss=CrossEntropy(z_loss=0.0),
        optimizer={"adafactor": Adafactor, "adamw": AdamW}[options.optimizer](**rate),
    )
    resolved = resolve_auto(config, local_machine(), (options.inputs, options.targets))
    config = resolved.config
    program = Program(
        model=config.model,
        loss=config.loss,
        tx=config.build_optimizer(),
        num_microbatches=config.train.num_microbatches,
        mesh_config=config.mesh,
        mesh=config.mesh.build(),
    )
    return program, [str(choice) for choice in resolved.choices]


def program_flops(text: str) -> float:
    """Of the matrix products of a compiled program, loops counted as often as they run: what is
    computed again comes on top of the model's."""
    from t5jax.planning.flops import matrix_flops
    from t5jax.planning.hlo import executions, parse_module

    module = parse_module(text)
    return sum(
        count * matrix_flops(instruction, computation, module)
        for instruction, computation, count in executions(module)
    )


def hugging_face_step(options):
    """(step, what to report of its preparation); PyTorch's eager mode, as the Trainer runs it."""
    import torch
    import transformers

    from benchmarks.hugging_face_t5 import flush_denormals, flushes_denormals, make_hugging_face_t5
    from t5jax.model.config import t5_1_1_small

    flush_denormals()
    cfg = t5_1_1_small()
    model = make_hugging_face_t5(cfg, dropout_rate=options.dropout).train()
    if options.optimizer == "adafactor":
        optimizer = transformers.optimization.Adafactor(
            model.parameters(), lr=1e-3, relative_step=False, scale_parameter=True
        )
    else:  # the Trainer's default, fused; without decay as ours
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    data = batch(cfg.vocab_size, options)
    inputs = torch.tensor(data["encoder_input_tokens"], dtype=torch.long)
    labels = torch.tensor(data["decoder_target_tokens"], dtype=torch.long)
    parts = options.their_microbatches
    microbatches = list(zip(inputs.chunk(parts), labels.chunk(parts), strict=True))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16")

    def step() -> float:
        total = 0.0
        for rows, targets in microbatches:
            mask = torch.ones_like(rows)
            with autocast:
                loss = model(input_ids=rows, attention_mask=mask, labels=targets).loss / parts
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step, {"compile_seconds": 0.0, "flushes_denormals": flushes_denormals()}


def child(options) -> None:
    """Makes a step each time a line comes in; answers with a JSON line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    make = {OURS: t5jax_step, THEIRS: hugging_face_step}[options.child]
    step, report = make(options)

    def answer(**fields) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    answer(**report)
    for _ in sys.stdin:
        loss = step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer(loss=loss, peak_bytes=peak)


class Side:
    """One of the competitors, in its own process."""

    def __init__(self, name: str, dtype: str, dropout: float, options):
        self.name, self.dtype = name, dtype
        flags = ["--child", name, "--dropout", str(dropout), "--dtypes", dtype]
        for field in (
            *("optimizer", "rows", "inputs", "targets"),
            *("num_microbatches", "unroll_layers", "their_microbatches"),
        ):
            flags += [f"--{field.replace('_', '-')}", str(getattr(options, field))]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.report = self._read()
        self.last = first = self._step()
        self.first_loss = first["loss"]

    def take_turn(self) -> Turn:
        self._step()
        with Stopwatch([self.process.pid]) as watch:
            self.last = self._step()
        return Turn(watch.seconds, watch.others)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _step(self) -> dict:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with status {self.process.wait()}")
        return json.loads(line)


def check_sides(sides: dict[str, Side]) -> None:
    """Raises RuntimeError where the sides would not do the same work: a first loss that logits of
    variance one cannot have (ln(vocab_size) + 1/2), and denormal numbers that one of them keeps."""
    from t5jax.model.config import t5_1_1_small

    expected = math.log(t5_1_1_small().vocab_size) + 0.5
    for name, side in sides.items():
        if not abs(side.first_loss - expected) < 0.5:
            raise RuntimeError(
                f"{name}: the first loss is {side.first_loss:.3f}, where logits of variance one "
                f"have {expected:.2f}"
            )
        if not side.report["flushes_denormals"]:
            raise RuntimeError(f"{name} does not flush denormal numbers to 0")


def compare(dropout: float, options, peaks: dict[str, float]) -> dict:
    """All sides in turns with this dropout, printed; the figures for JSON."""
    sides: dict[str, Side] = {}
    try:
        for dtype in options.dtypes:
            for name in (OURS, THEIRS):
                sides[f"{name} {dtype}"] = Side(name, dtype, dropout, options)
        check_sides(sides)
        turns = {name: side.take_turn for name, side in sides.items()}
        rounds = Rounds(turns).take(turns, options.turns, options.most_others)
    finally:
        for side in sides.values():
            side.close()
    print(f"\ndropout {dropout}, {options.optimizer}: {rounds.cleanness()}")
    result = {"dropout": dropout, "optimizer": options.optimizer, **rounds.as_json(), "sides": {}}
    for name, side in sides.items():
        figures = {"first_loss": side.first_loss, **side.last, **side.report}
        shown = (
            f"peak memory {figures['peak_bytes'] / 1e9:5.2f} GB   loss {side.first_loss:.3f} to "
        )
        shown += f"{figures['loss']:.3f}"
        if "program_flops" in figures:
            shown += f"   compile {figures['compile_seconds']:.1f} s"
            shown += f"   {figures['program_flops'] / 1e9:.0f} GFLOP in its program"
        if rounds.clean:
            rate = step_flops(options) / rounds.median(name) / peaks[side.dtype]
            figures |= {"seconds": rounds.median(name), "share_of_peak": rate}
            shown = f"{spread(rounds.seconds(name))} s   {rate:5.1%} of matmul peak   {shown}"
        result["sides"][name] = figures
        print(f"  {name:22s} {shown}")
        print("".join(f"{'':25}{choice}\n" for choice in figures.get("choices", ())), end="")
    if rounds.clean:
        result["ratios"] = {}
        for slower, faster in pairs(options.dtypes):
            result["ratios"][f"{slower} / {faster}"] = ratios = rounds.ratios(slower, faster)
            print(f"  {faster} is {spread(ratios)} times as fast as {slower}")
    return result


def pairs(dtypes: list[str]) -> list[tuple[str, str]]:
    """What is compared: their side with ours in each dtype, and ours in both dtypes."""
    found = [(f"{THEIRS} {dtype}", f"{OURS} {dtype}") for dtype in dtypes]
    return found + [(f"{OURS} {dtypes[0]}", f"{OURS} {other}") for other in dtypes[1:]]


def step_flops(options) -> float:
    """The model's, as a run's MFU counts them."""
    from t5jax.model.config import t5_1_1_small
    from t5jax.tracking.throughput import model_flops

    return model_flops(t5_1_1_small(), options.rows, options.inputs, options.targets)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=7, help="clean rounds wanted")
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--optimizer", choices=["adafactor", "adamw"], default="adafactor")
    dtypes = ["float32", "bfloat16"]
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=dtypes)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--targets", type=int, default=114)
    parser.add_argument("--num-microbatches", default="auto", help="of t5jax's step")
    unrolling = ["auto", "all"]
    parser.add_argument("--unroll-layers", choices=unrolling, default="auto", help="of t5jax's")
    parser.add_argument("--their-microbatches", type=int, default=1, help="of Hugging Face's step")
    parser.add_argument("--most-others", type=float, default=MOST_OTHERS, help="in a clean turn")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.child:
        options.dropout, options.dtype = options.dropout[0], options.dtypes[0]
        child(options)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    peaks = {dtype: matmul_peak(dtype) for dtype in options.dtypes}
    measured = ", ".join(f"{dtype} {peak / 1e9:.0f}" for dtype, peak in peaks.items())
    print(
        f"T5 1.1 small, {options.rows} rows x {options.inputs}/{options.targets}: "
        f"{step_flops(options) / 1e9:.0f} GFLOP a step; "
        f"GFLOP/s of a matrix product: {measured}"
    )
    results = [compare(dropout, options, peaks) for dropout in options.dropout]
    if options.json:
        found = {"step_flops": step_flops(options), "matmul_peaks": peaks, "comparisons": results}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
