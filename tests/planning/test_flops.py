"""FLOPs of compiled programs against arithmetic: by hand, and of really compiled steps."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t5jax.planning.compilation import compile_step
from t5jax.planning.flops import is_attention_kernel, matrix_flops
from t5jax.planning.hlo import executions, parse_module
from t5jax.tracking import model_flops
from tests.planning.programs import abstract_program, tiny_config


def flops(text: str) -> float:
    module = parse_module(text)
    return sum(
        x.count * matrix_flops(x.instruction, x.computation, module) for x in executions(module)
    )


def entry(*lines: str) -> str:
    return "ENTRY %main () -> f32[] {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (  # [7, 40] @ [40, 3]
            (
                "%a = bf16[7,40]{1,0} parameter(0)",
                "%b = bf16[40,3]{1,0} parameter(1)",
                "ROOT %c = f32[7,3]{1,0} dot(%a, %b), lhs_contracting_dims={1}, "
                "rhs_contracting_dims={0}",
            ),
            2 * 7 * 40 * 3,
        ),
        (  # a TPU's way of writing it
            (
                "%a = bf16[7,40]{1,0:T(8,128)(2,1)} parameter(0)",
                "%b = bf16[40,3]{1,0:T(8,128)(2,1)S(1)} parameter(1)",
                "ROOT %c = f32[7,3]{1,0} convolution(%a, %b), dim_labels=bf_io->bf",
            ),
            2 * 7 * 40 * 3,
        ),
        (  # batched over 5 as a spatial dimension: each position meets one of the window's
            (
                "%a = bf16[5,7,40]{2,1,0} parameter(0)",
                "%b = bf16[5,40,3]{2,1,0} parameter(1)",
                "ROOT %c = bf16[5,7,3]{2,1,0} convolution(%a, %b), window={size=5 stride=4 "
                "pad=0_0 lhs_dilate=5}, dim_labels=0bf_0io->0bf",
            ),
            2 * 5 * 7 * 40 * 3,
        ),
        (  # a real convolution: 11 positions, windows of 3, padded by one on either side
            (
                "%a = f32[2,11,6]{2,1,0} parameter(0)",
                "%b = f32[3,6,4]{2,1,0} parameter(1)",
                "ROOT %c = f32[2,11,4]{2,1,0} convolution(%a, %b), window={size=3 pad=1_1}, "
                "dim_labels=b0f_0io->b0f",
            ),
            2 * 2 * 6 * 4 * (3 * 11 - 2),
        ),
        (
            (
                "%a = bf16[7,40]{1,0} parameter(0)",
                "%b = bf16[40,3]{1,0} parameter(1)",
                'ROOT %c = (bf16[7,3]{1,0}, s8[99]{0}) custom-call(%a, %b), custom_call_target='
                '"__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":'
                '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}',
            ),
            2 * 7 * 40 * 3,
        ),
        (  # a Pallas kernel that says what it costs
            (
                "%a = bf16[2,9,40]{2,1,0} parameter(0)",
                'ROOT %c = bf16[2,9,40]{2,1,0} custom-call(%a), custom_call_target='
                '"tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":'
                '{"flops":"12345","transcendentals":"7"}}}',
            ),
            12345,
        ),
        (  # and one that does not: scores and values of queries [2, 9, 40], keys [2, 13, 40]
            (
                "%q = bf16[2,9,40]{2,1,0} parameter(0)",
                "%k = bf16[2,13,40]{2,1,0} parameter(1)",
                "%v = bf16[2,13,40]{2,1,0} parameter(2)",
                'ROOT %c = bf16[2,9,40]{2,1,0} custom-call(%q, %k, %v), custom_call_target='
                '"tpu_custom_call", metadata={op_name="jit(f)/t5_attention_forward"}',
            ),
            2 * 2 * 2 * 9 * 13 * 40,
        ),
    ],
    ids=["dot", "as_convolution", "batched", "convolution", "cublas", "stated", "attention"],
)  # fmt: skip
def test_of_one_instruction(lines, expected):
    assert flops(entry(*lines)) == expected


def test_backward_attention_has_five_products():
    shapes = {"q": "[2,3,9,8]", "k": "[2,3,13,8]", "v": "[2,3,13,8]", "dy": "[2,3,9,8]"}
    lines = [f"%{x} = bf16{s}{{3,2,1,0}} parameter({i})" for i, (x, s) in enumerate(shapes.items())]
    call = (
        "ROOT %c = (bf16[2,3,9,8]{3,2,1,0}, bf16[2,3,13,8]{3,2,1,0}, bf16[2,3,13,8]{3,2,1,0}) "
        "custom-call(%q, %k, %v, %dy), custom_call_target="
        '"__cudnn$fmhaScaleBiasSoftmaxBackward", backend_config={}'
    )
    text = entry(*lines, call)
    assert flops(text) == 2 * 5 * 2 * 3 * 9 * 13 * 8
    assert is_attention_kernel(parse_module(text).computations["main"]["c"])


def test_of_a_compiled_loop_over_eight_devices():
    mesh = jax.make_mesh((8,), ("x",), devices=jax.devices()[:8])
    place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))

    def f(rows, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), rows, weights)[0]

    rows = jax.ShapeDtypeStruct((24, 40), jnp.float32, sharding=place("x"))
    weights = jax.ShapeDtypeStruct((13, 40, 40), jnp.float32, sharding=place())
    text = jax.jit(f).lower(rows, weights).compile().as_text()
    assert flops(text) == 13 * 2 * 3 * 40 * 40


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_train_step_has_the_flops_of_its_model(num_microbatches):
    """XLA's own analysis counts the loop over microbatches once."""
    config = tiny_config(num_microbatches=num_microbatches)
    run, program = abstract_program(config)
    inputs, targets = run.lengths
    text = compile_step(run, program, "train", "cpu").text
    assert flops(text) == model_flops(config.model, 2, inputs, targets)


@pytest.mark.slow
def test_full_rematerialisation_runs_the_blocks_forward_twice():
    config = tiny_config(model={"remat": "full"})
    run, program = abstract_program(config)
    inputs, targets = run.lengths
    text = compile_step(run, program, "train", "cpu").text
    once = model_flops(config.model, 2, inputs, targets)
    forward = once / 3 - 2 * 2 * targets * config.model.emb_dim * config.model.vocab_size
    assert once < flops(text) <= once + forward
