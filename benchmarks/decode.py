"""Decoding beside Hugging Face: T5 1.1 small, 64 tokens, greedy and four beams, the same weights.

    python benchmarks/decode.py                      # needs the `parity` extra
    python benchmarks/decode.py --inputs-length 512 --batch-sizes 8 --json decode.json

Both sides take turns in one process, with all cores and float32; the ratio of a round is theirs to
ours. Only rounds without other work on the cores count (benchmarks/turns.py), and denormal numbers
are 0 on both sides. EOS is held back so that both say 64 tokens. The tokens of both are compared.
Ours has a device for each core, which share the rows, unless JAX_NUM_CPU_DEVICES says otherwise.
"""

import argparse
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count()))
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")

import jax
import numpy as np
import optax
import torch

from benchmarks.hugging_face_t5 import flush_denormals, make_hugging_face_t5
from benchmarks.turns import MOST_OTHERS, Rounds, Stopwatch, Turn, spread
from t5jax.decoding import DecodingConfig, Generator
from t5jax.model.config import T5Config, t5_1_1_small
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.steps import Program
from tests.model.foreign_weights import from_hf

TOKENS = 64
OURS, THEIRS = "t5jax", "Hugging Face"


def sides(model, cfg: T5Config, tokens: np.ndarray, num_beams: int):
    """(theirs, ours): functions that return int [rows, 64]."""
    weights = {
        name: value.numpy()
        for name, value in model.state_dict().items()
        if not name.endswith(".embed_tokens.weight")  # copies of shared.weight
    }
    mesh_config = MeshConfig()
    program = Program(
        model=cfg,
        loss=CrossEntropy(first_sentinel_id=cfg.vocab_size),
        tx=optax.identity(),
        mesh_config=mesh_config,
        mesh=mesh_config.build(),
    )
    params = jax.device_put(from_hf(weights, tied=False), program.shardings.params)
    config = DecodingConfig(
        max_length=TOKENS,
        min_length=TOKENS,
        num_beams=num_beams,
        length_penalty=1.0,
        beam_rule="huggingface",
    )
    generator = Generator(program, params, num_ids=cfg.vocab_size, batch_size=len(tokens))

    def ours() -> np.ndarray:
        said = [one.ids for (one,) in generator.generate(list(tokens), config)]
        # Random weights may say 0, which is padding: at the end it is not part of an output.
        return np.stack([np.pad(ids, (0, TOKENS - len(ids))) for ids in said])

    @torch.no_grad()
    def theirs() -> np.ndarray:
        outputs = model.generate(
            torch.from_numpy(tokens.astype(np.int64)),
            num_beams=num_beams,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
            do_sample=False,
            length_penalty=1.0,
        )
        return outputs.numpy()[:, 1:]

    return theirs, ours


def turn_of(function) -> Turn:
    with Stopwatch() as watch:
        result = function()
    return Turn(watch.seconds, watch.others, result)


def compare(model, cfg: T5Config, num_beams: int, batch_size: int, options) -> dict:
    """One row of the table, printed; its figures."""
    shape = batch_size, options.inputs_length
    tokens = np.random.default_rng(0).integers(3, 32000, shape).astype(np.int32)
    theirs, ours = sides(model, cfg, tokens, num_beams)
    ours()  # compiles
    theirs()
    turns = {THEIRS: lambda: turn_of(theirs), OURS: lambda: turn_of(ours)}
    rounds = Rounds(turns).take(turns, options.turns, options.most_others)
    row = {"beams": num_beams, "rows": batch_size, "inputs": options.inputs_length}
    row |= rounds.as_json()
    head = f"beams {num_beams}  batch {batch_size:3d}  {rounds.cleanness()}"
    if not rounds.clean:
        print(head, flush=True)
        return row
    pairs = [(one[THEIRS].result, one[OURS].result) for one in rounds.clean]
    same = float(np.mean([(a == b).all(axis=1) for a, b in pairs]))
    ratios = rounds.ratios(THEIRS, OURS)
    print(
        f"{head}  {THEIRS} {spread(rounds.seconds(THEIRS))} s  {OURS} "
        f"{spread(rounds.seconds(OURS))} s  ratio {spread(ratios)}  rows with the same tokens "
        f"{same:.0%}",
        flush=True,
    )
    return row | {"ratios": ratios, "same_tokens": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--inputs-length", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5, help="clean rounds wanted")
    parser.add_argument("--most-others", type=float, default=MOST_OTHERS, help="in a clean turn")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    flush_denormals()
    cfg = t5_1_1_small(dtype="float32", unroll_layers="all")
    model = make_hugging_face_t5(cfg).eval()
    print(
        f"T5 1.1 small, {options.inputs_length} input tokens, {TOKENS} output tokens, float32, "
        f"{jax.device_count()} devices"
    )
    rows = [
        compare(model, cfg, num_beams, batch_size, options)
        for num_beams in options.beams
        for batch_size in options.batch_sizes
    ]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
