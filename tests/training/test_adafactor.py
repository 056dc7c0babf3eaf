"""Adafactor against a float64 NumPy version of the formula, and its promises on stacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Constant, Rsqrt
from tests.marks import slow_but

SHAPES = {
    "token_embedder": (259, 131),  # factored, larger dimension first
    "logits_dense": (131, 259),  # factored
    "encoder/layers/mlp/wi": (3, 130, 257),  # factored per layer
    "encoder/layers/mlp_norm/scale": (3, 131),  # a vector per layer
    "encoder/layers/relpos_bias/embedding": (3, 12, 32),
    "encoder/relpos_bias/embedding": (6, 32),  # a matrix too small to factor
    "encoder/final_norm/scale": (131,),
    "decoder/layers/self_attention/query": (2, 140, 140),  # square
    "decoder/layers/cross_attention/key": (2, 300, 5),  # one side too small to factor
}
SOME = ("token_embedder", "encoder/layers/mlp/wi", "encoder/layers/mlp_norm/scale")
STACKED = [name for name in SHAPES if "/layers/" in name]


def nested(flat):
    tree = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


def flattened(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def random_params(seed=0):
    """Scales differ from layer to layer by orders of magnitude; one layer is below the floor."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in SHAPES.items():
        value = rng.normal(size=shape)
        if name in STACKED:
            value *= np.array([2e-5, 0.5, 20.0])[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
        params[name] = value.astype(np.float32)
    return params


@functools.cache
def random_grads(step):
    """Heavy tails, so that updates are clipped, and layers of very different sizes."""
    rng = np.random.default_rng((1, step))
    grads = {}
    for name, shape in SHAPES.items():
        value = rng.normal(size=shape) ** 3 * rng.lognormal(0, 1)
        if name in STACKED:
            value *= np.array([1e-4, 1.0, 3.0])[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
        grads[name] = value.astype(np.float32)
    grads["token_embedder"][7] = 0.0  # a token that was never seen
    return grads


class NumpyAdafactor:
    """One tensor, float64, from the formula (Shazeer and Stern 2018, algorithms 4 and 5)."""

    def __init__(self, param, *, beta1=None, weight_decay=None, threshold=1.0, factored=True):
        self.param = np.array(param, np.float64)
        self.beta1, self.weight_decay, self.threshold = beta1, weight_decay, threshold
        self.factored = factored and self.param.ndim == 2 and min(self.param.shape) >= 128
        self.v = self.rows = self.columns = self.momentum = 0.0
        self.clipped = 0

    def step(self, grad, t, rate):
        squared = np.array(grad, np.float64) ** 2 + 1e-30
        beta2 = 1.0 - (t + 1.0) ** -0.8
        if self.factored:
            self.rows = beta2 * self.rows + (1 - beta2) * squared.mean(axis=1)
            self.columns = beta2 * self.columns + (1 - beta2) * squared.mean(axis=0)
            v = np.outer(self.rows, self.columns) / self.rows.mean()
        else:
            v = self.v = beta2 * self.v + (1 - beta2) * squared
        update = grad / np.sqrt(v)
        rms = np.sqrt(np.mean(update**2))
        self.clipped += rms > self.threshold
        update /= max(1.0, rms / self.threshold)
        update *= rate * max(np.sqrt(np.mean(self.param**2)), 1e-3)
        if self.beta1 is not None:
            update = self.momentum = self.beta1 * self.momentum + (1 - self.beta1) * update
        decay = self.weight_decay(rate) if self.weight_decay else 0.0
        self.param = (1.0 - decay) * self.param - update


def run_ours(tx, marks, names):
    """The parameters after the numbers of steps in `marks`, and the last state."""
    pick = lambda flat: nested({name: flat[name] for name in names})
    params = pick(random_params())
    state = tx.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    seen = []
    for t in range(max(marks)):
        params, state = step(params, state, pick(random_grads(t)))
        if t + 1 in marks:
            seen.append(flattened(params))
    return seen, state


def as_layers(name, array):
    return array if name in STACKED else array[None]


def run_numpy(marks, names, rate, **settings):
    start = random_params()
    layers = {
        name: [NumpyAdafactor(p, **settings) for p in as_layers(name, start[name])]
        for name in names
    }
    seen = []
    for t in range(max(marks)):
        for name in names:
            grad = random_grads(t)[name]
            for i, layer in enumerate(layers[name]):
                layer.step(as_layers(name, grad)[i], t, rate(t))
        if t + 1 in marks:
            arrays = {name: [layer.param for layer in tensors] for name, tensors in layers.items()}
            seen.append({k: np.stack(x) if k in STACKED else x[0] for k, x in arrays.items()})
    return seen, sum(layer.clipped for tensors in layers.values() for layer in tensors)


def assert_same(ours, expected):
    """Root mean square of the difference at most 1e-6 of the parameter's own, layer by layer."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        axes = tuple(range(1 if name in STACKED else 0, value.ndim))
        difference = np.sqrt(np.mean((np.float64(ours[name]) - value) ** 2, axis=axes))
        size = np.sqrt(np.mean(value**2, axis=axes))
        assert np.all(difference <= 1e-6 * size), (name, difference / size)


CASES = {
    "T5": ({}, {}),
    "momentum": ({"beta1": 0.9}, {"beta1": 0.9}),
    "decay": (
        {"weight_decay": 0.3, "weight_decay_exponent": 2.0},
        {"weight_decay": lambda rate: 0.3 * rate**2},
    ),
    "momentum and decay": (
        {"beta1": 0.8, "weight_decay": 0.01},
        {"beta1": 0.8, "weight_decay": lambda rate: 0.01},
    ),
    "no clipping": ({"clipping_threshold": None}, {"threshold": np.inf}),
    "tight clipping": ({"clipping_threshold": 0.3}, {"threshold": 0.3}),
    "unfactored": ({"factored": False}, {"factored": False}),
}


@pytest.mark.parametrize("case", slow_but(["T5", "momentum and decay", "unfactored"], CASES))
def test_equals_the_formula(case):
    ours, reference = CASES[case]
    in_full = case in ("T5", "momentum and decay")
    marks, names = ((5, 50), tuple(SHAPES)) if in_full else ((5,), SOME)
    tx = Adafactor(schedule=Rsqrt(warmup_steps=40), **ours).build(1000)
    actual, state = run_ours(tx, marks, names)
    expected, clipped = run_numpy(marks, names, lambda t: max(t, 40) ** -0.5, **reference)
    for after, value in zip(actual, expected, strict=True):
        assert_same(after, value)
    assert int(state.count) == marks[-1]
    assert (clipped > 0) == (case != "no clipping"), "the case does not test what it says"
    start = random_params()
    moved = [np.linalg.norm(x - start[k]) / np.linalg.norm(x) for k, x in expected[0].items()]
    assert min(moved) > 0.02, "too little movement for the comparison to mean anything"


@pytest.mark.slow
def test_a_stack_is_its_layers_each_on_its_own():
    """To the last bits: means over arrays of other shapes may be added in another order."""
    tx = Adafactor(schedule=Constant(), learning_rate=0.1, beta1=0.9).build(9)
    for name in ("encoder/layers/mlp/wi", "encoder/layers/mlp_norm/scale"):

        def run(pick, wrap, name=name):
            params = wrap(jnp.asarray(pick(random_params()[name])))
            state = tx.init(params)
            for t in range(2):
                updates, state = tx.update(wrap(pick(random_grads(t)[name])), state, params)
                params = optax.apply_updates(params, updates)
            return jax.tree.leaves(params)[0]

        together = run(lambda x: x, lambda x, name=name: nested({name: x}))
        for i in range(3):
            alone = run(lambda x, i=i: x[i], lambda x: {"layer": x})
            np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-6, err_msg=name)


def test_equals_optax_where_nothing_is_stacked():
    settings = {"beta1": 0.9, "weight_decay": 0.01}
    ours = Adafactor(schedule=Constant(), learning_rate=0.1, **settings).build(9)
    library = optax.adafactor(0.1, momentum=0.9, weight_decay_rate=0.01)
    names = ("token_embedder", "encoder/relpos_bias/embedding")
    results = []
    for tx in (ours, library):
        params = {name: jnp.asarray(random_params()[name]) for name in names}
        state = tx.init(params)
        for t in range(3):
            grads = {name: random_grads(t)[name] for name in names}
            updates, state = jax.jit(tx.update)(grads, state, params)
            params = optax.apply_updates(params, updates)
        results.append(params)
    for name in names:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-4, atol=1e-6)


def test_slots_have_the_paths_of_the_parameters():
    tx = Adafactor(schedule=Constant(), beta1=0.9, momentum_dtype="bfloat16").build(9)
    state = tx.init(nested({k: jnp.asarray(v) for k, v in random_params().items()}))
    v, m = flattened(state.v), flattened(state.m)
    v_row, v_col = flattened(state.v_row), flattened(state.v_col)
    factored = {
        "token_embedder": ((131,), (259,)),
        "logits_dense": ((131,), (259,)),
        "encoder/layers/mlp/wi": ((3, 130), (3, 257)),
        "decoder/layers/self_attention/query": ((2, 140), (2, 140)),
    }
    for name, shape in SHAPES.items():
        rows, columns = factored.get(name, ((1,), (1,)))
        assert (v_row[name].shape, v_col[name].shape) == (rows, columns), name
        assert v[name].shape == ((1,) if name in factored else shape), name
        assert {v[name].dtype, v_row[name].dtype, v_col[name].dtype} == {jnp.dtype("float32")}
        assert (m[name].shape, m[name].dtype) == (shape, jnp.bfloat16)
    without_momentum = Adafactor().build(9).init({"w": jnp.ones((7, 5))})
    assert without_momentum.m["w"].shape == (1,)


def test_bfloat16_momentum_is_rounded_only_in_the_state():
    """As in T5X: this step uses the float32 value, the next one reads the rounded one."""
    tx = Adafactor(
        learning_rate=0.1, schedule=Constant(), beta1=0.9, momentum_dtype="bfloat16"
    ).build(9)
    params = {"w": jnp.full((3,), 2.0)}
    first, state = tx.update({"w": jnp.array([1.0, -2.0, 3.0])}, tx.init(params), params)
    np.testing.assert_allclose(first["w"], [-0.02, 0.02, -0.02], rtol=1e-6)
    rounded = np.float32(jnp.bfloat16(0.02))
    np.testing.assert_array_equal(state.m["w"], [rounded, -rounded, rounded])
    second, _ = tx.update({"w": jnp.array([1.0, -2.0, 3.0])}, state, params)
    expected = -(0.9 * rounded + 0.1 * 0.1 * 2.0)
    np.testing.assert_allclose(second["w"], [expected, -expected, expected], rtol=1e-6)


def test_step_offset_starts_the_moments_anew():
    """At the offset β is 0, so whatever was averaged before is forgotten."""
    start = {"w": jnp.ones((4,))}
    grads = {"w": jnp.array([3.0, -1.0, 0.5, 2.0])}
    tx = Adafactor(schedule=Constant(), step_offset=2).build(9)
    state = tx.init(start)
    for _ in range(2):
        _, state = tx.update({"w": 100.0 * grads["w"]}, state, start)
    updates, state = tx.update(grads, state, start)
    np.testing.assert_allclose(updates["w"], -np.sign(grads["w"]), rtol=1e-6)
    np.testing.assert_allclose(state.v["w"], np.square(grads["w"]), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e8])
def test_rows_without_gradient_among_others_of_any_size_stay_finite(size):
    params = {"token_embedder": jnp.ones((150, 130))}
    grads = jnp.full((150, 130), size).at[3:90].set(0.0).at[:, 5].set(0.0)
    tx = Adafactor(schedule=Constant(), learning_rate=0.1).build(9)
    state = tx.init(params)
    for _ in range(3):
        updates, state = jax.jit(tx.update)({"token_embedder": grads}, state, params)
        change = np.asarray(updates["token_embedder"])
        assert np.all(np.isfinite(change))
        assert np.all(change[3:90] == 0.0)
        assert np.all(change[:3, :5] < 0.0)


def test_global_norm_clip_comes_before_the_moments():
    params = {"w": jnp.ones((4,))}
    grads = {"w": jnp.array([3.0, -1.0, 0.5, 2.0])}
    tx = Adafactor(schedule=Constant(), global_norm_clip=1.0).build(9)
    _, (_, state) = tx.update(grads, tx.init(params), params)
    norm = np.linalg.norm(grads["w"])
    np.testing.assert_allclose(state.v["w"], np.square(grads["w"] / norm), rtol=1e-6)


def test_three_dimensions_per_layer_are_refused_by_name():
    params = {"encoder": {"layers": {"query": jnp.ones((3, 5, 2, 4))}}}
    with pytest.raises(ValueError, match=r"encoder/layers/query has shape \(5, 2, 4\) per layer"):
        Adafactor().build(9).init(params)
    state = Adafactor(factored=False).build(9).init(params)
    assert state.v["encoder"]["layers"]["query"].shape == (3, 5, 2, 4)


def test_params_are_required():
    tx = Adafactor().build(9)
    with pytest.raises(ValueError, match="pass `params`"):
        tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}))


@pytest.mark.slow
def test_a_sharded_state_gives_the_same_updates():
    """Parameters and same-shaped slots split over 8 devices, layers included in the replicas."""
    mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    params = nested(
        {
            "token_embedder": np.float32(np.random.default_rng(3).normal(size=(264, 136))),
            "encoder/layers/mlp/wi": random_params()["encoder/layers/mlp/wi"][:, :, :256],
            "encoder/layers/mlp_norm/scale": random_params()["encoder/layers/mlp_norm/scale"],
        }
    )
    grads = jax.tree.map(lambda x: x + np.float32(np.sin(10 * x)), params)
    by_shape = {(264, 136): P("tensor", "fsdp"), (3, 130, 256): P(None, "fsdp", "tensor")}
    placed = lambda tree: jax.tree.map(
        lambda x: jax.device_put(x, NamedSharding(mesh, by_shape.get(x.shape, P()))), tree
    )
    tx = Adafactor(schedule=Constant(), learning_rate=0.1, beta1=0.9).build(9)
    step = jax.jit(tx.update)
    state = tx.init(params)
    sharded_state = placed(state)
    for _ in range(2):
        expected, state = step(grads, state, params)
        actual, sharded_state = step(placed(grads), sharded_state, placed(params))
    for name, value in flattened(actual).items():
        np.testing.assert_allclose(value, flattened(expected)[name], rtol=1e-5, err_msg=name)
    assert len(flattened(actual)["token_embedder"].sharding.device_set) == 8


@pytest.mark.parity
@pytest.mark.parametrize("beta1", [None, 0.9])
def test_equals_transformers_for_single_matrices(beta1):
    """transformers factors every matrix and decays relative to scale, so: large ones, no decay."""
    torch = pytest.importorskip("torch")
    optimization = pytest.importorskip("transformers.optimization")
    names = ("token_embedder", "logits_dense", "encoder/final_norm/scale")
    torch_params = {k: torch.nn.Parameter(torch.tensor(random_params()[k])) for k in names}
    theirs = optimization.Adafactor(
        torch_params.values(), lr=0.05, scale_parameter=True, relative_step=False, beta1=beta1
    )
    tx = Adafactor(schedule=Constant(), learning_rate=0.05, beta1=beta1).build(9)
    ours = {name: jnp.asarray(random_params()[name]) for name in names}
    state = tx.init(ours)
    for t in range(6):
        grads = {name: random_grads(t)[name] for name in names}
        for name, param in torch_params.items():
            param.grad = torch.tensor(grads[name])
        theirs.step()
        updates, state = jax.jit(tx.update)(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
    for name in names:
        change = np.asarray(ours[name]) - random_params()[name]
        expected = torch_params[name].detach().numpy() - random_params()[name]
        assert np.linalg.norm(change - expected) <= 1e-5 * np.linalg.norm(expected), name
