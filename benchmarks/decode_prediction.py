"""Predicted time a token of greedy decoding on a chip that is not here, beside its bandwidth.

    python benchmarks/decode_prediction.py v5e t5_1_1_large       # needs t5jax[plan]
    python benchmarks/decode_prediction.py h100 t5_1_1_large --num-beams 4

One device decodes --rows inputs of 512 tokens. The decoding step is compiled with two and with six
decoder layers, and its time is extrapolated to the model's: layers are equal, and 24 of them take a
quarter of an hour to compile. The limit is the time in which the chip reads weights, keys and
values once.
"""

import argparse
import dataclasses
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import optax

from t5jax.decoding import DecodingConfig
from t5jax.decoding.decode_state import Request
from t5jax.decoding.generator import decode_batch
from t5jax.model.config import SIZES, T5Config
from t5jax.planning.abstract_run import compute_params
from t5jax.planning.collectives import MeshNetwork
from t5jax.planning.cost import program_cost
from t5jax.planning.hlo import Module, parse_module
from t5jax.planning.topology import Topology, parse_topology, prepare_process
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.steps import Program

INPUTS, OUTPUTS = 512, 64
DEPTHS = (2, 6)


def step_seconds(topology: Topology, cfg: T5Config, rows: int, config: DecodingConfig) -> float:
    """Of one token of all rows, by the cost model of `t5jax plan`."""
    mesh_config = MeshConfig(data=1)
    mesh = mesh_config.build(topology.devices())
    loss, tx = CrossEntropy(first_sentinel_id=cfg.vocab_size), optax.identity()
    program = Program(model=cfg, loss=loss, tx=tx, mesh_config=mesh_config, mesh=mesh)
    ints: Any = lambda *shape: jax.ShapeDtypeStruct(
        shape, jnp.int32, sharding=program.batch_sharding
    )
    request = Request(ints(rows, INPUTS), ints(rows, 0), ints(rows))
    params = (compute_params(program),)
    with program.use_mesh():
        lowered = decode_batch.lower(
            (program.model_def,),
            params,
            request,
            config,
            cfg.vocab_size,
            rows_per_device=program.batch_sharding,
        )
    is_gpu = topology.chip.platform == "gpu"
    compiled = lowered.compile({"xla_gpu_enable_triton_gemm": False} if is_gpu else None)
    module, network = parse_module(compiled.as_text() or ""), MeshNetwork(mesh, topology)
    bodies = (module._replace(entry=name) for name in loop_bodies(module))
    # The loop over tokens: the encoder has one layer, which is no loop.
    return max(program_cost(body, topology.chip, network, cfg.dtype).seconds for body in bodies)


def loop_bodies(module: Module) -> list[str]:
    instructions = (x for computation in module.computations.values() for x in computation.values())
    return [x.find(r"body=%?([\w.\-]+)") or "" for x in instructions if x.opcode == "while"]


def least_bytes(cfg: T5Config, rows: int, num_beams: int) -> int:
    """Read a token: bfloat16 weights, and keys and values of the inputs and of all outputs."""
    features, layers = cfg.num_heads * cfg.head_dim, cfg.num_decoder_layers
    gated = len(cfg.mlp_activations) + 1
    weights = layers * cfg.emb_dim * (6 * features + gated * cfg.mlp_dim)
    weights += cfg.emb_dim * cfg.vocab_size
    return 2 * (weights + 2 * rows * layers * features * (INPUTS + num_beams * OUTPUTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("chip", help="such as v5e, v5p, h100")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--num-beams", type=int, default=1)
    args = parser.parse_args()
    topology = parse_topology(f"{args.chip}:{'1x1x1' if args.chip in ('v4', 'v5p') else '1x1'}")
    prepare_process(topology)
    cfg = dataclasses.replace(SIZES[args.size](), dtype="bfloat16", num_encoder_layers=1)
    config = DecodingConfig(max_length=OUTPUTS, num_beams=args.num_beams)
    few, more = (
        step_seconds(topology, dataclasses.replace(cfg, num_decoder_layers=x), args.rows, config)
        for x in DEPTHS
    )
    layer = (more - few) / (DEPTHS[1] - DEPTHS[0])
    predicted = few + (cfg.num_decoder_layers - DEPTHS[0]) * layer
    limit = least_bytes(cfg, args.rows, args.num_beams) / topology.chip.memory_bandwidth
    print(
        f"{args.size} on one {args.chip}, {args.rows} rows of {INPUTS} tokens, {args.num_beams} "
        f"beam(s): predicted {predicted * 1e3:.2f} ms a token ({layer * 1e3:.3f} a layer), reading "
        f"everything once {limit * 1e3:.2f} ms"
    )


if __name__ == "__main__":
    main()
