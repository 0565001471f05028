"""Many threads and greenlets use lists and streams at the same time. See ``stress.py`` for the invariants."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.concurrency.stress import churn_and_send, publish_to_streams
from tests.support.servers import ROOT


class _Thread(threading.Thread):
    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(target=call)
        self.start()


@pytest.mark.timeout(600)
def test_list_survives_operations_of_32_threads() -> None:
    """Their number is that of ``STRESS_OPERATIONS``."""
    churn_and_send(lambda: None)


def test_streams_on_threads_get_all_events_in_one_order() -> None:
    publish_to_streams(_Thread, consumers=50, senders=8, each=200)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "program",
    [
        pytest.param("stress_on_greenlets", id="lists and streams"),
        pytest.param("gevent_process", id="forks and foreign threads"),
    ],
)
def test_gevent_process_survives_stress(program: str) -> None:
    """A list and streams, sent to by greenlets and by real threads; forks, and passes that let others run."""
    command = [sys.executable, "-m", f"tests.concurrency.{program}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "held\n"
    assert "Greenlet" not in result.stderr, "a greenlet died"
