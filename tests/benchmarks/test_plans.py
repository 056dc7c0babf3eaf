"""docs/plans.md and the configs' headers say what the plans say that were made."""

import pathlib
import re

import pytest

from benchmarks import plans
from t5jax.planning.topology import parse_topology

ROOT = pathlib.Path(plans.__file__).parents[1]
PLAN = {
    "fits": True, "memory_gb": 18.04, "hbm_gb": 85.52, "step_seconds": 0.3714, "mfu": 0.487,
    "days": 4.2986, "chips": 8, "chip_hours": 825.3, "mesh": {"data": 8, "fsdp": 1, "tensor": 1},
    "num_microbatches": 2, "remat": "none", "attention": "auto", "unroll_layers": "all",
    "compile_seconds": 31.0, "warnings": [], "date": "2026-11-30", "versions": "jax 0.10.2",
    "seconds_by_bound": {"matrix": 0.24, "memory": 0.1, "collectives": 0.001},
    "largest_operations": [
        {"seconds": 0.0212, "times": 24.0, "bound": "matrix", "what": "mlp/dot"},
    ],
}  # fmt: skip


def test_every_pretraining_config_has_a_gpu_and_a_tpu():
    files = [*(ROOT / "configs").glob("*c4*.py"), ROOT / "configs" / "multitask_pretraining.py"]
    assert {file.stem for file in files} == plans.HARDWARE.keys()
    for name, texts in plans.HARDWARE.items():
        platforms = {parse_topology(text).chip.platform for text in texts}
        assert platforms == {"gpu", "tpu"}, name


def test_the_page_is_that_of_the_plans():
    assert plans.PAGE.read_text() == plans.page(plans.read_records()), "run make plans"


@pytest.mark.parametrize("name", plans.HARDWARE)
def test_a_header_says_what_its_plans_say(name):
    source = (ROOT / "configs" / f"{name}.py").read_text()
    lines = plans.predictions(name, plans.read_records())
    assert source == plans.with_predictions(source, lines), "run make plans"
    assert max(map(len, source.splitlines())) <= 100
    found = re.findall(
        r"^(?:Predicted:| {10}) ((?:h100|v5)\S+): MFU (\d+) %, (\S+) of", source, re.M
    )
    assert len(found) == max(0, len(lines) - 1)
    page = plans.PAGE.read_text()
    for text, mfu, memory in found:
        row = next(x for x in page.splitlines() if x.startswith(f"| `{name}` | {text} |"))
        assert f"| yes | {memory} of" in row
        assert f"| {mfu}% |" in row


def test_a_plan_in_both_texts():
    records = {"t5_base_c4 h100:1x8": PLAN, "t5_base_c4 v5e:2x4": {**PLAN, "fits": False}}
    assert plans.predictions("t5_base_c4", records) == [
        "h100:1x8: MFU 49 %, 18.0 of 85.5 GB, 4.3 days (data 8, microbatches 2)",
        "by t5jax plan, not measured: docs/plans.md",
    ]
    page = plans.page(records)
    assert page.endswith(
        "### `t5_base_c4` on h100:1x8: 49%\n\n| ms | times | waits for | operation |\n"
        "|---|---|---|---|\n| 21.2 | 24 | matrix | `mlp/dot` |\n"
    )
    rows = [line for line in page.splitlines() if line.startswith("| `t5_base_c4`")]
    assert "| matrix 70 %, memory 29 % |" in rows[0]
    assert rows[0].startswith(
        "| `t5_base_c4` | h100:1x8 | yes | 18.0 of 85.5 | 371 | 49% | 4.3 | 825 | data 8 | 2 |"
    )
    assert "| v5e:2x4 | **no** | 18.0 of 85.5 | – | – | – | – |" in rows[1]
    assert plans.predictions("t5_base_shared_c4", records) == []


def test_lines_take_the_place_of_older_ones():
    source = '"""A config.\n\nCommand:   x\nHardware:  one\n           two\nResult:    y\n"""\n'
    first = plans.with_predictions(source, ["a: 1", "b: 2"])
    assert "two\nPredicted: a: 1\n           b: 2\nResult:" in first
    assert plans.with_predictions(first, ["c: 3"]).count("Predicted:") == 1
    assert plans.with_predictions(first, []) == source
