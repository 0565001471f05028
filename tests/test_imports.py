"""The map of the code in CONTRIBUTING.md: every module has its place there, and imports only what stands before it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flask_sse_emitters"


def places() -> dict[str, tuple[int, int]]:
    """Return for each module, or package, its floor and its place among all, as the table has them."""
    found: dict[str, tuple[int, int]] = {}
    for floor, names in re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`(\w+)(?:\.py|/)`", names):
            found[name] = int(floor), len(found)
    return found


def imported(file: Path) -> Iterator[str]:
    """Yield the modules beside the package's root that this file imports when it runs, also within functions."""
    tree = ast.parse(file.read_text())
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = []
    outside = len(file.relative_to(PACKAGE).parts)  # so many dots lead to the root
    for found in ast.walk(tree):
        if isinstance(found, ast.ImportFrom) and found.level == outside:
            yield from [found.module.partition(".")[0]] if found.module else [each.name for each in found.names]


def test_map_of_the_code_has_every_module() -> None:
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names - {"__init__"} == places().keys() - {"static"}


def test_map_of_the_code_counts_its_floors() -> None:
    floors = [floor for floor, _ in places().values()]
    assert floors[0] == 1
    assert all(after - before in (0, 1) for before, after in pairwise(floors))


def test_modules_import_only_what_stands_before_them() -> None:
    found = places()
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if (own := file.relative_to(PACKAGE).parts[0].removesuffix(".py")) != "__init__"
        for name in imported(file)
        if name != own and found[name][1] >= found[own][1]
    ]
    assert wrong == [], "move a line of the table in CONTRIBUTING.md, or the import"
