"""Kubernetes manifests against the types of their APIs, strictly, without a cluster.

    python -m tests.launch.kubernetes_schema launch/gke/*.yaml

`make lint` does this; the types stand in kubernetes_schema.yaml, with where they come from.
"""

import functools
import pathlib
import sys
from typing import Any

import jsonschema
import yaml

SCHEMA = pathlib.Path(__file__).with_suffix(".yaml")


@functools.cache
def _schema() -> dict[str, Any]:
    schema = yaml.safe_load(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def problems_of(document: Any) -> list[str]:
    """What the API server would refuse in a manifest: place and reason, a line each."""
    kind = document.get("kind") if isinstance(document, dict) else None
    types = _schema()["$defs"]
    if kind not in ("JobSet", "Job", "Service"):
        return [f"kind: {kind!r} is not one of JobSet, Job, Service"]
    validator = jsonschema.Draft202012Validator({**types[kind], "$defs": types})
    errors = sorted(validator.iter_errors(document), key=lambda error: error.json_path)
    return [f"{error.json_path[2:] or kind}: {error.message}" for error in errors]


def main(paths: list[str]) -> int:
    """Prints every problem, and how many manifests have none; the exit code."""
    found, sound = [], 0
    for path in paths:
        for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
            lines = problems_of(document)
            found += [f"{path}: {line}" for line in lines]
            sound += not lines
    print("\n".join([*found, f"{sound} manifests hold by the types of JobSet and Kubernetes"]))
    return 1 if found or not sound else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
