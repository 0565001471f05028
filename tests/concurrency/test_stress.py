"""Stress tests of thread-safety. See ``stress.py`` for the invariants."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.concurrency.stress import OPERATIONS, churn_and_send, publish_to_streams
from tests.support.servers import ROOT


class _Thread:
    def __init__(self, call: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=call)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()


@pytest.mark.timeout(600)
def test_list_survives_200000_operations_of_32_threads() -> None:
    assert OPERATIONS == 200_000
    churn_and_send(lambda: None)


def test_streams_on_threads_get_all_events_in_one_order() -> None:
    publish_to_streams(_Thread, consumers=50, senders=8, each=500)


@pytest.mark.timeout(600)
def test_list_and_streams_survive_stress_on_greenlets_and_foreign_threads() -> None:
    """200,000 operations of greenlets; then streams on greenlets, sent to by greenlets and by real threads."""
    assert run_program("tests.concurrency.stress_on_greenlets") == "held\n"


def test_gevent_process_may_fork_and_use_foreign_threads() -> None:
    assert run_program("tests.apps.gevent_process") == "held\n"


def run_program(module: str) -> str:
    command = [sys.executable, "-m", module]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr
    assert "Greenlet" not in result.stderr, "a greenlet died"
    return result.stdout
