"""Shared by all tests: the seeds of those that choose at random, printed at the end of a run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """Choose a seed; ``SEED=...`` sets it, which repeats the choices of a run."""
    chosen = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 2**32)
    record_property("seed", chosen)
    return chosen


#: Folders whose tests come first, because one takes long, and last, because one is done in a moment: so no process is
#: left alone with a long one at the end. Tests of the others wait or compute, and come mixed, as they were shuffled.
FIRST, LAST = "faults", "unit"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order by folder; within each they stay as they were shuffled."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return (folder != FIRST) + (folder == LAST)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    seeds = {
        report.nodeid: value
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "seed"
    }
    if seeds:
        terminalreporter.section("seeds (SEED=... repeats a test's choices)")
        for test, value in sorted(seeds.items()):
            terminalreporter.line(f"{value:>10} {test}")
