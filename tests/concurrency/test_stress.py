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
@pytest.mark.parametrize("what", ["stress", "forks and foreign threads"])
def test_gevent_process_survives_stress(what: str) -> None:
    """A list and streams, sent to by greenlets and by real threads; forks, and passes that let others run."""
    command = [sys.executable, "-m", "tests.concurrency.gevent_process", what]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "held\n"
    assert "Greenlet" not in result.stderr, "a greenlet died"


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from flask_sse_emitters.runtime.scheduler import SCHEDULER
begun, found, called = [], [], gevent.event.Event()
SCHEDULER.call_soon(called.set)
called.wait()
gevent.sleep(0.05)  # it sleeps now
def handle():
    begun.append(1)
    if len(begun) == 100:
        SCHEDULER.call_soon(lambda: found.append(len(begun)))
    ends = time.perf_counter() + 0.00002
    while time.perf_counter() < ends: pass
{many}
while len(begun) < 5_000: gevent.sleep(0.001)
print(*found)
"""


@pytest.mark.parametrize(
    "many",
    [
        pytest.param("for _ in range(5_000): gevent.spawn(handle)", id="greenlets"),
        pytest.param("for _ in range(5_000): SCHEDULER.run(handle)", id="callbacks"),
    ],
)
def test_scheduler_under_gevent_waits_for_no_queued_greenlet(many: str) -> None:
    """The event loop looks at its descriptors every thousand greenlets; the call may take little longer than that."""
    program = [sys.executable, "-c", GREENLETS.format(many=many)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 100 <= int(done.stdout) <= 3_000
