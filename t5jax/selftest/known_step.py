"""Two train steps of a small model whose losses are known, on the mesh of the run.

Parameters and rows are functions of their place (SplitMix64), the same everywhere, and rows are
repeated as often as the mesh wants: loss and gradient do not depend on the number of devices. The
update is plain gradient descent. `tests/selftest/test_known_step.py` compares the reference with
the model's definition in NumPy float64.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from t5jax.data.rng import keys_of_rows
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model
from t5jax.runtime import ExitCode
from t5jax.selftest.check import Check, failed, on_every_host
from t5jax.sharding import MeshConfig
from t5jax.training.compiler_options import compile_lowered
from t5jax.training.feeding import Feeder
from t5jax.training.losses import CrossEntropy
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState
from t5jax.types import EOS_ID, PAD_ID, Batch, Params

MODEL = T5Config(
    vocab_size=384,
    emb_dim=64,
    num_heads=8,
    head_dim=16,
    mlp_dim=96,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dtype="float32",
    unroll_layers=1,
    remat="none",
)
Step = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]
LEARNING_RATE = 0.05
# On CPUs the step takes milliseconds, and LLVM's optimizations of it a minute of a busy core.
_COMPILER_OPTIONS = {"cpu": {"xla_backend_optimization_level": 0}}
_ROWS, _INPUTS, _TARGETS = 8, 21, 13


class Numbers(NamedTuple):
    loss: float
    grad_norm: float
    second_loss: float  # after the update


REFERENCE = Numbers(loss=6.5279822, grad_norm=8.2146387, second_loss=5.4765086)
# Relative; accelerators round what goes into their products, gradients more often than losses.
TOLERANCES = {"cpu": Numbers(1e-5, 1e-4, 1e-4)}
TOLERANCE_OF_ACCELERATORS = Numbers(2e-3, 2e-2, 1e-2)
# Sizes that a mesh axis must divide, by the rule that says which axis.
_DIVIDED = {
    "vocab": MODEL.vocab_size,
    "embed": MODEL.emb_dim,
    "heads": MODEL.num_heads,
    "mlp": MODEL.mlp_dim,
}


def check_known_step(config: MeshConfig, mesh: jax.sharding.Mesh) -> Check:
    """Loss, gradient norm and the loss after the update, beside the reference."""
    name = "known step"
    rules, whole = layout(config, mesh)
    begun = time.perf_counter()
    try:
        found = run_steps(rules, mesh)
    except ConfigError as error:  # the same on all hosts
        return failed(name, ExitCode.CONFIG, str(error))
    seconds = time.perf_counter() - begun
    hosts = on_every_host(lambda: [value.hex() for value in found])
    if any(values != hosts[0] for values in hosts):
        return failed(name, ExitCode.INTERNAL, f"hosts computed different losses: {hosts}")
    tolerances = TOLERANCES.get(jax.default_backend(), TOLERANCE_OF_ACCELERATORS)
    compared = zip(Numbers._fields, found, REFERENCE, tolerances, strict=True)
    texts, wrong = [], False
    for field, value, reference, tolerance in compared:
        within = math.isclose(value, reference, rel_tol=tolerance)
        wrong |= not within
        sign = "" if within else " NOT"
        texts.append(
            f"{field} {value:.6g},{sign} within {tolerance:g} of the reference {reference:.6g}"
        )
    if wrong:
        return failed(name, ExitCode.INTERNAL, "; ".join(texts))
    text = (
        f"loss {found.loss:.6f}, then {found.second_loss:.6f}: within {tolerances.loss:g} and "
        f"{tolerances.second_loss:g} of the reference; {seconds:.1f} s with compiling"
    )
    if whole:
        text += f"; whole on every device, because the small model does not divide: {whole}"
    return Check(name=name, value=text, numbers={**found._asdict(), "seconds": seconds})


def layout(config: MeshConfig, mesh: jax.sharding.Mesh) -> tuple[MeshConfig, str]:
    """(the config's mesh with the built-in rules, but for those by which the small model does not
    divide; the names of these)"""
    names = ("data", "fsdp", "tensor", "dcn_data", "dcn_fsdp")
    rules = MeshConfig(**{name: getattr(config, name) for name in names})
    parts = {name: math.prod(mesh.shape[x] for x in getattr(rules, name)) for name in _DIVIDED}
    whole = [name for name, size in _DIVIDED.items() if size % parts[name]]
    for name in whole:
        setattr(rules, name, ())
    return rules, ", ".join(whole)


def run_steps(config: MeshConfig, mesh: jax.sharding.Mesh) -> Numbers:
    """Two train steps from the known parameters."""
    step, state = prepare(config, mesh)
    state, first = step(state)
    _, second = step(state)
    number = lambda x: float(np.asarray(x))
    return Numbers(number(first["loss"]), number(first["grad_norm"]), number(second["loss"]))


def prepare(config: MeshConfig, mesh: jax.sharding.Mesh) -> tuple[Step, TrainState]:
    """(the compiled step on the known rows, the state before the first)"""
    program = Program(
        model=MODEL,
        loss=CrossEntropy(z_loss=0.0),
        tx=optax.sgd(LEARNING_RATE),
        mesh_config=config,
        mesh=mesh,
    )
    rows = known_rows(math.lcm(_ROWS, program.replicas))
    size = len(rows["encoder_input_tokens"])
    feeder = Feeder(program.batch_sharding, size)
    batch = feeder.put({name: x[feeder.rows] for name, x in rows.items()})
    key = jax.random.key(0)
    with jax.default_matmul_precision("highest"):
        spec = {name: x.shape[1:] for name, x in rows.items()}
        lowered = program.lower_train_step(program.abstract_batch(spec, size), key)
    options = {**program.compiler_options, **_COMPILER_OPTIONS.get(jax.default_backend(), {})}
    step = compile_lowered(lowered, options)
    return lambda state: step(state, batch, key), program.init_from_params(known_params())


def known_params() -> Params:
    """Every parameter, float32, from its path and the place of each number in it."""
    abstract = nnx.to_pure_dict(nnx.state(abstract_model(MODEL), nnx.Param))
    paths = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(abstract)
    ]
    leaves = [_values(number, path, shape) for number, (path, shape) in enumerate(paths)]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def known_rows(number: int) -> Batch:
    """The eight rows, again and again; of several lengths, and full ones."""
    ids = lambda seed, length: (
        2 + _integers(seed, _ROWS * length, MODEL.vocab_size - 2).reshape(_ROWS, length)
    )
    lengths = lambda seed, most: np.maximum(2, most - _integers(seed, _ROWS, most))[:, None]
    features = {}
    for name, seed, length in (("inputs", 1001, _INPUTS), ("targets", 1002, _TARGETS)):
        place, ends = np.arange(length), lengths(seed + 10, length)
        x = np.where(place < ends, ids(seed, length), PAD_ID)
        features[name] = np.where(place == ends - 1, EOS_ID, x).astype(np.int32)
    targets = features["targets"]
    batch = {
        "encoder_input_tokens": features["inputs"],
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets != PAD_ID).astype(np.int32),
    }
    return {name: np.tile(x, (number // _ROWS, 1)) for name, x in batch.items()}


def _values(seed: int, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform, of standard deviation 1 for tables, fan_in^-0.5 for kernels; norm scales about 1."""
    unit = keys_of_rows(seed, np.arange(math.prod(shape))).astype(np.float64) / 2.0**64
    x = (2.0 * unit - 1.0) * math.sqrt(3.0)
    if path.endswith("scale"):
        x = 1.0 + 0.3 * x
    elif "embed" not in path:
        x *= shape[-2] ** -0.5
    return x.reshape(shape).astype(np.float32)


def _integers(seed: int, count: int, limit: int) -> np.ndarray:
    return (keys_of_rows(seed, np.arange(count)) % np.uint64(limit)).astype(np.int64)
