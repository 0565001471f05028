"""Shared by all tests: their folder of temporary files, their order, and the seeds of those that choose at random."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Make a folder for the temporary files of all processes of this run: what is killed leaves some behind."""
    if hasattr(config, "workerinput"):  # a process of this run, which has the variables already
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps those of failures by itself
    config.stash[FOLDER] = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="sse-tests-")
    os.chmod(config.stash[FOLDER], 0o1777)  # PostgreSQL does not run as root
    os.environ.pop("XDG_RUNTIME_DIR", None)
    tempfile.tempdir = None


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(FOLDER, ""):
        shutil.rmtree(folder, ignore_errors=True)  # what was killed last may still be ending


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """Choose a seed; ``SEED=...`` sets it, which repeats the choices of a run."""
    chosen = int(os.environ.get("SEED", 0)) or random.SystemRandom().randrange(1, 2**32)
    record_property("seed", chosen)
    return chosen


#: Folders whose tests come first, because one takes long, and last, because one is done in a moment: so no process is
#: left alone with a long one at the end.
FIRST, LAST = "faults", "unit"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests in order: groups, each as it was shuffled, then the others, by folder.

    Where a module's tests wait, or compute, they would keep all processes at it at once: so they are mixed with others.
    """
    here = Path(__file__).parent
    seed = config.getoption("randomly_seed", 0)

    def place(item: pytest.Item) -> tuple[int, int]:
        if item.get_closest_marker("xdist_group"):
            return -1, 0
        folder = item.path.relative_to(here).parts[0]
        return (folder != FIRST) + (folder == LAST), crc32(f"{seed} {item.nodeid}".encode())

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
