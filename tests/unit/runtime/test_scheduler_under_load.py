"""A scheduler with much to do: a call waits neither for all timers that are due, nor for all queued greenlets."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from flask_sse_emitters.runtime.scheduler import TIMERS_IN_A_ROW, Scheduler
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE


def test_scheduler_calls_wait_for_a_few_timers_and_not_for_all_due() -> None:
    scheduler, called = Scheduler(), []
    busy, gate, done = threading.Event(), threading.Event(), threading.Event()

    def hold_up() -> None:
        busy.set()
        gate.wait(PATIENCE)

    scheduler.call_soon(hold_up)
    assert busy.wait(PATIENCE)
    for number in range(1000):
        scheduler.call_at(number / 1000, lambda: called.append("timer"))
    for _ in range(3):
        scheduler.call_soon(lambda: called.append("call"))
    scheduler.call_at(1.0, done.set)
    gate.set()
    assert done.wait(PATIENCE)
    assert [index for index, kind in enumerate(called) if kind == "call"] == [
        TIMERS_IN_A_ROW + each * (TIMERS_IN_A_ROW + 1) for each in range(3)
    ]


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
def test_scheduler_under_gevent_does_not_wait_for_queued_greenlets_or_callbacks(many: str) -> None:
    """The event loop looks at its descriptors every thousand greenlets; the call may take little longer than that."""
    program = [sys.executable, "-c", GREENLETS.format(many=many)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 100 <= int(done.stdout) <= 3_000
