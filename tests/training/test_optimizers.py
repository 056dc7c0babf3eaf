"""The optimizer sections: AdamW and optax by name against references, and refused settings."""

import math
from operator import attrgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError
from t5jax.training import optimizers
from t5jax.training.optimizers import Adafactor, AdamW, OptaxOptimizer, per_layer
from t5jax.training.schedules import Constant, Cosine, Linear, Rsqrt
from tests.marks import slow_but

NUM_STEPS = 5


def params_tree(seed=0):
    rng = np.random.default_rng(seed)
    array = lambda scale, *shape: np.float32(scale * rng.normal(size=shape))
    layers = np.float32([1e-4, 0.5, 8.0])
    return {
        "token_embedder": array(1.0, 19, 7),
        "encoder": {
            "layers": {
                "mlp": {"wi": array(1.0, 3, 7, 11) * layers[:, None, None]},
                "mlp_norm": {"scale": array(1.0, 3, 7) * layers[:, None]},
            },
            "relpos_bias": {"embedding": array(0.2, 2, 5)},
        },
        "decoder": {"layers": {"mlp": {"wo": array(0.3, 2, 11, 7)}}},
    }


def grads_tree(step):
    return jax.tree.map(lambda x: np.float32(0.1 * x), params_tree(seed=100 + step))


def run(tx, num_steps=NUM_STEPS, layout=lambda tree: tree):
    """The parameters after some steps, with parameters and gradients laid out by `layout`."""

    @jax.jit
    def steps():
        params = layout(params_tree())
        state = tx.init(params)
        for step in range(num_steps):
            updates, state = tx.update(layout(grads_tree(step)), state, params)
            params = optax.apply_updates(params, updates)
        return params

    return steps()


def unstacked(tree):
    """Every layer a tensor of its own, out of the reach of the rule for stacks."""
    split = lambda stack: jax.tree.map(lambda x: [x[i] for i in range(x.shape[0])], stack)
    return {
        "token_embedder": tree["token_embedder"],
        "bias": tree["encoder"]["relpos_bias"],
        "encoder_layers": split(tree["encoder"]["layers"]),
        "decoder_layers": split(tree["decoder"]["layers"]),
    }


def assert_trees_close(actual, expected, **tolerances):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, a), e in pairs:
        np.testing.assert_allclose(a, e, err_msg=jax.tree_util.keystr(path), **tolerances)


def numpy_adamw(rate, *, decay=0.0, rms_scaled=False, clip=None, eps=1e-8, num_steps=NUM_STEPS):
    """float64, from the formula; `rms_scaled` per layer of a stack."""
    names = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.float64(x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    params = names(params_tree())
    m = dict.fromkeys(params, 0.0)
    v = dict.fromkeys(params, 0.0)
    for t in range(num_steps):
        grads = names(grads_tree(t))
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        shrink = min(1.0, clip / norm) if clip else 1.0
        for name, p in params.items():
            g = grads[name] * shrink
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            update = m[name] / (1 - 0.9 ** (t + 1))
            update /= np.sqrt(v[name] / (1 - 0.999 ** (t + 1))) + eps
            if rms_scaled:
                axes = tuple(range(1 if "/layers/" in name else 0, p.ndim))
                rms = np.sqrt(np.mean(p**2, axis=axes, keepdims=True))
                update *= np.maximum(rms, 1e-3)
            decays = not name.endswith("/scale") and "relpos_bias" not in name
            params[name] = p - rate(t) * (update + (decay * p if decays else 0.0))
    return params


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"decay": 0.1},
        {"rms_scaled": True, "eps": 1e-6},
        {"rms_scaled": True, "decay": 0.1, "clip": 0.5},
    ],
)
def test_adamw_equals_the_formula(settings):
    section = AdamW(
        learning_rate=0.02,
        schedule=Linear(),
        weight_decay=settings.get("decay", 0.0),
        rms_scaled=settings.get("rms_scaled", False),
        eps=settings.get("eps", 1e-8),
        global_norm_clip=settings.get("clip"),
    )
    expected = numpy_adamw(lambda t: 0.02 * (1 - t / 40), **settings)
    actual, start = jax.tree.leaves(run(section.build(40))), jax.tree.leaves(params_tree())
    for (name, e), a, before in zip(expected.items(), actual, start, strict=True):
        axes = tuple(range(1 if "/layers/" in name else 0, e.ndim))
        size = lambda x, axes=axes: np.sqrt(np.sum(np.float64(x) ** 2, axis=axes))
        # optax forms 1 - 0.999**t in float32, which costs 3e-5 at the first steps.
        assert np.all(size(a - e) <= 5e-5 * size(e - before)), (name, size(a - e))


@pytest.mark.parity
def test_adamw_equals_torch():
    torch = pytest.importorskip("torch")
    weight = params_tree()["token_embedder"]
    parameter = torch.nn.Parameter(torch.tensor(weight))
    theirs = torch.optim.AdamW([parameter], lr=0.02, weight_decay=0.1)
    for t in range(NUM_STEPS):
        parameter.grad = torch.tensor(grads_tree(t)["token_embedder"])
        theirs.step()
    section = AdamW(
        learning_rate=0.02, schedule=Constant(), weight_decay=0.1, global_norm_clip=None
    )
    ours = run(section.build(9))["token_embedder"]
    np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_default_adamw_clips_by_global_norm():
    tx = AdamW(schedule=Constant()).build(9)
    params = {"token_embedder": jnp.zeros(2)}
    state = tx.init(params)
    _, state = tx.update({"token_embedder": jnp.array([30.0, 40.0])}, state, params)
    np.testing.assert_allclose(state[1].mu["token_embedder"], [0.06, 0.08], rtol=1e-6)


OFFERED = sorted(set(optimizers._optax_factories()) - set(optimizers._UNFIT) - {"optax.noisy_sgd"})


FEW = ["optax.lamb", "optax.lars", "optax.lion", "optax.contrib.dog", "optax.contrib.prodigy"]


@pytest.mark.parametrize("factory", slow_but(FEW, OFFERED))
def test_optax_optimizers_treat_a_stack_as_its_layers(factory):
    """All that are offered, so that a new one in optax that looks at whole tensors is noticed."""
    arguments = {
        "optax.lars": {"weight_decay": 0.1},
        "optax.lamb": {"weight_decay": 0.1},
        # Of these the first estimates of the rate, which would hardly move anything in two steps.
        "optax.contrib.dadapt_adamw": {"estim_lr0": 0.1},
        "optax.contrib.dowg": {"init_estim_sq_dist": 0.1},
        "optax.contrib.prodigy": {"estim_lr0": 0.1},
    }.get(factory, {})
    # The first estimate of dog is no number, so that its factor is what moves it.
    rate = 3e4 if factory == "optax.contrib.dog" else 0.03
    section = OptaxOptimizer(
        factory=factory, learning_rate=rate, schedule=Constant(), arguments=arguments
    )
    library = attrgetter(factory.removeprefix("optax."))(optax)(rate, **arguments)
    actual = unstacked(run(section.build(9), 2))
    assert_trees_close(actual, run(library, 2, unstacked), rtol=2e-5, atol=1e-6)
    assert not np.allclose(actual["token_embedder"], params_tree()["token_embedder"], atol=1e-6)


def test_the_comparison_notices_an_optimizer_of_whole_tensors():
    """lars over the stack as one tensor differs, and `per_layer` mends it."""
    whole = optax.lars(0.03, weight_decay=0.1)
    reference = run(whole, 2, unstacked)
    with pytest.raises(AssertionError):
        assert_trees_close(unstacked(run(whole, 2)), reference, rtol=2e-5, atol=1e-6)
    mended = unstacked(run(per_layer(whole), 2))
    assert_trees_close(mended, reference, rtol=2e-5, atol=1e-6)


def test_per_layer_without_stacks_is_the_transformation_itself():
    params = {"token_embedder": params_tree()["token_embedder"]}
    grads = {"token_embedder": grads_tree(0)["token_embedder"]}
    tx, library = per_layer(optax.lamb(0.1)), optax.lamb(0.1)
    actual, _ = tx.update(grads, tx.init(params), params)
    expected, _ = library.update(grads, library.init(params), params)
    assert_trees_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "section",
    [
        AdamW(rms_scaled=True, weight_decay=0.1, schedule=Constant()),
        OptaxOptimizer(factory="optax.lamb", schedule=Constant()),
        OptaxOptimizer(factory="optax.sgd", schedule=Constant(), arguments={"momentum": 0.9}),
    ],
)
def test_moments_keep_path_and_shape_of_their_parameter(section):
    """The rule by which a state is sharded: a leaf ends in the path of a parameter of its shape."""
    names = lambda tree: [
        (jax.tree_util.keystr(path, simple=True, separator="/"), x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]
    state = jax.eval_shape(section.build(9).init, params_tree())
    large = [(name, shape) for name, shape in names(state) if math.prod(shape) > 3]
    moments = 1 if "sgd" in str(section) else 2
    assert len(large) == moments * len(names(params_tree()))
    for name, shape in names(params_tree()):
        assert sum(n.endswith("/" + name) and s == shape for n, s in large) == moments, name


def test_sharded_adamw_gives_the_same_updates():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    tx = AdamW(rms_scaled=True, weight_decay=0.1, schedule=Constant(), learning_rate=0.02).build(9)
    rng = np.random.default_rng(5)
    params = {"encoder": {"layers": {"wi": np.float32(rng.normal(size=(3, 16, 5)))}}}
    grads = jax.tree.map(lambda x: np.float32(np.cos(9 * x)), params)
    split = NamedSharding(mesh, P(None, "fsdp", None))
    placed = lambda tree: jax.tree.map(
        lambda x: jax.device_put(x, split if jnp.ndim(x) == 3 else NamedSharding(mesh, P())), tree
    )
    update = jax.jit(tx.update)
    state = tx.init(params)
    expected, _ = update(grads, state, params)
    actual, _ = update(placed(grads), placed(state), placed(params))
    assert_trees_close(actual, expected, rtol=1e-5, atol=1e-8)
    assert len(actual["encoder"]["layers"]["wi"].sharding.device_set) == 8


@pytest.mark.parametrize(
    "section",
    [
        Adafactor(schedule=Rsqrt(warmup_steps=3)),
        AdamW(schedule=Cosine(warmup_steps=3)),
        OptaxOptimizer(factory="optax.sign_sgd", schedule=Linear(warmup_steps=3)),
    ],
)
def test_learning_rate_at_is_the_rate_of_that_update(section):
    rate = section.learning_rate_at(20)
    tx = section.build(20)
    params = {"w": jnp.ones(1)}  # RMS 1, gradient 1: each optimizer's update is the rate itself
    state = tx.init(params)
    for step in range(6):
        updates, state = tx.update({"w": jnp.ones(1)}, state, params)
        np.testing.assert_allclose(updates["w"], [-rate(step)], rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adafactor(learning_rate=0.0), "Adafactor.learning_rate is 0.0"),
        (lambda: Adafactor(beta1=1.0), "Adafactor.beta1 is 1.0"),
        (lambda: Adafactor(decay_rate=-0.8), "Adafactor.decay_rate is -0.8"),
        (lambda: Adafactor(clipping_threshold=0.0), "Adafactor.clipping_threshold is 0.0"),
        (lambda: Adafactor(momentum_dtype="bfloat16"), "no momentum"),
        (
            lambda: Adafactor(beta1=0.9, momentum_dtype="float16"),  # type: ignore[arg-type]
            "'float16'",
        ),
        (lambda: Adafactor(weight_decay_exponent=2.0), "weight_decay=1.0"),
        (lambda: Adafactor(weight_decay=-1.0), "Adafactor.weight_decay is -1.0"),
        (lambda: Adafactor(step_offset=-1), "Adafactor.step_offset is -1"),
        (lambda: Adafactor(global_norm_clip=0.0), "Adafactor.global_norm_clip is 0.0"),
        (lambda: AdamW(beta2=1.0), "AdamW.beta2 is 1.0"),
        (lambda: AdamW(eps=0.0), "AdamW.eps is 0.0"),
        (lambda: AdamW(learning_rate=math.nan), "AdamW.learning_rate is nan"),
        (lambda: AdamW(schedule=Cosine(warmup_steps=10)).build(9), "longer than the run of 9"),
        (lambda: OptaxOptimizer(factory="optax.lyon"), "optax.lion"),
        (lambda: OptaxOptimizer(factory="os.system"), "not an optimizer of optax"),
        (lambda: OptaxOptimizer(factory="optax.adafactor"), "use the section Adafactor"),
        (lambda: OptaxOptimizer(factory="optax.lbfgs"), "line search"),
        (lambda: OptaxOptimizer(factory="optax.sm3"), "no learning rate schedule"),
        (lambda: OptaxOptimizer(arguments={"b_1": 0.9}), "did you mean one of: b1"),
        (lambda: OptaxOptimizer(arguments={"learning_rate": 0.9}), "no argument 'learning_rate'"),
        (lambda: OptaxOptimizer(arguments={"b1": math.inf}), "b1 is inf"),
        (lambda: OptaxOptimizer(arguments={"mask": 1.0}), "no argument 'mask'"),
        (lambda: OptaxOptimizer(factory="optax.fromage", arguments={"x": 1.0}), "min_norm"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_optax_arguments_take_the_types_of_the_factory():
    """Command lines give numbers; `nesterov=1.0` is the boolean it stands for."""
    section = OptaxOptimizer(
        factory="optax.sgd",
        schedule=Constant(),
        learning_rate=0.1,
        arguments={"momentum": 0.9, "nesterov": 1.0},
    )
    expected = run(optax.sgd(0.1, momentum=0.9, nesterov=True))
    assert_trees_close(run(section.build(9)), expected, rtol=1e-6)
