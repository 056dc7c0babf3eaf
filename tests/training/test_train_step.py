"""One step: the same on every mesh and however a batch is cut; nothing changes on a bad batch."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from t5jax.checkpoints import leaves_by_path
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model, init_params
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy, zero_sums
from t5jax.training.optimizers import Adafactor, AdamW, OptaxOptimizer
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState, cast_params, make_train_step, row_keys
from tests.marks import slow_but
from tests.model import tiny_t5

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]  # data, fsdp, tensor
OPTIMIZERS = {
    "adafactor": Adafactor(learning_rate=0.05, schedule=Constant(), min_dim_size_to_factor=20),
    "adamw": AdamW(learning_rate=0.01, schedule=Constant(), weight_decay=0.1),
}
ADAFACTOR_AND_OTHERS = ["adafactor", pytest.param("adamw", marks=pytest.mark.long)]
MUON = OptaxOptimizer(
    factory="optax.contrib.muon", learning_rate=0.01, schedule=Constant(), global_norm_clip=1.0
)
ROWS, INPUTS, TARGETS, STEPS = 32, 11, 7, 4


VARIANTS = {"adafactor": "1.1", "adamw": "1.0", "muon": "1.1"}  # tied and untied logits


def divisible_model(optimizer="adafactor", **changes) -> T5Config:
    """What eight devices share one way or another has to divide among them; with dropout."""
    shape = {
        "vocab_size": 60, "emb_dim": 24, "num_heads": 4, "head_dim": 5, "mlp_dim": 28,
        "num_encoder_layers": 1, "num_decoder_layers": 2, "dropout_rate": 0.1,
    }  # fmt: skip
    return tiny_t5.config(VARIANTS[optimizer], **{**shape, **changes})


def build(mesh, optimizer="adafactor", num_microbatches=1, **changes) -> Program:
    config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    return Program(
        model=divisible_model(optimizer, **changes),
        loss=CrossEntropy(first_sentinel_id=50),
        tx=(OPTIMIZERS | {"muon": MUON})[optimizer].build(STEPS),
        mesh_config=config,
        mesh=config.build(),
        num_microbatches=num_microbatches,
    )


def batches():
    cfg = divisible_model()
    return [tiny_t5.random_batch(cfg, ROWS, INPUTS, TARGETS, seed=step) for step in range(STEPS)]


def start(program: Program) -> TrainState:
    params = tiny_t5.random_params(program.model)
    zero = np.zeros((), np.int32)
    state = TrainState(zero, params, program.tx.init(params), zero)
    return jax.device_put(state, program.shardings)


def train(program: Program):
    """Metrics of every step, and the last state. One compiled program takes all of them: a state
    that came back in another layout, and would compile again in a loop, would be refused."""
    spec = {name: x.shape[1:] for name, x in batches()[0].items()}
    step = program.compile_train_step(program.abstract_batch(spec, ROWS), jax.random.key(0))
    state, metrics = start(program), []
    for batch in batches():
        batch = jax.device_put(batch, program.batch_sharding)
        state, numbers = step(state, batch, jax.random.key(3))
        metrics.append({name: float(x) for name, x in numbers.items()})
    return metrics, state


@functools.cache
def reference(optimizer: str):
    """Eight replicas of everything, the batch in one piece."""
    return train(build((8, 1, 1), optimizer))


def assert_same_curve(program: Program, optimizer: str):
    want, want_state = reference(optimizer)
    got, state = train(program)
    for step, (x, y) in enumerate(zip(got, want, strict=True)):
        for name in y:
            assert x[name] == pytest.approx(y[name], rel=1e-5), f"{name} of step {step}"
    assert int(state.step) == STEPS
    assert want[-1]["loss"] < want[0]["loss"] + 0.5  # it trains and does not diverge
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(want_state.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "num_microbatches", "changes"),
    [
        pytest.param((1, 8, 1), 2, {}, marks=pytest.mark.slow),
        ((2, 2, 2), 4, {}),
        pytest.param(
            (1, 2, 4),
            1,
            {"unroll_layers": "all", "remat": "full"},
            marks=[pytest.mark.slow, pytest.mark.long],
        ),
    ],
)
def test_adafactor_does_not_depend_on_the_mesh(mesh, num_microbatches, changes):
    program = build(mesh, "adafactor", num_microbatches, **changes)
    assert_same_curve(program, "adafactor")


@pytest.mark.slow
def test_adamw_does_not_depend_on_the_mesh():
    assert_same_curve(build((2, 2, 2), "adamw", 2), "adamw")


@pytest.mark.slow
@pytest.mark.long
def test_muon_does_not_depend_on_the_mesh():
    assert_same_curve(build((2, 2, 2), "muon", 2), "muon")


def test_muons_state_is_sharded_like_its_parameters():
    state = build((2, 2, 2), "muon").abstract_state
    slots = leaves_by_path(state.opt_state)
    split = 0
    for path, param in leaves_by_path(state.params).items():
        found = [x for name, x in slots.items() if name.endswith(f"/{path}")]
        assert found, f"{path} has no slot"
        for slot in found:
            assert (slot.shape, slot.sharding) == (param.shape, param.sharding), path
        split += not param.sharding.is_fully_replicated
    assert split > 10, "kernels, each with its slots, are divided"


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_microbatches",
    [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(4, marks=pytest.mark.long)],
)
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("optimizer", ADAFACTOR_AND_OTHERS)
def test_every_mesh_and_number_of_microbatches(optimizer, mesh, num_microbatches):
    assert_same_curve(build(mesh, optimizer, num_microbatches), optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"remat": "dots"}, {"unroll_layers": "all"}])
@pytest.mark.parametrize("optimizer", ADAFACTOR_AND_OTHERS)
def test_remat_and_unrolling(optimizer, changes):
    assert_same_curve(build((2, 2, 2), optimizer, **changes), optimizer)


@pytest.mark.slow
def test_the_state_keeps_its_sharding():
    _, state = reference("adafactor")
    wanted = build((8, 1, 1)).abstract_state
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        assert x.dtype == y.dtype


@pytest.mark.slow
def test_fresh_parameters_do_not_depend_on_the_mesh():
    states = [build(mesh).init(seed=5) for mesh in ((8, 1, 1), (1, 2, 4))]
    for x, y in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    key = jax.random.key(5)
    alone = jax.jit(functools.partial(init_params, divisible_model()))(key)
    for x, y in zip(jax.tree.leaves(states[0].params), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_evaluation_of_shards_equals_that_of_the_whole():
    program, batch = build((1, 2, 4)), batches()[0]
    params = tiny_t5.random_params(program.model)
    placed = jax.device_put(params, program.shardings.params)
    got = program.eval_step(placed, jax.device_put(batch, program.batch_sharding))
    cfg = dataclasses.replace(program.model, dropout_rate=0.0)
    want, _ = jax.jit(functools.partial(tiny_t5.loss_and_logits, cfg))(params, batch)
    assert float(got.loss) == pytest.approx(float(want), rel=1e-6)
    assert float(got.weight) == batch["decoder_loss_weights"].sum()


# ---- the step itself, with a model that compiles in no time


class Bigram(nnx.Module):
    """Predicts a token from the one before it; noise of its own for every row."""

    def __init__(self, vocab_size=23, width=6):
        self.table = nnx.Param(jnp.zeros((vocab_size, width)))
        self.out = nnx.Param(jnp.zeros((width, vocab_size)))

    def hidden_and_table(self, batch, keys_B):
        hidden = self.table[...][batch["decoder_input_tokens"]]
        if keys_B is not None:
            noise = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, hidden.shape[1:]))(keys_B)
            hidden = hidden * noise.astype(hidden.dtype)
        return hidden, self.out[...]


def bigram_params():
    rng = np.random.default_rng(2)
    return {
        "table": rng.normal(size=(23, 6)).astype(np.float32),
        "out": rng.normal(size=(6, 23)).astype(np.float32),
    }


def bigram_batch(seed=0, rows=8):
    cfg = tiny_t5.config(vocab_size=23)
    batch = tiny_t5.random_batch(cfg, rows, INPUTS, TARGETS, seed=seed)
    return {**batch, "decoder_loss_weights": batch["decoder_loss_weights"].astype(np.float32)}


def bigram_step(tx, loss=None, **options):
    options = {"dtype": "float32", "dropout": False, **options}
    return jax.jit(make_train_step(nnx.graphdef(Bigram()), loss or CrossEntropy(), tx, **options))


def bigram_state(tx) -> TrainState:
    params = bigram_params()
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, tx.init(params), zero)


NORMALIZED = {
    loss.normalizer: loss
    for loss in (
        CrossEntropy(),
        CrossEntropy(normalizer="target_positions"),
        CrossEntropy(normalizer="sequences"),
        CrossEntropy(normalizer="sum"),
        CrossEntropy(normalizer="constant", normalizing_factor=17.0),
    )
}
FEW = [("target_tokens", 1), ("target_tokens", 4), ("sequences", 2), ("constant", 4)]


@pytest.mark.parametrize(
    ("normalizer", "num_microbatches"), slow_but(FEW, itertools.product(NORMALIZED, (1, 2, 4)))
)
def test_gradients_are_divided_once(normalizer, num_microbatches):
    """Plain gradient descent at rate 1: what is subtracted is the gradient."""
    loss, tx, batch = NORMALIZED[normalizer], optax.sgd(1.0), bigram_batch()
    rows_weights = batch["decoder_loss_weights"].sum(axis=1)
    assert len(np.unique(rows_weights.reshape(-1, 4).sum(axis=0))) > 1  # uneven microbatches

    def objective(params):
        logits = params["table"][batch["decoder_input_tokens"]] @ params["out"]
        nll = optax.softmax_cross_entropy_with_integer_labels(
            logits, batch["decoder_target_tokens"]
        )
        per_token = nll + loss.z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2
        per_token *= batch["decoder_loss_weights"]
        return {
            "target_tokens": per_token.sum() / rows_weights.sum(),
            "target_positions": per_token.mean(),
            "sequences": (per_token.sum(axis=1) / rows_weights).mean(),
            "sum": per_token.sum(),
            "constant": per_token.sum() / 17.0,
        }[normalizer]

    params = bigram_params()
    want = jax.grad(objective)(params)
    step = bigram_step(tx, loss, num_microbatches=num_microbatches)
    state, metrics = step(bigram_state(tx), batch, jax.random.key(0))
    for name, gradient in want.items():
        np.testing.assert_allclose(
            params[name] - state.params[name], gradient, atol=2e-6, rtol=1e-4
        )
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.global_norm(want)), rel=1e-5)


def test_metrics():
    tx, batch, params = optax.sgd(0.0), bigram_batch(), bigram_params()
    step = bigram_step(tx, CrossEntropy(z_loss=0.01, first_sentinel_id=20))
    _, metrics = step(bigram_state(tx), batch, jax.random.key(0))
    logits = params["table"][batch["decoder_input_tokens"]] @ params["out"]
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    nll = log_z - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    text = weights * (targets < 20)
    want = {
        "loss": (nll * weights).sum() / weights.sum(),
        "text_loss": (nll * text).sum() / text.sum(),
        "z_loss": 0.01 * (log_z**2 * weights).sum() / weights.sum(),
        "accuracy": ((logits.argmax(-1) == targets) * weights).sum() / weights.sum(),
        "target_tokens": weights.sum(),
        "param_norm": np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in params.values())),
        "bad_steps": 0,
        "non_padding_inputs": (batch["encoder_input_tokens"] > 0).mean(),
        "non_padding_targets": (targets > 0).mean(),
        "input_tokens": (batch["encoder_input_tokens"] > 0).sum(),
    }
    grad_norm = metrics.pop("grad_norm")
    assert float(grad_norm) > 0
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("num_microbatches", [1, 2, 4])
def test_sums_of_each_task_do_not_depend_on_microbatches(num_microbatches):
    tx, batch, params = optax.sgd(0.1), bigram_batch(), bigram_params()
    tasks = np.array([1, 4, 1, 0, 4, 4, 1, 4], np.int32)
    logits = params["table"][batch["decoder_input_tokens"]].astype(np.float64) @ params["out"]
    targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    nll = (
        np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    )
    correct = logits.argmax(-1) == targets
    columns = [(x * weights).sum(axis=1) for x in (nll, correct, np.ones_like(nll))]
    want = np.stack([np.bincount(tasks, column, minlength=5) for column in columns], axis=1)
    loss = CrossEntropy(num_tasks=5)
    step = bigram_step(tx, loss, num_microbatches=num_microbatches)
    state, metrics = step(bigram_state(tx), batch | {"task_ids": tasks}, jax.random.key(0))
    np.testing.assert_allclose(metrics["tasks"], want, rtol=1e-5)
    assert (want[:, 2] > 0).tolist() == [True, True, False, False, True]
    plain, _ = bigram_step(tx, num_microbatches=num_microbatches)(
        bigram_state(tx), batch, jax.random.key(0)
    )
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_dropout_of_a_row_does_not_depend_on_microbatches():
    tx = optax.sgd(0.1)
    run = lambda batch, **options: bigram_step(tx, dropout=True, **options)(
        bigram_state(tx), batch, jax.random.key(9)
    )[1]
    whole = float(run(bigram_batch())["loss"])
    assert float(run(bigram_batch(), num_microbatches=4)["loss"]) == pytest.approx(whole, rel=1e-6)
    without = bigram_step(tx)(bigram_state(tx), bigram_batch(), jax.random.key(9))[1]
    assert abs(float(without["loss"]) - whole) > 0.01


def test_row_keys():
    """Of a row by its number and the step; how many rows there are does not matter."""
    key = jax.random.key(1)
    data = lambda step, rows: np.asarray(jax.random.key_data(row_keys(key, step, rows)))
    np.testing.assert_array_equal(data(4, 3), data(4, 11)[:3])
    everything = np.concatenate([data(step, 5) for step in range(7)])
    assert len(np.unique(everything, axis=0)) == 35


def assert_identical(got, want):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(x).view(np.uint32), np.asarray(y).view(np.uint32))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_bad_batch_changes_nothing(optimizer, number):
    """Parameters and optimizer stay as they were, bit for bit; the next good step counts anew."""
    tx = OPTIMIZERS[optimizer].build(100)
    step, key = bigram_step(tx, num_microbatches=2), jax.random.key(0)
    bad = bigram_batch(seed=1)
    bad["decoder_loss_weights"][3, 2] = number
    good_state, metrics = step(bigram_state(tx), bigram_batch(), key)
    assert int(metrics["bad_steps"]) == 0
    state = good_state
    for count in (1, 2, 3):
        state, metrics = step(state, bad, key)
        assert int(metrics["bad_steps"]) == int(state.bad_steps) == count
        assert not np.isfinite(float(metrics["loss"]))
        assert int(state.step) == 1 + count  # the batch is consumed
        assert_identical((state.params, state.opt_state), (good_state.params, good_state.opt_state))
    state, metrics = step(state, bigram_batch(seed=2), key)
    assert int(metrics["bad_steps"]) == int(state.bad_steps) == 0
    # As if the bad batches had never been: no dropout here, whose keys would know the step.
    without, _ = step(good_state, bigram_batch(seed=2), key)
    assert_identical((state.params, state.opt_state), (without.params, without.opt_state))
    assert np.abs(state.params["table"] - good_state.params["table"]).max() > 0


def test_a_bad_gradient_of_a_good_loss_changes_nothing():
    """The root of 0 is 0, its derivative is infinite."""
    tx = optax.sgd(0.1)
    root = lambda model, batch, keys: CrossEntropy()(Rooted(model), batch, keys)
    root.divisor, root.num_tasks = CrossEntropy().divisor, 0
    step = bigram_step(tx, root)
    state = bigram_state(tx)
    state.params["table"][:] = np.abs(state.params["table"])
    good, metrics = step(state, bigram_batch(), jax.random.key(0))
    assert int(metrics["bad_steps"]) == 0
    good.params["table"] = jnp.abs(good.params["table"]).at[2:9, 1].set(0.0)
    after, metrics = step(good, bigram_batch(), jax.random.key(0))
    assert np.isfinite(float(metrics["loss"]))
    assert int(metrics["bad_steps"]) == 1
    assert_identical(after.params, good.params)


class Rooted:
    """A model whose output is the root of another's."""

    def __init__(self, model):
        self.model = model

    def hidden_and_table(self, batch, keys_B):
        hidden, table = self.model.hidden_and_table(batch, keys_B)
        return jnp.sqrt(hidden), table


def test_parameters_are_cast_and_their_gradients_are_not():
    params = bigram_params()
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(cast_params(params, "bfloat16")))
    tx = optax.sgd(0.1)
    state, _ = bigram_step(tx, dtype="bfloat16")(
        bigram_state(tx), bigram_batch(), jax.random.key(0)
    )
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    changed = np.asarray(state.params["out"] != jnp.bfloat16(state.params["out"]))
    assert changed.mean() > 0.9  # the update was made to all the bits of the parameters


# ---- the token table


TABLE_MESHES = [(None, 1), (None, 4), ((2, 2, 2), 1), ((2, 2, 2), 2)]


@pytest.mark.parametrize(
    ("mesh", "num_microbatches"), slow_but([(None, 4), ((2, 2, 2), 2)], TABLE_MESHES)
)
def test_gradient_of_the_token_table_in_bfloat16(mesh, num_microbatches):
    """8192 tokens by Zipf's law, whose vectors' gradients have a mean of one sigma: sums of
    thousands of bfloat16 numbers would be 15 % wrong, those of the most frequent token 19 %."""
    rng = np.random.default_rng(0)
    rows, length, vocab, width = 64, 128, 2048, 16
    zipf = 1 / np.arange(1, vocab + 1)
    tokens = rng.choice(vocab, (rows, length), p=zipf / zipf.sum()).astype(np.int32)
    directions = jnp.asarray(rng.normal(size=(rows, length, width)) + 1.0, jnp.bfloat16)
    few = np.ones((rows, 3), np.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "directions": directions,
        "decoder_target_tokens": few,
        "decoder_loss_weights": few,
    }

    def along_directions(model, batch, keys_B):
        x_BSD = model.embed(batch["encoder_input_tokens"])
        assert x_BSD.dtype == jnp.bfloat16
        one = jnp.float32(x_BSD.shape[0] / rows)
        objective = jnp.sum((x_BSD * batch["directions"]).astype(jnp.float32))
        return zero_sums(0)._replace(objective=objective, denominator=one, weight=one)

    cfg = divisible_model(vocab_size=vocab, emb_dim=width, dtype="bfloat16", num_decoder_layers=1)
    tx = optax.sgd(1.0)
    definition = nnx.graphdef(abstract_model(cfg))
    options = {"dtype": cfg.dtype, "num_microbatches": num_microbatches, "dropout": False}
    step = make_train_step(definition, along_directions, tx, **options)
    params = {**tiny_t5.random_params(cfg), "token_embedder": np.zeros((vocab, width), np.float32)}
    state = TrainState(np.int32(0), params, tx.init(params), np.int32(0))
    if mesh is None:
        after, _ = jax.jit(step)(state, batch, jax.random.key(0))
    else:
        program = dataclasses.replace(build(mesh), model=cfg, tx=tx)
        with program.use_mesh():
            state = jax.device_put(state, program.shardings)
            batch = jax.device_put(batch, program.batch_sharding)
            after, _ = jax.jit(step)(state, batch, jax.random.key(0))
    want = np.zeros((vocab, width))
    np.add.at(want, tokens, np.asarray(directions, np.float64))
    error = np.linalg.norm(after.params["token_embedder"] + want) / np.linalg.norm(want)
    assert error < 0.005


@pytest.mark.slow
def test_norms_of_every_tensor_change_nothing_and_add_up():
    program = dataclasses.replace(build((8, 1, 1)), tensor_norms=True)
    spec = {name: x.shape[1:] for name, x in batches()[0].items()}
    step = program.compile_train_step(program.abstract_batch(spec, ROWS), jax.random.key(0))
    before = start(program)
    weights = {path: np.asarray(x) for path, x in leaves_by_path(before.params).items()}
    batch = jax.device_put(batches()[0], program.batch_sharding)
    state, metrics = step(before, batch, jax.random.key(3))
    norms = {path: float(x) for path, x in leaves_by_path(metrics.pop("norms")).items()}
    want = reference("adafactor")[0][0]
    assert {name: float(x) for name, x in metrics.items()} == pytest.approx(want, rel=1e-5)
    assert len(norms) == 3 * len(weights)
    squares = 0.0
    for path, x in weights.items():
        size = lambda x: np.sqrt(np.sum(np.square(x, dtype=np.float64)))
        assert norms[f"weights/{path}"] == pytest.approx(size(x), rel=1e-5)
        moved = np.asarray(leaves_by_path(state.params)[path]) - x
        assert norms[f"updates/{path}"] == pytest.approx(size(moved), rel=1e-3), path
        squares += norms[f"gradients/{path}"] ** 2
    assert np.sqrt(squares) == pytest.approx(want["grad_norm"], rel=1e-5)
