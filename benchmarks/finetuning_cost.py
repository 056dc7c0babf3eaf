"""What each fine-tuning strategy costs: trained parameters, optimizer memory, FLOPs of a step.

    python benchmarks/finetuning_cost.py [--size t5_1_1_small] [--flops]

Nothing is trained: the first two come from shapes alone, FLOPs (`--flops`, some minutes) from the
compiled train step, as XLA counts them, for 8 rows of 512 inputs and 64 targets in float32.
"""

import argparse

import jax
import numpy as np

from t5jax.model.config import SIZES
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor, AdamW
from t5jax.training.peft import (
    Adapters,
    AllParameters,
    Freeze,
    GradualUnfreezing,
    LoRA,
    PromptTuning,
    TrainOnly,
)
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program

STRATEGIES = {
    "all parameters": (AllParameters(), {}),
    "gradual unfreezing": (GradualUnfreezing(), {}),
    "freeze the encoder": (Freeze(patterns=("^encoder",)), {}),
    "train norms only": (TrainOnly(patterns=("norm/scale$",)), {}),
    "adapters, width 32": (Adapters(), {"adapter_dim": 32}),
    "adapters, width 128": (Adapters(), {"adapter_dim": 128}),
    "adapters, width 512": (Adapters(), {"adapter_dim": 512}),
    "LoRA, rank 8, queries and values": (LoRA(), {}),
    "prompt of 100": (PromptTuning(), {"prompt_length": 100}),
}
OPTIMIZERS = {
    "Adafactor": Adafactor(learning_rate=1e-3, schedule=Constant()),
    "AdamW": AdamW(learning_rate=1e-3, schedule=Constant()),
}
ROWS, LENGTHS = 8, {"encoder_input_tokens": 512, "decoder_input_tokens": 64}
LENGTHS |= {"decoder_target_tokens": 64, "decoder_loss_weights": 64}


def program(size: str, name: str, optimizer: str) -> Program:
    strategy, needs = STRATEGIES[name]
    mesh = MeshConfig()
    return Program(
        model=SIZES[size](dtype="float32", unroll_layers="all", **needs),
        loss=CrossEntropy(),
        tx=strategy.wrap_optimizer(OPTIMIZERS[optimizer].build(1000), 1000),
        mesh_config=mesh,
        mesh=mesh.build(),
        finetuning=strategy,
    )


def flops(one: Program) -> float:
    spec = {name: (length,) for name, length in LENGTHS.items()}
    compiled = one.compile_train_step(one.abstract_batch(spec, ROWS), jax.random.key(0))
    analysis = compiled.cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="t5_1_1_small", choices=SIZES)
    parser.add_argument("--flops", action="store_true", help="compile the steps, too")
    options = parser.parse_args()
    print(f"{options.size}: optimizer state in MB of 10^6 bytes")
    print("| strategy | trained parameters | of all | Adafactor | AdamW | FLOPs of a step |")
    print("|---|---|---|---|---|---|")
    whole = None
    for name in STRATEGIES:
        row, cost = [name], "-"
        for optimizer in OPTIMIZERS:
            one = program(options.size, name, optimizer)
            if len(row) == 1:
                trained, every = count(one.trained), count(one.abstract_state.params)
                row += [f"{trained:,}", f"{trained / every:.2%}"]
                if options.flops:
                    number = flops(one)
                    whole = whole or number
                    cost = f"{number / whole:.2f}"
            size = sum(
                x.size * x.dtype.itemsize for x in jax.tree.leaves(one.abstract_state.opt_state)
            )
            row.append(f"{size / 1e6:,.2f}")
        print("| " + " | ".join([*row, cost]) + " |", flush=True)


def count(params) -> int:
    return int(np.sum([x.size for x in jax.tree.leaves(params)]))


if __name__ == "__main__":
    main()
