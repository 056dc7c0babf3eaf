"""Who may import whom: a room may import the rooms of its row, and what they may import."""

import ast
import pathlib

import t5jax

ROOT = pathlib.Path(t5jax.__file__).parent
ALLOWED = {
    "errors": set(),
    "sharding": {"errors"},
    "metrics": {"errors"},
    "data": {"errors", "metrics"},
    "testing": {"data"},
    "reporting": {"errors"},
    "runtime": {"errors"},
    "checkpoints": {"runtime"},
    "model": {"sharding"},
    "training": {"model"},
    "decoding": {"training"},
    "evaluation": {"decoding", "data", "metrics", "checkpoints"},
    "config": {"checkpoints", "data", "reporting", "evaluation"},
    "prediction": {"config"},
    "exporting": {"checkpoints", "data", "decoding"},
    "recipes": {"config"},
    "assembly": {"config"},
    "warm_start": {"config"},
    "validation": {"assembly"},
    "loop": {"validation", "warm_start"},
    "convert": {"config"},
    "acts": {"loop", "prediction", "exporting", "convert"},
    "cli": {"acts"},
    "__main__": {"cli"},
}


def reachable(room: str) -> set[str]:
    return ALLOWED[room] | {far for near in ALLOWED[room] for far in reachable(near)}


def room_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "loop" if parts == ("training", "loop") else parts[0]


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations() -> list[str]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        room = room_of(path)
        for name in imported(path):
            parts = name.split(".")
            if room == "__init__" or parts[0] != "t5jax" or parts[1] == "__version__":
                continue
            other = "loop" if parts[1:3] == ["training", "loop"] else parts[1]
            if other != room and other not in reachable(room):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_imports_point_one_way():
    assert violations() == []


def test_the_table_has_no_cycle():
    assert all(room not in reachable(room) for room in ALLOWED)


def test_heavy_packages_stay_in_their_rooms():
    rooms_of = {"orbax": {"checkpoints"}, "tensorflow": {"data"}, "seqio": {"data"}}
    for path in sorted(ROOT.rglob("*.py")):
        packages = {name.split(".")[0] for name in imported(path)}
        for package, rooms in rooms_of.items():
            assert package not in packages or room_of(path) in rooms, (path, package)
        assert room_of(path) != "data" or not {"jax", "flax"} & packages, path
        assert path.stem not in ("utils", "common", "helpers", "misc"), path
