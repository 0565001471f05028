"""How large the parts of the package may grow before they are split: so that each file can be read at one sitting.

Which package may import which is checked by import-linter; private names, complexity and docstrings by ruff: see
``make lint``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers import ROOT

PACKAGE = ROOT / "flask_sse_emitters"

MAX_ENTRIES = 9
MAX_MODULE_LINES = 350
MAX_METHODS = 20
MAX_FUNCTION_LINES = 40

#: Classes of which users call nearly every method: they are as large as the public API.
PUBLIC_FACES = {"SSE"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def nodes(kind: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for module in modules():
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, kind):
                yield module, node


def test_folders_have_few_entries() -> None:
    """The package itself has the modules that users import besides."""
    folders = {path.parent for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    entries = {
        str(folder.relative_to(PACKAGE)): [
            path.name for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__")
        ]
        for folder in folders - {PACKAGE}
    }
    assert {folder: names for folder, names in entries.items() if len(names) > MAX_ENTRIES} == {}


def test_modules_are_short() -> None:
    paths = [*modules(), *sorted(PACKAGE.rglob("*.js"))]
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in paths}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_classes_have_few_methods() -> None:
    large = {}
    for module, node in nodes(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        names = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}  # overloads and setters once
        if len(names) > MAX_METHODS and node.name not in PUBLIC_FACES:
            large[f"{module.relative_to(PACKAGE)}: {node.name}"] = len(names)
    assert large == {}


def test_functions_are_short() -> None:
    long = {}
    for module, node in nodes(ast.FunctionDef):
        assert isinstance(node, ast.FunctionDef)
        lines = (node.end_lineno or node.lineno) + 1 - node.lineno
        if lines > MAX_FUNCTION_LINES:
            long[f"{module.relative_to(PACKAGE)}: {node.name}"] = lines
    assert long == {}
