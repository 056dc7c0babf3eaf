"""Import directions: which room may import which, everywhere, with no exceptions.

A room is a folder or file of t5jax/; the folders and files of t5jax/data/ are rooms of their own.
Imports inside functions and under TYPE_CHECKING count.
"""

import ast
import itertools
import pathlib
from collections.abc import Iterator

import pytest

import t5jax

ROOT = pathlib.Path(t5jax.__file__).parent
# A room may import the rooms of its row, and what they may import themselves. From bottom to top.
ALLOWED = {
    "version": set(),
    "errors": set(),
    "types": set(),
    "paths": {"errors"},
    "sharding": {"errors"},
    "buckets": {"errors", "paths"},
    "runtime": {"buckets", "errors", "paths"},
    "tracking": {"buckets", "errors", "paths"},
    "metrics": {"errors"},
    "checkpoints": {"runtime", "types", "paths"},
    "model": {"sharding", "types"},
    "training": {"model"},
    "data.rng": set(),
    "data.atomic_files": {"buckets", "errors"},
    "data.records": {"errors"},
    "data.tensorflow_import": {"errors"},
    "data.modules": {"data.tensorflow_import", "data.vocabularies"},
    "data.vocabularies": {"data.atomic_files", "errors", "paths", "types"},
    "data.sources": {"data.records", "paths"},
    "data.docstring_corpus": {"data.records", "data.sources"},
    "data.objectives": {"data.modules", "data.rng", "data.vocabularies"},
    "data.config": {"data.objectives", "data.records"},
    "data.tasks": {"data.config"},
    "data.benchmarks": {"data.tasks", "data.sources", "metrics"},
    "data.seqio_bridge": {"data.tasks", "data.modules", "data.sources"},
    "data.store": {"buckets", "data.records", "data.vocabularies"},
    "data.registry": {
        "data.benchmarks",
        "data.docstring_corpus",
        "data.seqio_bridge",
        "data.store",
    },
    "data.pipeline": {"data.registry"},
    "data.inspect": {"data.pipeline", "version"},
    "decoding": {"training"},
    "evaluation": {"checkpoints", "data.pipeline", "decoding"},
    "config": {"evaluation", "tracking"},
    "run": {"config"},
    "inference": {"run"},
    "planning": {"run"},
    "selftest": {"run", "version"},
    "convert": {"config", "version"},
    "export": {"checkpoints", "data.vocabularies", "data.tensorflow_import", "decoding"},
    "recipes": {"config"},
    "testing": {"data.registry"},
    "seqio_tasks": {"data.registry"},
    "seqio": {"seqio_tasks"},
    "commands": {
        "version",
        "convert",
        "data.inspect",
        "export",
        "inference",
        "planning",
        "selftest",
    },
    "cli": {"commands", "version"},
    "__main__": {"cli"},
    "__init__": {"commands", "recipes", "testing"},  # the public API, above every room
}
# Packages that only some rooms may import; rooms of data/ by their folder.
ONLY_IN = {
    "orbax": {"checkpoints"},
    "tensorflow": {"data.tensorflow_import"},
    "seqio": {"data.tensorflow_import"},
}


def room_of(module: str) -> str:
    parts = module.split(".")[1:]
    if not parts:
        return "__init__"
    return ".".join(parts[:2]) if parts[0] == "data" else parts[0]


def modules_below(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Dotted name -> file."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(path: pathlib.Path) -> Iterator[tuple[str, ...]]:
    """Of each import the names that it can mean, the longest first."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name,) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.module) for alias in node.names)


def import_graph(root: pathlib.Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, anywhere in its file."""
    modules = modules_below(root)
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = (next((n for n in names if n in modules), None) for names in imported_names(path))
        graph[module] = {name for name in found if name is not None} - {module}
    return graph


def reachable(room: str) -> set[str]:
    return ALLOWED[room] | {far for near in ALLOWED[room] for far in reachable(near)}


def violations(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in sorted(others)
        if room_of(other) not in {room_of(module), *reachable(room_of(module))}
        and room_of(module) != "data"  # the package's own __init__
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules on loops of imports, and between such loops; [] when there is none."""
    left = dict(graph)
    while True:
        imported = set().union(*left.values()) if left else set()
        kept = {m: o & left.keys() for m, o in left.items() if o & left.keys() and m in imported}
        if len(kept) == len(left):
            return sorted(kept)
        left = kept


def test_imports_point_one_way():
    assert violations(import_graph(ROOT)) == []


def test_no_files_import_each_other_in_a_circle():
    assert circle(import_graph(ROOT)) == []


def test_the_table_has_no_cycle_and_every_room():
    assert all(room not in reachable(room) for room in ALLOWED)
    assert {room_of(module) for module in modules_below(ROOT)} - {"data"} == set(ALLOWED)


def test_heavy_packages_stay_in_their_rooms():
    for module, path in modules_below(ROOT).items():
        packages = {names[-1].split(".")[0] for names in imported_names(path)}
        for package, rooms in ONLY_IN.items():
            assert package not in packages or room_of(module) in rooms, (module, package)
        assert not room_of(module).startswith("data") or not {"jax", "flax"} & packages, module
        assert path.stem not in ("utils", "common", "helpers", "misc"), path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"metrics/a.py": "from t5jax.model import layers\n"}, ["t5jax.metrics.a imports"]),
        (
            {"data/store/a.py": "def f():\n    from t5jax.data.pipeline import x\n"},
            ["t5jax.data.store.a imports t5jax.data.pipeline.x"],
        ),
        (
            {
                "errors.py": "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    from t5jax.model import layers\n"
            },
            ["t5jax.errors imports t5jax.model.layers"],
        ),
        ({"cli/a.py": "from t5jax.model import layers\n"}, []),
    ],
)
def test_violations_are_found_wherever_the_import_stands(tmp_path, files, expected):
    root = tmp_path / "t5jax"
    for name in ("__init__", "model/layers", "data/pipeline/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text("")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = violations(import_graph(root))
    assert len(found) == len(expected)
    assert all(map(str.startswith, found, expected))


def test_circles_are_found():
    ring = [f"t5jax.{x}" for x in "abc"]
    graph = {one: {other} for one, other in itertools.pairwise([*ring, ring[0]])}
    assert circle({**graph, "t5jax.d": {"t5jax.a"}, "t5jax.e": set()}) == ring
    assert circle({"t5jax.a": {"t5jax.b"}, "t5jax.b": set()}) == []
