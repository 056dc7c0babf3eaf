"""The script for one accelerator: budgets, parts that fail or hang, and its smoke form where only
its five packages can be imported."""

import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest
from packaging.requirements import Requirement

from benchmarks import accelerator

SCRIPT = pathlib.Path(accelerator.__file__)
NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Imported by Python itself when it starts, in every process of the script.
SITECUSTOMIZE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def distributions(names) -> set[str]:
    """These packages and all that they require."""
    found, open_names = set(), [normal(name) for name in names]
    while open_names:
        name = open_names.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_names.append(normal(requirement.name))
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def blocked_modules() -> set[str]:
    """What is installed here and is neither needed nor of this repository."""
    allowed = distributions(NEEDED) | {"t5jax"}
    provided = importlib.metadata.packages_distributions()
    return {
        module for module, by in provided.items() if not {normal(one) for one in by} & allowed
    } - set(sys.stdlib_module_names)


def run_script(tmp_path, *words, script=SCRIPT, **environment):
    """(exit code, report, output) of the script in a process of its own."""
    out = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(script), "--json", str(out), *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert out.exists(), done.stderr
    return done.returncode, json.loads(out.read_text()), done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_smoke_form_where_only_its_packages_can_be_imported(tmp_path):
    blocked = blocked_modules()
    assert {"sentencepiece", "tyro", "seqio", "tensorflow_datasets", "pytest"} <= blocked
    assert not {"jax", "etils", "tensorstore", "yaml"} & blocked
    (tmp_path / "sitecustomize.py").write_text(f"BLOCKED = {blocked!r}\n{SITECUSTOMIZE}")
    # A budget for slow machines: it is the form that is tested, not its speed.
    words = ("--smoke", "--seconds", 3000)
    code, report, shown = run_script(tmp_path, *words, PYTHONPATH=str(tmp_path))
    parts = {part["part"]: part for part in report["parts"]}
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(
        accelerator.PARTS, "done"
    ), parts
    assert code == 0
    assert report["ok"]
    assert report["smoke"]
    assert parts["device"]["rows"][0]["platform"] == "cpu"
    checked = {row["implementation"] for row in parts["checks"]["rows"] if row.get("ok")}
    timed = {row["implementation"] for row in parts["attention"]["rows"]}
    assert "rowwise" in checked
    assert {"einsum", "rowwise"} <= timed
    for size in ("base", "large", "xl"):
        (row,) = parts[size]["rows"]
        assert row["size"] == size
        assert row["seconds"] > 0
        assert row["planned_memory_bytes"] > 0
        assert row["planned_seconds"] > 0  # by t5jax/planning, which needs no more either
        assert row["program_flops"] >= row["model_flops"] > 0
    assert parts["decode"]["rows"][-1]["bound_milliseconds"] > 0
    assert "ms a token" in shown


def fake_script(tmp_path, body: str) -> pathlib.Path:
    """The script with another child: `body` sees `name`, the part's."""
    text = SCRIPT.read_text().replace("str(pathlib.Path(__file__).parents[1])", repr(ROOT))
    assert ROOT in text
    start, end = text.index("def child("), text.index("# ---- in the process that starts")
    child = "def child(options):\n    name = options.part\n" + textwrap.indent(body, "    ")
    path = tmp_path / "script.py"
    path.write_text(f"{text[:start]}{child}\n\n\n{text[end:]}")
    return path


ROOT = str(SCRIPT.parents[1])
BODY = """
print(json.dumps({"size": name, "rows": 3, "platform": "cpu", "why_not": "made up"}), flush=True)
if name == "base":
    print("what it said last", file=sys.stderr)
    sys.exit(3)
if name == "large":
    print(json.dumps({"why_not": 1})[:5], flush=True)  # cut while it is written
    time.sleep(100)
"""


@pytest.mark.slow  # it waits for what hangs, with budgets in which slow machines start Python
def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path):
    script = fake_script(tmp_path, BODY)
    words = ("--parts", "base", "large", "xl", "--seconds", 40)
    code, report, shown = run_script(tmp_path, *words, script=script)
    assert code == 1
    assert not report["ok"]
    assert report["smoke"]  # there is no accelerator
    parts = {part["part"]: part for part in report["parts"]}
    assert [part["status"] for part in parts.values()] == [
        "done",
        "failed (3)",
        "out of time",
        "done",
    ]
    assert parts["base"]["log"].strip() == "what it said last"
    assert "what it said last" in shown
    assert [row["size"] for row in parts["large"]["rows"]] == ["large"]
    # What device and base left was the next one's.
    assert parts["large"]["seconds"] > 40 * accelerator.PARTS["large"] / accelerator.TOTAL_SECONDS


def test_the_parts_take_less_than_eight_minutes_together():
    assert accelerator.TOTAL_SECONDS <= 475


def test_a_wrong_result_is_a_failure():
    row = {"case": "c", "dtype": "float32", "implementation": "i", "limit": 1e-5}
    rows = [row | {"errors": {"y": 2e-5}, "ok": False}, row | {"why_not": "refused"}]
    result = {"part": "checks", "status": "done", "seconds": 1.0, "rows": rows}
    assert not accelerator.is_good(result)
    lines = accelerator.shown(result)
    assert "WRONG" in lines[2]
    assert lines[-1] == "0 right, 1 wrong, 1 not run"
