"""Shared by all tests: the seeds of those that choose at random, printed at the end of a run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """Choose a seed; ``SEED=...`` sets it, which repeats the choices of a run."""
    chosen = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 2**32)
    record_property("seed", chosen)
    return chosen


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
