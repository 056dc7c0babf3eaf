"""README and design page against the tree: rooms, links, and the commands that they name."""

import ast
import pathlib
import re

import t5jax
from t5jax.cli.command_line import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = pathlib.Path(t5jax.__file__).parent
# Files of the package that README leaves out, being no rooms.
NOT_ROOMS = {"__init__", "__main__", "version"}


def tree(folder: pathlib.Path) -> set[str]:
    """Names of the files and folders with code in a folder."""
    return {path.stem for path in folder.iterdir() if path.suffix == ".py"} | {
        path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.py"))
    }


def drawn() -> tuple[set[str], set[str]]:
    """The rooms of the design page's drawing: those of the package, and those of data/."""
    block = (ROOT / "docs" / "design.md").read_text().split("```\nt5jax/\n")[1].split("```")[0]
    names = lambda indent: {
        name.removesuffix(".py").removesuffix("/")
        for line in block.splitlines()
        if len(line) - len(line.lstrip()) == indent
        for name in re.findall(r"(?:^\s+|  )([a-z_]+(?:\.py|/))(?=\s|$)", line)
    }
    return names(2), names(4)


def test_the_rooms_of_the_design_page_are_those_of_the_tree():
    package, data = drawn()
    assert package == tree(PACKAGE)
    assert data == tree(PACKAGE / "data") - {"__init__"}


def test_the_rooms_of_the_readme_are_those_of_the_tree():
    paragraph = re.search(r"The rooms of `t5jax/`.*?\n\n", (ROOT / "README.md").read_text(), re.S)
    assert paragraph is not None
    rooms = re.findall(r"`(\w+)`", paragraph[0])
    assert set(rooms) == tree(PACKAGE) - NOT_ROOMS
    assert len(rooms) == len(set(rooms))


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 15
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_python_of_the_readme_and_the_pages_parses_and_names_what_the_api_has():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
            for node in ast.walk(ast.parse(block, str(page))):
                if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                    continue
                if node.value.id == "t5jax":
                    assert hasattr(t5jax, node.attr), (page.name, node.attr)


def test_every_command_has_its_module_in_cli_and_in_commands():
    words = {command.name.split()[0] for command in COMMANDS}
    assert len(words) > 10
    for folder in ("cli", "commands"):
        assert words <= tree(PACKAGE / folder), folder


def test_files_named_in_docs_and_in_rooms_docstrings_are_there():
    for path in sorted(PACKAGE.rglob("__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        for name in re.findall(r"^(\w+\.py)\b", text, re.M):
            assert (path.parent / name).exists(), (path, name)
    folders = (PACKAGE, *(ROOT / name for name in ("configs", "tests", "launch", "benchmarks")))
    existing = {path.name for folder in folders for path in folder.rglob("*.py")}
    yours = {"my_run.py", "reviews.py", "finetune.py", "my_parts.py", "my_task.py", "my_tasks.py"}
    yours |= {"utils.py", "common.py"}  # names that the design page forbids
    for page in sorted((ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"\b([a-z]\w*\.py)\b", page.read_text()))
        assert named - existing - yours == set(), page.name
