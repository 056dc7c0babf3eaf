"""Reading of compiled HLO text: small texts by hand, with counts that follow from their sizes."""

import pytest

from t5jax.planning.hlo import executions, parse_arrays, parse_module, trip_count, unknown_loops

LOOP = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[3,5]{1,0})->f32[3,5]{1,0}}

%body.1 (arg: (s32[], f32[3,5])) -> (s32[], f32[3,5]) {
  %arg = (s32[], /*index=1*/f32[3,5]{1,0:T(8,128)}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[3,5]{1,0} get-tuple-element(%arg), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %y = f32[3,5]{1,0:T(8,128)S(1)} tanh(%x), metadata={op_name="jit(f)/while/tanh"}
  ROOT %out = (s32[], f32[3,5]{1,0}) tuple(%next, %y)
}

%condition.1 (arg.1: (s32[], f32[3,5])) -> pred[] {
  %arg.1 = (s32[], f32[3,5]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (p: f32[3,5]) -> f32[3,5] {
  %p = f32[3,5]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %init = (s32[], f32[3,5]{1,0}) tuple(%zero, %p)
  %loop = (s32[], f32[3,5]{1,0}) while(%init), condition=%condition.1, body=%body.1KNOWN
  ROOT %result = f32[3,5]{1,0} get-tuple-element(%loop), index=1
}
"""


def loop(known: str = ""):
    return parse_module(LOOP.replace("KNOWN", known))


def test_instructions_have_shapes_operands_and_attributes():
    module = loop()
    assert module.entry == "main"
    assert module.computations.keys() == {"body.1", "condition.1", "main"}
    tanh = module.computations["body.1"]["y"]
    assert (tanh.opcode, tanh.operands) == ("tanh", ("x",))
    assert tanh.op_name == "jit(f)/while/tanh"
    assert tanh.arrays[0].dims == (3, 5)
    assert not tanh.arrays[0].in_memory  # S(1)
    assert tanh.nbytes == 0
    argument = module.computations["body.1"]["arg"]
    assert [array.nbytes for array in argument.arrays] == [4, 60]
    assert module.computations["main"]["p"].literal == "0"
    assert module.computations["body.1"]["out"].is_root


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", [2048]),
        ("(pred[3]{0}, s4[6]{0}, f32[])", [3, 3, 4]),
        ("token[]", []),
        ("(f8e4m3fn[2,2]{1,0}, u64[5]{0})", [4, 40]),
    ],
)
def test_bytes_of_shapes(shape, sizes):
    assert [array.nbytes for array in parse_arrays(shape)] == sizes


def test_trip_counts():
    counted = loop(', backend_config={"known_trip_count":{"n":"13"},"other":1}')
    assert trip_count(counted.computations["main"]["loop"], counted) == 13
    stepped = loop()  # 0, 2, 4, 6 are below 7
    assert trip_count(stepped.computations["main"]["loop"], stepped) == 4
    assert unknown_loops(stepped) == []
    endless = parse_module(LOOP.replace("KNOWN", "").replace("constant(7)", "constant(-1)"))
    assert trip_count(endless.computations["main"]["loop"], endless) is None
    assert unknown_loops(endless) == ["loop"]


def test_executions_count_the_bodies_of_loops():
    counts = {x.instruction.name: x.count for x in executions(loop())}
    assert counts["y"] == 4
    assert counts["p"] == 1
    assert "loop" not in counts


def test_a_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        parse_module("HloModule x\n")


def test_operands_without_percent_signs():
    module = parse_module(
        "ENTRY main (a: f32[2]) -> f32[2] {\n"
        "  a = f32[2]{0} parameter(0)\n"
        "  ROOT b.3 = f32[2]{0} add(a, a)\n"
        "}\n"
    )
    assert module.computations["main"]["b.3"].operands == ("a", "a")
