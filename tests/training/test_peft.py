"""Every strategy: begins as the pretrained model, moves what it should, pays for nothing else."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model, init_params
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
    Strategy,
    TrainOnly,
    merge_trees,
    partition_params,
)
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState, make_train_step
from tests.model import tiny_t5

STRATEGIES: dict[str, tuple[Strategy, dict]] = {  # with what they need of the model
    "all": (AllParameters(), {}),
    "only": (TrainOnly(patterns=("^decoder/.*wi", "final_norm")), {}),
    "freeze": (Freeze(patterns=("encoder/", "token_embedder")), {}),
    "adapters": (Adapters(), {"adapter_dim": 8}),
    "unfreezing": (GradualUnfreezing(), {}),
    "lora": (LoRA(rank=2, alpha=3.0), {}),
    "prompt": (PromptTuning(), {"prompt_length": 4}),
}
ADAMW = AdamW(learning_rate=0.01, schedule=Constant(), weight_decay=0.1)
ADAFACTOR = Adafactor(learning_rate=0.05, schedule=Constant(), min_dim_size_to_factor=16)
STEPS = 6


LAYERS = {"num_encoder_layers": 2, "num_decoder_layers": 1}


def pretrained() -> dict:
    return tiny_t5.random_params(tiny_t5.config(**LAYERS))


def model_of(name: str, **changes) -> T5Config:
    return tiny_t5.config(**LAYERS, **STRATEGIES[name][1], **changes)


def begun(name: str, cfg: T5Config, given: dict) -> dict:
    """Parameters of a run at step 0, as `Program.init` makes them."""

    def begin(given: dict) -> dict:
        fresh = init_params(cfg, jax.random.key(1))
        return STRATEGIES[name][0].add_parameters(merge_trees(fresh, given), jax.random.key(2))

    return jax.jit(begin)(given)


def leaves(tree) -> dict:
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in found}


def paths(tree) -> dict[str, np.ndarray]:
    return {path: np.asarray(x) for path, x in leaves(tree).items()}


def trained(name: str, steps: int = 1, optimizer=ADAMW):
    """(parameters before, the state after so many steps), on one device."""
    strategy, cfg = STRATEGIES[name][0], model_of(name)
    params = begun(name, cfg, pretrained())
    tx = strategy.wrap_optimizer(optimizer.build(STEPS), STEPS)
    step = make_train_step(
        nnx.graphdef(abstract_model(cfg)),
        CrossEntropy(),
        tx,
        dtype="float32",
        dropout=False,
        finetuning=strategy,
    )
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        zero, params, tx.init(partition_params(params, strategy.is_trainable)[0]), zero
    )
    step = jax.jit(step)
    for number in range(steps):
        state, _ = step(state, tiny_t5.random_batch(cfg, 4, 7, 5, seed=number), jax.random.key(0))
    return params, state


# ---- step 0


def logits_at_step_0(name: str, dtype: str):
    """(of the pretrained model, of the run that begins with it)"""
    plain, cfg = tiny_t5.config(**LAYERS, dtype=dtype), model_of(name, dtype=dtype)
    params, batch = pretrained(), tiny_t5.random_batch(plain, 3, 7, 5)
    cast = functools.partial(jax.tree.map, lambda x: x.astype(dtype))
    want = jax.jit(lambda p: tiny_t5.build(plain, cast(p))(batch))(params)
    merged = STRATEGIES[name][0].merge_parameters
    got = jax.jit(lambda p: tiny_t5.build(cfg, cast(merged(p)))(batch))(begun(name, cfg, params))
    return want, got


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("adapters", "float32"),
        pytest.param("lora", "bfloat16", marks=pytest.mark.slow),
        pytest.param("lora", "float32", marks=pytest.mark.slow),
    ],
)
def test_step_0_is_the_pretrained_model(name, dtype):
    """The other strategies add nothing; a prompt is seen by every position."""
    want, got = logits_at_step_0(name, dtype)
    tiny_t5.assert_close(got, want, {"float32": 1e-5, "bfloat16": 2**-7}[dtype])


def test_lora_factors_at_step_0_add_nothing():
    given, strategy = pretrained(), STRATEGIES["lora"][0]
    merged = jax.jit(strategy.merge_parameters)(begun("lora", model_of("lora"), given))
    assert paths(merged).keys() == paths(given).keys()
    for path, x in paths(given).items():
        np.testing.assert_array_equal(paths(merged)[path], x)


@pytest.mark.slow
def test_step_0_with_adapters_in_bfloat16():
    """XLA leaves out the rounding of a sum to which the adapter's zeros are added at once."""
    want, got = logits_at_step_0("adapters", "bfloat16")
    np.testing.assert_allclose(got, want, atol=0.05)


def test_a_prompt_is_initialized_from_token_embeddings():
    cfg, given = model_of("prompt"), pretrained()
    params = begun("prompt", cfg, given)
    table = given["token_embedder"]
    assert params["prompt"].shape == (4, 18)
    places = [np.flatnonzero((table == row).all(axis=1)) for row in np.asarray(params["prompt"])]
    assert all(len(place) == 1 and place[0] >= 3 for place in places)


def test_a_prompt_is_what_its_tokens_would_be():
    """The vectors of tokens in front of the input are those tokens in front of the input."""
    cfg, plain, given = model_of("prompt"), tiny_t5.config(**LAYERS), pretrained()
    ids = np.array([7, 3, 20, 11], np.int32)
    batch = tiny_t5.random_batch(plain, 3, 7, 5)
    longer = np.pad(batch["encoder_input_tokens"], ((0, 0), (4, 0)))
    longer[:, :4] = ids
    whole = jax.jit(lambda params, batch: tiny_t5.build(plain, params)(batch))
    want = whole(given, batch | {"encoder_input_tokens": longer})
    prompted = jax.jit(lambda prompt: tiny_t5.build(cfg, given | {"prompt": prompt})(batch))
    got = prompted(given["token_embedder"][ids])
    np.testing.assert_allclose(got, want, atol=1e-5)
    backwards = prompted(given["token_embedder"][ids[::-1]])
    assert np.abs(got - backwards).max() > 1e-3, "where a vector stands matters"


# ---- what trains

CHANGED = {
    "all": "",
    "only": r"^decoder/layers/mlp/wi_[01]$|final_norm",
    "freeze": r"^decoder|logits_dense",
    "adapters": r"adapter/(up|down|norm)|_norm/scale",
    "lora": r"(self|cross)_attention/(query|value)_lora/[ab]$",
    "prompt": r"^prompt$",
}


def abstract_state(strategy: Strategy, cfg: T5Config, mesh: MeshConfig | None = None) -> TrainState:
    mesh = mesh or MeshConfig()
    return Program(
        model=cfg,
        loss=CrossEntropy(),
        tx=strategy.wrap_optimizer(ADAMW.build(STEPS), STEPS),
        mesh_config=mesh,
        mesh=mesh.build(),
        finetuning=strategy,
    ).abstract_state


@pytest.mark.parametrize("name", STRATEGIES)
def test_trainable_parameters_and_their_memory(name):
    """AdamW: two float32 moments of each parameter that trains, and its two counts."""
    strategy, _ = STRATEGIES[name]
    state = abstract_state(strategy, model_of(name))
    train, frozen = partition_params(state.params, strategy.is_trainable)
    expected = {path for path in leaves(state.params) if re.search(CHANGED.get(name, ""), path)}
    assert set(leaves(train)) == expected
    assert leaves(train).keys() | leaves(frozen).keys() == leaves(state.params).keys()
    assert jax.tree.structure(merge_trees(frozen, train)) == jax.tree.structure(state.params)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
    own_count = 4 * (name == "unfreezing")
    assert size == 8 * sum(x.size for x in jax.tree.leaves(train)) + 8 + own_count


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGED)
def test_only_trainable_parameters_change_and_have_slots(name):
    """Two steps, because the factors A of LoRA have no gradient in the first. AdamW decays weights
    whether they have a gradient or not."""
    before, state = trained(name, steps=2)
    after, before = paths(state.params), paths(before)
    assert set(after) == set(before)
    changed = {path for path in after if (after[path] != before[path]).any()}
    expected = {path for path in after if re.search(CHANGED[name], path)}
    assert changed == expected
    assert changed
    adam = jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
    (moments,) = [x for x in adam if isinstance(x, optax.ScaleByAdamState)]
    assert set(paths(moments.mu)) == set(paths(moments.nu)) == expected


@pytest.mark.slow
def test_frozen_parameters_have_no_gradients():
    """FLOPs of a step before XLA sees it. Backward, a product costs its gradients for the weights
    and for what comes from below: training the top alone needs neither in the encoder."""
    cfg = tiny_t5.config(unroll_layers="all", mlp_dim=200, vocab_size=30)
    batch = tiny_t5.random_batch(cfg, 4, 60, 60)

    def flops(strategy: Strategy) -> float:
        tx = strategy.wrap_optimizer(ADAMW.build(STEPS), STEPS)
        step = make_train_step(
            nnx.graphdef(abstract_model(cfg)), CrossEntropy(), tx,
            dtype="float32", dropout=False, finetuning=strategy,
        )  # fmt: skip
        params = tiny_t5.random_params(cfg)
        zero = jnp.zeros((), jnp.int32)
        state = TrainState(
            zero, params, tx.init(partition_params(params, strategy.is_trainable)[0]), zero
        )
        return jax.jit(step).lower(state, batch, jax.random.key(0)).cost_analysis()["flops"]

    whole = flops(AllParameters())
    assert flops(TrainOnly(patterns=("decoder/final_norm",))) < 0.45 * whole
    assert 0.55 * whole < flops(TrainOnly(patterns=("^encoder/layers/mlp_norm",))) < 0.8 * whole


def test_slots_and_lora_factors_are_sharded_like_their_weights():
    cfg = tiny_t5.config(vocab_size=60, emb_dim=24, num_heads=4, mlp_dim=28, adapter_dim=6)
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    for strategy in (LoRA(rank=2), Adapters()):
        state = abstract_state(strategy, cfg, mesh)
        spec = {path: x.sharding.spec for path, x in leaves(state.params).items()}
        moments = leaves(state.opt_state)
        for path, x in moments.items():
            name = path.split("/mu/")[-1]
            if name in spec:
                assert x.sharding.spec == spec[name], path
        if isinstance(strategy, LoRA):
            query = "encoder/layers/self_attention/query"
            assert spec[f"{query}_lora/a"] == P(None, ("fsdp",), None)
            assert spec[f"{query}_lora/b"] == P(None, None, ("tensor",))


# ---- LoRA


class Toy(nnx.Module):
    """Predicts a token from the one before it through a stack of two layers."""

    def __init__(self):
        self.token_embedder = nnx.Param(jnp.zeros((23, 6)))
        self.encoder = nnx.Module()
        self.encoder.layers = nnx.Module()
        self.encoder.layers.wi = nnx.Param(jnp.zeros((2, 6, 6)))
        self.logits_dense = nnx.Param(jnp.zeros((6, 23)))

    def hidden_and_table(self, batch, keys_B=None):
        hidden = self.token_embedder[...][batch["decoder_input_tokens"]]
        for weight in self.encoder.layers.wi[...]:
            hidden = jnp.tanh(hidden @ weight)
        return hidden, self.logits_dense[...]


def test_loras_update_is_the_gradient_by_hand():
    """Plain gradient descent at rate 1, from factors that are not 0."""
    strategy = LoRA(rank=2, alpha=3.0, patterns=("layers/wi$", "logits_dense"))
    rng = np.random.default_rng(0)
    random = lambda x: rng.normal(size=x.shape).astype(np.float32)
    definition, plain = nnx.split(Toy())
    params = strategy.add_parameters(nnx.to_pure_dict(plain), jax.random.key(4))
    params = jax.tree.map(random, params)
    batch = tiny_t5.random_batch(tiny_t5.config(vocab_size=23), 4, 7, 5)

    def mean_loss(merged):
        hidden, table = nnx.merge(definition, merged).hidden_and_table(batch)
        nll = optax.softmax_cross_entropy_with_integer_labels(
            hidden @ table, batch["decoder_target_tokens"]
        )
        return (nll * batch["decoder_loss_weights"]).sum() / batch["decoder_loss_weights"].sum()

    merged = strategy.merge_parameters(params)
    gradients = jax.jit(jax.grad(mean_loss))(merged)
    tx = optax.sgd(1.0)
    step = make_train_step(
        definition,
        CrossEntropy(z_loss=0.0),
        tx,
        dtype="float32",
        dropout=False,
        finetuning=strategy,
        num_microbatches=2,
    )
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        zero, params, tx.init(partition_params(params, strategy.is_trainable)[0]), zero
    )
    state, metrics = jax.jit(step)(state, batch, jax.random.key(0))
    squares = 0.0
    before, after = paths(params), paths(state.params)
    for path in ("encoder/layers/wi", "logits_dense"):
        a, b = before[f"{path}_lora/a"], before[f"{path}_lora/b"]
        dw = paths(gradients)[path]
        da, db = 1.5 * dw @ b.swapaxes(-1, -2), 1.5 * a.swapaxes(-1, -2) @ dw
        np.testing.assert_allclose(a - after[f"{path}_lora/a"], da, atol=1e-4 * abs(da).max())
        np.testing.assert_allclose(b - after[f"{path}_lora/b"], db, atol=1e-4 * abs(db).max())
        squares += (da**2).sum() + (db**2).sum()
        np.testing.assert_array_equal(after[path], before[path])
        np.testing.assert_allclose(paths(merged)[path], before[path] + 1.5 * a @ b, atol=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(squares**0.5, rel=1e-5)
    assert leaves(merged).keys() == leaves(nnx.to_pure_dict(plain)).keys()
    assert leaves(strategy.merge_parameters(merged)).keys() == leaves(merged).keys(), (
        "merged is merged"
    )


def test_lora_factors_are_initialized_as_published():
    strategy = LoRA(rank=5, patterns=("wi_0$", "wi_1$", "logits_dense"))
    plain = tiny_t5.random_params(tiny_t5.config(emb_dim=512))
    params = strategy.add_parameters(plain, jax.random.key(3))
    layers = params["encoder"]["layers"]["mlp"]
    a = np.asarray(layers["wi_0_lora"]["a"])
    assert a.shape == (3, 512, 5)
    assert layers["wi_0_lora"]["b"].shape == (3, 5, 22)
    assert not np.asarray(layers["wi_0_lora"]["b"]).any()
    assert a.std() == pytest.approx(512**-0.5, rel=0.05)
    assert abs(np.corrcoef(a.ravel(), np.asarray(layers["wi_1_lora"]["a"]).ravel())[0, 1]) < 0.1
    assert params["logits_dense_lora"]["a"].shape == (512, 5)


# ---- gradual unfreezing


def tree(encoder_layers: int, decoder_layers: int) -> dict:
    return {
        "encoder": {
            "layers": {"w": np.ones((encoder_layers, 2, 2)), "norm": np.ones((encoder_layers, 2))},
            "relpos_bias": {"embedding": np.ones((2, 2))},
            "final_norm": {"scale": np.ones(2)},
        },
        "decoder": {"layers": {"w": np.ones((decoder_layers, 2, 2))}},
        "token_embedder": np.ones((3, 2)),
        "logits_dense": np.ones((2, 3)),
    }


def moved(strategy: GradualUnfreezing, params: dict, num_steps: int) -> list[dict[str, list[bool]]]:
    """For every step, what of each parameter is moved: by layer, or the whole."""
    tx = strategy.wrap_optimizer(optax.sgd(1.0), num_steps)
    state, found = tx.init(params), []
    update = jax.jit(tx.update)
    for _ in range(num_steps):
        updates, state = update(params, state, params)
        found.append(
            {path: x.reshape(len(x), -1).any(axis=1).tolist() for path, x in paths(updates).items()}
        )
    return found


def test_gradual_unfreezing_starts_at_the_top_layers():
    """Three episodes of ten steps begin at steps 0, 4 and 7."""
    found = moved(GradualUnfreezing(), tree(3, 2), 10)
    encoder = [sum(step["encoder/layers/w"]) for step in found]
    assert encoder == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [sum(step["decoder/layers/w"]) for step in found] == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert found[0]["encoder/layers/w"] == found[0]["encoder/layers/norm"] == [False, False, True]
    for step in found:
        for path in ("encoder/final_norm/scale", "token_embedder", "logits_dense"):
            assert all(step[path]), path
    assert [all(step["encoder/relpos_bias/embedding"]) for step in found] == [False] * 7 + [
        True
    ] * 3


def test_the_papers_schedule():
    """Twelve episodes of 2^18 / 12 steps for stacks of twelve layers."""
    starts = GradualUnfreezing().episode_starts(2**18, 12)
    assert starts == [int(np.ceil(n * 2**18 / 12)) for n in range(12)]
    assert starts[:3] == [0, 21_846, 43_691]
    found = moved(GradualUnfreezing(num_episodes=12), tree(12, 12), 24)
    counts = [sum(step["decoder/layers/w"]) for step in found]
    assert counts == [n for n in range(1, 13) for _ in range(2)]


def test_fewer_episodes_than_layers_and_more():
    found = moved(GradualUnfreezing(num_episodes=2), tree(6, 3), 4)
    assert [sum(step["encoder/layers/w"]) for step in found] == [3, 3, 6, 6]
    assert [sum(step["decoder/layers/w"]) for step in found] == [2, 2, 3, 3]
    found = moved(GradualUnfreezing(num_episodes=4), tree(2, 2), 4)
    assert [sum(step["encoder/layers/w"]) for step in found] == [1, 1, 2, 2]


@pytest.mark.parametrize("optimizer", [ADAMW, ADAFACTOR], ids=["adamw", "adafactor"])
def test_a_frozen_layer_stays_and_its_moments_follow(optimizer):
    """As training everything would, but for the updates of what is frozen; weight decay too."""
    rng = np.random.default_rng(3)
    random = lambda x: rng.normal(size=x.shape).astype(np.float32)
    params = jax.tree.map(random, tree(3, 2))
    free, gradual = (
        optimizer.build(STEPS),
        GradualUnfreezing().wrap_optimizer(optimizer.build(STEPS), STEPS),
    )
    states = free.init(params), gradual.init(params)
    free_update, gradual_update = jax.jit(free.update), jax.jit(gradual.update)
    for number in range(STEPS):
        gradients = jax.tree.map(random, params)
        want, first = free_update(gradients, states[0], params)
        got, second = gradual_update(gradients, states[1], params)
        states = first, second
        thawed = 1 + number // 2
        for path, x in paths(want).items():
            keep = np.ones(len(x), bool)
            if "/layers/" in path:
                keep = np.arange(len(x)) >= len(x) - -(-thawed * len(x) // 3)
            elif "relpos_bias" in path:
                keep[:] = thawed == 3
            np.testing.assert_allclose(paths(got)[path][keep], x[keep], rtol=1e-5, atol=1e-7)
            assert not paths(got)[path][~keep].any()
            assert x.reshape(len(x), -1).any(axis=1).all()
        for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second[0]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


# ---- meshes and microbatches


def divisible(name: str) -> T5Config:
    """What eight devices share one way or another has to divide among them; with dropout."""
    shape = {"vocab_size": 60, "emb_dim": 24, "num_heads": 4, "mlp_dim": 28, "dropout_rate": 0.1}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "unroll_layers": "all"}
    return tiny_t5.config(**shape, **layers, **STRATEGIES[name][1])


def run(step, state: TrainState, cfg: T5Config, put=lambda batch: batch):
    """Metrics of three steps, and the parameters after them."""
    numbers = []
    for number in range(3):
        batch = put(tiny_t5.random_batch(cfg, 16, 11, 7, seed=number))
        state, metrics = step(state, batch, jax.random.key(3))
        numbers.append([float(metrics[name]) for name in ("loss", "grad_norm", "param_norm")])
    return numbers, paths(state.params)


@functools.cache
def first_params(name: str) -> dict:
    cfg = divisible(name)
    plain = tiny_t5.random_params(dataclasses.replace(cfg, adapter_dim=0, prompt_length=0))
    return jax.device_get(begun(name, cfg, plain))


def start(name: str, tx: optax.GradientTransformation) -> TrainState:
    zero, params = np.zeros((), np.int32), first_params(name)
    return TrainState(
        zero, params, tx.init(partition_params(params, STRATEGIES[name][0].is_trainable)[0]), zero
    )


@functools.cache
def on_one_device(name: str):
    cfg, (strategy, _) = divisible(name), STRATEGIES[name]
    tx = strategy.wrap_optimizer(ADAFACTOR.build(STEPS), STEPS)
    definition = nnx.graphdef(abstract_model(cfg))
    options = {"dtype": "float32", "dropout": True, "finetuning": strategy}
    step = make_train_step(definition, CrossEntropy(), tx, **options)
    return run(jax.jit(step), start(name, tx), cfg)


def on_a_mesh(name: str, mesh: tuple[int, int, int], num_microbatches: int):
    cfg, (strategy, _) = divisible(name), STRATEGIES[name]
    config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    program = Program(
        model=cfg,
        loss=CrossEntropy(),
        tx=strategy.wrap_optimizer(ADAFACTOR.build(STEPS), STEPS),
        mesh_config=config,
        mesh=config.build(),
        num_microbatches=num_microbatches,
        finetuning=strategy,
    )
    state = jax.device_put(start(name, program.tx), program.shardings)
    spec = {k: x.shape[1:] for k, x in tiny_t5.random_batch(cfg, 16, 11, 7).items()}
    step = program.compile_train_step(program.abstract_batch(spec, 16), jax.random.key(0))
    return run(step, state, cfg, lambda batch: jax.device_put(batch, program.batch_sharding))


def assert_same_update(name: str, mesh: tuple[int, int, int], num_microbatches: int):
    want, want_params = on_one_device(name)
    got, params = on_a_mesh(name, mesh, num_microbatches)
    np.testing.assert_allclose(got, want, rtol=2e-5)
    for path, x in want_params.items():
        np.testing.assert_allclose(params[path], x, rtol=1e-3, atol=1e-4, err_msg=path)
    _, frozen = partition_params(first_params(name), STRATEGIES[name][0].is_trainable)
    for path, x in paths(frozen).items():
        np.testing.assert_array_equal(params[path], x, err_msg=path)


LAYOUTS = [
    pytest.param((8, 1, 1), 2, marks=pytest.mark.long),
    ((2, 2, 2), 2),
    pytest.param((1, 2, 4), 1, marks=pytest.mark.long),
    pytest.param((1, 8, 1), 2, marks=pytest.mark.long),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "num_microbatches"), LAYOUTS)
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("all", "lora", "unfreezing")
        else pytest.param(name, marks=pytest.mark.long)
        for name in STRATEGIES
    ],
)
def test_fine_tuning_does_not_depend_on_the_mesh(name, mesh, num_microbatches):
    assert_same_update(name, mesh, num_microbatches)


# ---- what is refused


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: TrainOnly(patterns=()), r"finetuning.patterns = \(\): TrainOnly needs at least"),
        (lambda: Freeze(patterns=("a(",)), r"'a\(' is not a regular expression"),
        (lambda: LoRA(rank=0), "finetuning.rank = 0"),
        (lambda: LoRA(alpha=0.0), "finetuning.alpha = 0.0"),
        (lambda: GradualUnfreezing(num_episodes=0), "finetuning.num_episodes = 0"),
        (lambda: Adapters().check(T5Config()), "Adapters, but model.adapter_dim = 0"),
        (lambda: PromptTuning().check(T5Config()), "PromptTuning, but model.prompt_length = 0"),
        (
            lambda: GradualUnfreezing(num_episodes=9).wrap_optimizer(optax.sgd(1.0), 8),
            "num_episodes = 9: the run has 8 steps",
        ),
        (lambda: T5Config(adapter_dim=-1), "model.adapter_dim = -1: must be at least 0"),
    ],
)
def test_settings_that_are_refused(make, reason):
    with pytest.raises(ConfigError, match=reason):
        make()


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (TrainOnly(patterns=("decoder", "encodr")), "'encodr' matches none .* which are decoder/"),
        (Freeze(patterns=("nothing",)), "Freeze's 'nothing' matches none"),
        (Freeze(patterns=("er", "logits")), "Freeze would leave nothing to train"),
        (LoRA(patterns=("norm",)), "matches decoder/final_norm/scale, which is not a matrix"),
        (LoRA(patterns=("layers/mlp_norm",)), "mlp_norm/scale, which is not a matrix"),
        (LoRA(rank=15), "rank = 15: decoder/.*query is 18 x 15; a rank of 15 or more"),
    ],
)
def test_what_does_not_fit_the_parameters(strategy, reason):
    with pytest.raises(ConfigError, match=reason):
        abstract_state(strategy, tiny_t5.config())
