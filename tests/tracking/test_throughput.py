"""FLOPs against a count of the products in a network's own program; rates with a made-up clock."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

from t5jax.model import config
from t5jax.tracking import Throughput, measure_matmul_peak, model_flops, peak_flops


@dataclasses.dataclass
class Shape:
    architecture: str = "encoder_decoder"
    vocab_size: int = 17
    emb_dim: int = 11
    num_heads: int = 2
    head_dim: int = 3
    mlp_dim: int = 13
    num_encoder_layers: int = 2
    num_decoder_layers: int = 3
    mlp_activations: tuple[str, ...] = ("gelu", "linear")


# ---- a small encoder-decoder, written without t5jax, only for the products in it


def attend(x, memory, w, heads):
    split = lambda y: y.reshape(*y.shape[:2], heads, -1)
    q, k, v = split(x @ w["q"]), split(memory @ w["k"]), split(memory @ w["v"])
    weights = jax.nn.softmax(jnp.einsum("bqhk,bshk->bhqs", q, k))
    return jnp.einsum("bhqs,bshk->bqhk", weights, v).reshape(*x.shape[:2], -1) @ w["o"]


def mlp(x, w):
    hidden = jax.nn.gelu(x @ w["wi"])
    if "gate" in w:
        hidden = hidden * (x @ w["gate"])
    return hidden @ w["wo"]


def loss(params, inputs, targets, cfg, tied):
    x = params["embedding"][inputs]
    for w in params["encoder"]:
        x = x + attend(x, x, w["self"], cfg.num_heads)
        x = x + mlp(x, w["mlp"])
    y = params["embedding"][targets]
    for w in params["decoder"]:
        y = y + attend(y, y, w["self"], cfg.num_heads)
        y = y + attend(y, x, w["cross"], cfg.num_heads)
        y = y + mlp(y, w["mlp"])
    logits = y @ (params["embedding"].T if tied else params["logits"])
    return jnp.sum(jax.nn.logsumexp(logits, axis=-1))


def make_params(cfg):
    D, J, F, V = cfg.emb_dim, cfg.num_heads * cfg.head_dim, cfg.mlp_dim, cfg.vocab_size
    attention = {name: jnp.ones((D, J)) for name in "qkv"} | {"o": jnp.ones((J, D))}
    gate = {"gate": jnp.ones((D, F))} if len(cfg.mlp_activations) == 2 else {}
    mlp = {"wi": jnp.ones((D, F)), **gate, "wo": jnp.ones((F, D))}
    encoder = {"self": attention, "mlp": mlp}
    return {
        "embedding": jnp.ones((V, D)),
        "encoder": [encoder] * cfg.num_encoder_layers,
        "decoder": [{**encoder, "cross": attention}] * cfg.num_decoder_layers,
        "logits": jnp.ones((D, V)),
    }


def product_flops(jaxpr):
    """2mkn of every product in a program, of the programs it calls too (there are no loops)."""
    total = 0
    for equation in jaxpr.eqns:
        assert equation.primitive.name not in ("scan", "while"), "would be counted once"
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            total += 2 * equation.outvars[0].aval.size * _product(equation, contracted)
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            total += product_flops(inner) if hasattr(inner, "eqns") else 0
    return total


def _product(equation, axes):
    size = 1
    for axis in axes:
        size *= equation.invars[0].aval.shape[axis]
    return size


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activations", [("relu",), ("gelu", "linear")])
def test_model_flops_are_the_products_of_forward_and_backward(activations, tied):
    cfg = Shape(mlp_activations=activations)
    inputs, targets = jnp.zeros((3, 7), int), jnp.zeros((3, 5), int)
    program = jax.make_jaxpr(jax.grad(loss), static_argnums=(3, 4))
    jaxpr = program(make_params(cfg), inputs, targets, _Static(cfg), tied).jaxpr
    assert model_flops(cfg, 3, 7, 5) == product_flops(jaxpr)


@pytest.mark.parametrize("architecture", ["decoder_only", "prefix_lm", "encoder_only"])
def test_model_flops_of_one_stack(architecture):
    """Self-attention and MLP in every layer, logits at every position; no cross-attention."""
    encoder = architecture == "encoder_only"
    layers = {"num_encoder_layers": 3 * encoder, "num_decoder_layers": 3 * (not encoder)}
    cfg = Shape(architecture=architecture, **layers)
    params = make_params(dataclasses.replace(cfg, num_encoder_layers=3, num_decoder_layers=0))

    def one_stack_loss(params, tokens):
        x = params["embedding"][tokens]
        for w in params["encoder"]:
            x = x + attend(x, x, w["self"], cfg.num_heads)
            x = x + mlp(x, w["mlp"])
        return jnp.sum(jax.nn.logsumexp(x @ params["logits"], axis=-1))

    jaxpr = jax.make_jaxpr(jax.grad(one_stack_loss))(params, jnp.zeros((5, 7), int)).jaxpr
    lengths = (7, 0) if encoder else (0, 7)
    assert model_flops(cfg, 5, *lengths) == product_flops(jaxpr)


def test_a_shared_stack_works_as_much_as_two():
    two = Shape(num_encoder_layers=3)
    shared = dataclasses.replace(two, architecture="shared_encoder_decoder")
    assert model_flops(shared, 2, 7, 5) == model_flops(two, 2, 7, 5)


class _Static:
    """A hashable view of a shape, as jit wants its static arguments."""

    def __init__(self, cfg):
        self.num_heads = cfg.num_heads


@pytest.mark.parametrize(
    ("cfg", "lengths", "rows_per_second", "device", "mfu"),
    [  # published speeds with the utilisation worked out for them independently
        (config.t5_1_1_small(), (512, 128), 714, "NVIDIA A100-SXM4-80GB", 0.25),  # JAX-Toolbox
        (config.t5_1_1_large(), (512, 128), 75.8, "NVIDIA A100-SXM4-80GB", 0.37),
        (config.t5_1_1_xl(), (512, 128), 21.0, "NVIDIA A100-SXM4-80GB", 0.37),
        (config.t5_1_1_xxl(), (512, 128), 3.69, "NVIDIA A100-SXM4-80GB", 0.25),
        (config.t5_1_1_base(), (512, 114), 128 / 0.56, "NVIDIA A100-SXM4-80GB", 0.31),  # nanoT5
        (config.t5_11b(), (512, 114), 1100 / 1024, "TPU v3", 0.40),  # T5X on 1024 devices
    ],
)
def test_published_runs_have_their_published_utilisation(
    cfg, lengths, rows_per_second, device, mfu
):
    peak = peak_flops(device, "bfloat16")
    assert peak is not None
    assert rows_per_second * model_flops(cfg, 1, *lengths) / peak == pytest.approx(mfu, abs=0.006)


def test_peaks_are_found_by_the_names_devices_have():
    peak = lambda kind, dtype="bfloat16": peak_flops(kind, dtype)
    assert peak("NVIDIA H100 80GB HBM3") == peak("NVIDIA H200") == peak("NVIDIA GH200 480GB")
    assert peak("NVIDIA H100 PCIe") < peak("NVIDIA H100 NVL") < peak("NVIDIA H100 80GB HBM3")
    assert peak("NVIDIA L4") < peak("NVIDIA L40S")
    assert peak("NVIDIA A10") < peak("NVIDIA A100-SXM4-40GB")
    assert peak("TPU v5 lite") == peak("TPU v5e") < peak("TPU v5") == peak("TPU v5p")
    assert peak("NVIDIA H200", "float32") == peak("NVIDIA H200") / 2
    assert peak("TPU v4", "float32") == peak("TPU v4")
    for unknown in ("cpu", "NVIDIA H20", "NVIDIA A100X", "TPU v99", "Tesla T4", ""):
        assert peak(unknown) is None


def test_measured_peak_is_a_rate_this_machine_can_reach():
    rate = measure_matmul_peak("float32", seconds=0.2)
    x = jnp.ones((640, 640))
    flops = jax.jit(lambda x: x @ x).lower(x).compile().cost_analysis()["flops"]
    assert flops == pytest.approx(2 * 640**3, rel=0.01)
    assert 1e8 < rate < 1e14  # one slow core; the fastest hundred


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


def make_throughput(**settings):
    clock = Clock()
    defaults = {"num_devices": 5, "flops_per_row": 30.0, "peak": 400.0, "window": 3}
    return Throughput(**(defaults | settings), clock=clock), clock


def test_rates_are_sums_over_the_window_per_device():
    throughput, clock = make_throughput()
    assert set(throughput.update(tokens=999, rows=99).values()) == {None}  # compiling
    clock.now += 2.0
    rates = throughput.update(tokens=700, rows=20)
    assert rates == {
        "throughput/tokens_per_second_per_device": 700 / 2 / 5,
        "throughput/sequences_per_second_per_device": 20 / 2 / 5,
        "throughput/seconds_per_step": 2.0,
        "throughput/mfu": 20 / 2 / 5 * 30 / 400,
    }
    for seconds, tokens, rows in ((1.0, 10, 1), (3.0, 20, 2), (4.0, 30, 3)):
        clock.now += seconds
        rates = throughput.update(tokens=tokens, rows=rows)
    assert rates["throughput/tokens_per_second_per_device"] == pytest.approx(60 / 8 / 5)
    assert rates["throughput/seconds_per_step"] == pytest.approx(8 / 3)
    assert rates["throughput/mfu"] == pytest.approx(6 / 8 / 5 * 30 / 400)


def test_pauses_and_compiling_do_not_change_the_rates():
    plain, plain_clock = make_throughput(window=50)
    paused, paused_clock = make_throughput(window=50)
    paused_clock.now += 3000.0  # compiling
    for step in range(40):
        plain_clock.now += 0.25
        paused_clock.now += 0.25
        expected = plain.update(tokens=64, rows=8)
        if step % 7 == 3:  # an evaluation, after the step was dispatched and before it was read
            paused_clock.now += 100.0
            paused.pause()
        rates = paused.update(tokens=64, rows=8)
    assert rates == pytest.approx(expected)


def test_mfu_is_unknown_where_the_peak_is():
    throughput, clock = make_throughput(peak=None)
    for _ in itertools.repeat(None, 2):
        clock.now += 1.0
        rates = throughput.update(tokens=1, rows=1)
    assert rates["throughput/mfu"] is None
    assert rates["throughput/tokens_per_second_per_device"] == pytest.approx(0.2)
