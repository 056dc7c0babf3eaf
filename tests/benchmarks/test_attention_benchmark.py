"""Benchmark of attention: counted FLOPs, what is refused; the check that finds a wrong kernel."""

import jax
import pytest

from benchmarks import attention, attention_checks
from benchmarks.attention import PASSES, Shape, attend, measure, prepare, program, table_row
from benchmarks.attention_checks import CASES, check
from t5jax.model.attention import Mask, dispatch
from t5jax.model.attention.einsum import einsum_attention

TINY = Shape(rows=3, length=14, num_heads=2, head_dim=5, causal=True, packed=True, dtype="float32")


def test_implementations_of_other_devices_are_refused(monkeypatch):
    monkeypatch.setitem(dispatch.PLATFORM_OF, "rowwise", "tpu")
    q, k, v, _, _, segments = TINY.arguments()
    with pytest.raises(NotImplementedError, match="it runs on tpu devices"):
        attend("rowwise", q, k, v, None, Mask(segments, segments))


@pytest.fixture
def names(monkeypatch):
    """einsum, and one that is refused."""

    def attend(name, *call):
        if name == "refusing":
            raise ValueError("not on this device")
        return einsum_attention(*call)

    monkeypatch.setattr(attention, "attend", attend)
    return ("einsum", "refusing")


@pytest.mark.parametrize("what", PASSES)
def test_flops_are_those_of_the_products(what):
    shape = Shape(rows=2, length=64, num_heads=3, head_dim=256, dtype="float32")
    run = program("einsum", shape, what)
    counted = run.lower(*jax.eval_shape(shape.arguments)).compile().cost_analysis()
    assert counted is not None
    # Softmax and additions come on top; the recomputation of nothing does.
    assert shape.flops(what) == pytest.approx(counted["flops"], rel=0.06)
    assert shape.flops(what) < counted["flops"]


@pytest.mark.parametrize("what", PASSES)
def test_times_what_runs_and_names_what_does_not(names, what):
    ours, refused = measure(TINY, what, turns=1, seconds=0.0, names=names)
    # On a busy machine there may be no clean round.
    assert (ours["milliseconds"] or 1.0) > 0
    assert ours["gigabytes"] > 0
    assert refused["milliseconds"] is None
    assert refused["why_not"] == "ValueError: not on this device"
    assert "not on this device" in table_row(refused)
    assert table_row(ours).startswith("| 14 | 3 | einsum causal packed |")


def test_what_does_not_fit_is_not_run():
    found = prepare("einsum", TINY, "forward", available=1.0)
    assert found.call is None
    assert found.why_not is not None
    assert "are there" in found.why_not


def test_packed_rows_have_four_segments():
    segments = TINY.arguments()[-1]
    assert segments.shape == (3, 14)
    assert segments[0].tolist() == sorted([1, 2, 3] * 4 + [4] * 2)


# On CPUs tests/model/attention compares the implementations; here the check itself is tested.
FAST = ("decoder, T=114, packed", "cross, rows without inputs")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.name in FAST else pytest.mark.slow)
        for case in CASES
    ],
)
def test_implementations_of_a_cpu_pass_the_check(case):
    rows = list(check(case.smaller(), ("einsum", "rowwise")))
    assert [(row["dtype"], row["implementation"]) for row in rows] == [
        (dtype, name) for dtype in ("bfloat16", "float32") for name in ("einsum", "rowwise")
    ]
    for row in rows:
        assert row["ok"], row
        assert set(row["errors"]) == {"y", "dq", "dk", "dv"} | (
            {"dbias"} if case.has_bias else set()
        )
    assert rows[2]["errors"]["y"] == 0.0  # the reference itself


def without_causality(q, k, v, bias, mask):
    return einsum_attention(q, k, v, bias, mask._replace(causal=False))


def without_segments(q, k, v, bias, mask):
    ones = lambda x: (x > 0).astype(x.dtype)
    mask = mask._replace(
        query_segments=ones(mask.query_segments), key_segments=ones(mask.key_segments)
    )
    return einsum_attention(q, k, v, bias, mask)


def without_gradient_of_the_bias(q, k, v, bias, mask):
    return einsum_attention(q, k, v, jax.lax.stop_gradient(bias), mask)


@pytest.mark.parametrize(
    ("wrong", "case"),
    [
        (without_causality, "decoder, T=114"),
        (without_segments, "cross, 114 x 512, packed"),
        (without_gradient_of_the_bias, "encoder, padded"),
    ],
)
def test_the_check_finds_a_wrong_kernel(monkeypatch, wrong, case):
    call = lambda name, *call: (wrong if name == "wrong" else einsum_attention)(*call)
    monkeypatch.setattr(attention_checks, "attend", call)
    case = {case.name: case for case in CASES}[case]
    assert [row["ok"] for row in check(case.smaller(), ("wrong",))] == [False, False]
