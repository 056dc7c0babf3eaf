"""Decoding beside Hugging Face: T5 1.1 small, 64 tokens, greedy and four beams, the same weights.

    python benchmarks/decode.py                      # needs the `parity` extra
    python benchmarks/decode.py --inputs-length 512 --batch-sizes 8

Both sides take turns in one process, with all cores and float32; the ratio of a turn is theirs to
ours. EOS is held back so that both say 64 tokens. The tokens of both are compared. Ours has a
device for each core, which share the rows, unless JAX_NUM_CPU_DEVICES says otherwise.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count()))
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")

import jax
import numpy as np
import optax
import torch
import transformers

from t5jax.decoding import DecodingConfig, Generator
from t5jax.model.config import T5Config, t5_1_1_small
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.steps import Program
from tests.model.foreign_weights import from_hf

TOKENS = 64


def hugging_face(cfg: T5Config) -> transformers.T5ForConditionalGeneration:
    torch.manual_seed(0)
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=cfg.vocab_size,
            d_model=cfg.emb_dim,
            d_kv=cfg.head_dim,
            d_ff=cfg.mlp_dim,
            num_layers=cfg.num_encoder_layers,
            num_decoder_layers=cfg.num_decoder_layers,
            num_heads=cfg.num_heads,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    ).eval()


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


def seconds(function) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--inputs-length", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    cfg = t5_1_1_small(dtype="float32", unroll_layers="all")
    model = hugging_face(cfg)
    print(f"T5 1.1 small, {options.inputs_length} input tokens, {TOKENS} output tokens, float32")
    for num_beams in options.beams:
        for batch_size in options.batch_sizes:
            shape = batch_size, options.inputs_length
            tokens = np.random.default_rng(0).integers(3, 32000, shape).astype(np.int32)
            theirs, ours = sides(model, cfg, tokens, num_beams)
            ours()  # compiles
            theirs()
            turns = [(seconds(theirs), seconds(ours)) for _ in range(options.turns)]
            ratios = [hf[0] / t5jax[0] for hf, t5jax in turns]
            same = np.mean([(hf[1] == t5jax[1]).all(axis=1) for hf, t5jax in turns])
            print(
                f"beams {num_beams}  batch {batch_size:3d}  Hugging Face "
                f"{statistics.median(hf[0] for hf, _ in turns):6.2f} s  t5jax "
                f"{statistics.median(t5jax[0] for _, t5jax in turns):6.2f} s  ratio "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})  "
                f"rows with the same tokens {same:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
