"""The public API: lazy, complete, and the same for type checkers as at run time."""

import ast
import pathlib
import subprocess
import sys

import t5jax


def declared() -> set[str]:
    """The names under TYPE_CHECKING, which type checkers and the API reference see."""
    tree = ast.parse(pathlib.Path(t5jax.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_every_name_is_there_documented_and_declared():
    assert set(t5jax.__all__) == declared() | {"__version__"}
    assert set(t5jax.__all__) <= set(dir(t5jax))
    for name in set(t5jax.__all__) - {"__version__"}:
        assert getattr(t5jax, name).__doc__, name


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, t5jax; print({'jax', 'numpy', 'tensorflow', 'flax'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(t5jax, "no_such_name")
