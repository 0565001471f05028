"""Faults put into the package on purpose, and the tests that must find them: ``list.toml``, run by ``make mutants``."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.support.servers import ROOT

PACKAGE = "flask_sse_emitters"


class Mutant(NamedTuple):
    """One fault: a text of one file, and what takes its place."""

    about: str
    file: str  #: in the package
    old: str
    new: str
    tests: list[str]  #: their names, with a parameter or without; each fails with this fault

    def apply(self, root: Path) -> None:
        """Put the fault into the package below this folder.

        :raises ValueError: where the text does not stand exactly once in the file, which has changed since.
        """
        path = root / PACKAGE / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} times, not once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


def mutants() -> list[Mutant]:
    """Return all mutants of the list."""
    listed = tomllib.loads((Path(__file__).parent / "list.toml").read_text())["mutant"]
    return [Mutant(**each) for each in listed]


@cache
def modules_of_tests() -> dict[str, list[str]]:
    """Return the modules of each test, by its name without a parameter."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE):
            found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found
