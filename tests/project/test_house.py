"""How large the parts of the package may grow before they are split: so that each file can be read at one sitting.

Which package may import which is checked by import-linter; private names, complexity and docstrings by ruff: see
``make lint``.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.support.servers import ROOT

PACKAGE = ROOT / "flask_sse_emitters"

MAX_ENTRIES = 9
MAX_MODULE_LINES = 350
MAX_METHODS = 20
MAX_FUNCTION_LINES = 40

#: Classes of which users call nearly every method.
PUBLIC_FACES = {"SSE", "SseEmitter"}


@cache  # and not when tests are collected, which each worker does
def definitions() -> list[tuple[Path, ast.ClassDef | ast.FunctionDef]]:
    """Return every class and function, with its module."""
    return [
        (module.relative_to(PACKAGE), node)
        for module in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]


def test_folders_have_few_entries() -> None:
    """The package itself has the modules that users import besides."""
    folders = {path.parent for path in PACKAGE.rglob("*.*") if path.parent.name != "__pycache__"} - {PACKAGE}
    entries = {
        folder: [path.name for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__")]
        for folder in folders
    }
    assert {folder: names for folder, names in entries.items() if len(names) > MAX_ENTRIES} == {}


def test_modules_are_short() -> None:
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js")]
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in paths}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_classes_have_few_methods() -> None:
    methods = {
        f"{module}: {node.name}": {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
        for module, node in definitions()
        if isinstance(node, ast.ClassDef) and node.name not in PUBLIC_FACES
    }
    assert {name: names for name, names in methods.items() if len(names) > MAX_METHODS} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{module}: {node.name}": (node.end_lineno or node.lineno) + 1 - node.lineno
        for module, node in definitions()
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}
