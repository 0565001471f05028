"""Run the tests of each mutant with its fault: ``python -m tests.project.mutants [WORD...]``.

With words, only mutants whose text holds one of them. Ends with an error where a fault is not found.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from tests.project.mutants import PACKAGE, Mutant, modules_of_tests, mutants
from tests.support.servers import ROOT

#: A test that hangs with a fault has found it.
SECONDS = 60

#: pytest's exit status where tests were run, and some failed.
FAILED = 1

_LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")


Copies = SimpleQueue[Path]


def copies_of_the_project(folder: Path, count: int) -> Copies:
    """Make copies of the project, one for each mutant that is run at a time."""
    copies: Copies = SimpleQueue()
    for number in range(count):
        copy = folder / str(number)
        shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
        if (ROOT / "build").exists():
            (copy / "build").symlink_to(ROOT / "build")
        copies.put(copy)
    return copies


def run(copy: Path, test: str, module: str) -> tuple[int, str]:
    """Run one test in a copy of the project; return pytest's exit status, and what it printed."""
    options = ["-n0", "-x", "-q", "-p", "no:cacheprovider", "-o", f"timeout={SECONDS}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, f"{module}::{test}"],
        cwd=copy,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=2 * SECONDS)
    except subprocess.TimeoutExpired:  # a thread of the test waits for ever
        return FAILED, "it hangs"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, output


def find(mutant: Mutant, copies: Copies) -> tuple[bool, str]:
    """Return whether each test of the mutant finds it, and what to print."""
    modules, began, lines = modules_of_tests(), time.monotonic(), []
    copy = copies.get()
    try:
        mutant.apply(copy)
        for test in mutant.tests:
            [module] = modules[test.partition("[")[0]]
            status, output = run(copy, test, module)
            if status != FAILED:
                lines.append(f"    {module}::{test} ended with {status}\n{output[-2000:]}")
    finally:
        shutil.copy(ROOT / PACKAGE / mutant.file, copy / PACKAGE / mutant.file)
        copies.put(copy)
    word = "NOT FOUND" if lines else "found"
    return not lines, "\n".join([f"{word:9} {time.monotonic() - began:5.1f} s  {mutant.about}", *lines])


def main(words: list[str]) -> int:
    """Run the mutants that have one of these words, or all; return the exit status."""
    chosen = [each for each in mutants() if not words or any(word in f"{each}" for word in words)]
    count = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(count) as pool:
        copies = copies_of_the_project(Path(folder), count)
        missed = 0
        for is_found, text in pool.map(lambda mutant: find(mutant, copies), chosen):
            missed += not is_found
            print(text, flush=True)  # noqa: T201
    print(f"{len(chosen) - missed} of {len(chosen)} mutants found")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
