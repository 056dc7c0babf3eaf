"""One train step of T5 1.1 small against Hugging Face's PyTorch T5, side by side on this machine.

    python benchmarks/train_step.py [--steps 7] [--optimizer adafactor] [--dropout 0.0 0.1]

Each side runs in a process of its own (so that peak memory is its own), and the
two take turns. A turn is two steps, of which the second is timed: memory that a process has freed
goes back to the host while the other one works, and touching it again would be timed as a step of
training, where steps follow each other. Medians are compared. Also printed: compile time, peak
resident memory, and the model's FLOP/s as a share of this machine's measured matrix-product peak.
Needs the `parity` extra. Work per step: forward, backward and update; 8 rows of 512 inputs and 114
targets, float32. t5jax works through the rows one at a time (`num_microbatches`): the same
gradient, with a quarter of the memory to touch; `--num-microbatches 1` takes them all at once.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

ROWS, INPUTS, TARGETS, VOCAB = 8, 512, 114, 32128


def batch(seed: int = 0) -> dict:
    import numpy as np

    rng = np.random.default_rng(seed)
    inputs = rng.integers(3, VOCAB, (ROWS, INPUTS)).astype(np.int32)
    targets = rng.integers(3, VOCAB, (ROWS, TARGETS)).astype(np.int32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def t5jax_step(options):
    """Returns (step, seconds to compile)."""
    import jax

    from t5jax.model.config import t5_1_1_small
    from t5jax.sharding import MeshConfig
    from t5jax.training.losses import CrossEntropy
    from t5jax.training.optimizers import Adafactor, AdamW
    from t5jax.training.schedules import Constant
    from t5jax.training.steps import Program

    make = {"adafactor": Adafactor, "adamw": AdamW}[options.optimizer]
    optimizer = make(learning_rate=1e-3, schedule=Constant())
    mesh = MeshConfig()
    program = Program(
        model=t5_1_1_small(dtype=options.dtype, dropout_rate=options.dropout, unroll_layers="all"),
        loss=CrossEntropy(z_loss=0.0, num_chunks=options.num_chunks),
        tx=optimizer.build(1000),
        num_microbatches=options.num_microbatches,
        mesh_config=mesh,
        mesh=mesh.build(),
    )
    data = jax.device_put(batch(), program.batch_sharding)
    key = jax.random.key(0)
    state = program.init(seed=0)
    start = time.perf_counter()
    compiled = program.compile_train_step(data, key)
    compile_seconds = time.perf_counter() - start

    def step():
        nonlocal state
        state, metrics = compiled(state, data, key)
        return float(metrics["loss"])

    return step, compile_seconds


def hugging_face_step(options):
    """Returns (step, 0.0); PyTorch's eager mode, as the Trainer runs it."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_decoder_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=options.dropout,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).train()
    if options.optimizer == "adafactor":
        optimizer = transformers.optimization.Adafactor(
            model.parameters(), lr=1e-3, relative_step=False, scale_parameter=True
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = batch()
    inputs = torch.tensor(data["encoder_input_tokens"], dtype=torch.long)
    labels = torch.tensor(data["decoder_target_tokens"], dtype=torch.long)
    mask = torch.ones_like(inputs)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16")

    def step():
        with autocast:
            loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, 0.0


def child(options) -> None:
    """Makes a step each time a line comes in; answers with a JSON line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    make = {"t5jax": t5jax_step, "hugging_face": hugging_face_step}[options.child]
    step, compile_seconds = make(options)

    def answer(**fields) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    answer(compile_seconds=compile_seconds)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer(seconds=seconds, loss=loss, peak_bytes=peak)


class Side:
    """One of the two competitors, in its own process."""

    def __init__(self, name: str, dropout: float, options):
        flags = ["--child", name, "--dropout", str(dropout), "--optimizer", options.optimizer]
        flags += ["--dtype", options.dtype, "--num-chunks", str(options.num_chunks)]
        flags += ["--num-microbatches", str(options.num_microbatches)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.compile_seconds = self._read()["compile_seconds"]
        self.results = []

    def take_turn(self) -> None:
        self._step()
        self.results.append(self._step())

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
            raise RuntimeError(f"the child process ended with status {self.process.wait()}")
        return json.loads(line)


def compare(dropout: float, options) -> None:
    ours, theirs = Side("t5jax", dropout, options), Side("hugging_face", dropout, options)
    for _ in range(options.steps):
        ours.take_turn(), theirs.take_turn()
    ours.close(), theirs.close()
    median = lambda side: statistics.median(r["seconds"] for r in side.results)
    ratios = [
        b["seconds"] / a["seconds"] for a, b in zip(ours.results, theirs.results, strict=True)
    ]
    peak = matmul_peak(options.dtype)
    flops = step_flops()
    print(f"\ndropout {dropout}, {options.optimizer}, {options.dtype}: median of {options.steps}")
    for name, side in (("t5jax", ours), ("Hugging Face", theirs)):
        seconds, memory = median(side), max(r["peak_bytes"] for r in side.results)
        print(
            f"  {name:13s} {seconds:7.3f} s/step   compile {side.compile_seconds:5.1f} s   "
            f"peak memory {memory / 1e9:5.2f} GB   {flops / seconds / peak:5.1%} of matmul peak"
        )
    print(
        f"  t5jax is {median(theirs) / median(ours):.2f} times as fast "
        f"(pair by pair: {min(ratios):.2f} to {max(ratios):.2f})"
    )


def matmul_peak(dtype: str) -> float:
    """FLOP/s of a large matrix product, measured here and now."""
    code = (
        f"from t5jax.tracking.throughput import measure_matmul_peak as m;print(m({dtype!r}, 3.0))"
    )
    return float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


def step_flops() -> float:
    from t5jax.model.config import t5_1_1_small
    from t5jax.tracking.throughput import model_flops

    return model_flops(t5_1_1_small(), ROWS, INPUTS, TARGETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--optimizer", choices=["adafactor", "adamw"], default="adafactor")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--num-microbatches", type=int, default=8, help="of t5jax's step")
    parser.add_argument("--num-chunks", type=int, default=1, help="of t5jax's loss")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        options.dropout = options.dropout[0]
        child(options)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"T5 1.1 small, {ROWS} rows x {INPUTS}/{TARGETS}")
    for dropout in options.dropout:
        compare(dropout, options)


if __name__ == "__main__":
    main()
