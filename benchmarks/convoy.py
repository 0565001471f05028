"""A broadcast beside a thread that only computes: does each send wait for the interpreter's lock?"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import measure
from .load import Load
from .measure import Metric, Results
from .plan import Plan
from .processes import BenchmarkFailed
from .steps import connect, served
from .subjects import Server, Subject

#: Seconds that one broadcast may take: beside the thread a plain send may wait 5 ms for each client.
_PATIENCE = 600


def convoy(subject: Subject, plan: Plan, results: Results) -> None:
    """One event after the other, on all cores, without and with the thread."""
    clients = min(plan.convoy_clients, subject.most_clients)
    with served(subject) as (server, load):
        connect(server, load, clients)
        _on_all_cores([*server.pids, load.pid])
        _broadcast(server, load)  # warms it up
        alone = _measure(server, load, plan)
        thread = int(_post(server, "/computing/begin"))
        beside = _measure(server, load, plan, lambda: _seconds_of_thread(server.pids[0], thread))
        _post(server, "/computing/end")

    def add(metric: Metric, value: float) -> None:
        results.add(metric, clients, subject.name, value)

    add(measure.CONVOY_ALONE, alone.median_ms)
    add(measure.CONVOY_BESIDE, beside.median_ms)
    add(measure.CONVOY_RATIO, beside.median_ms / alone.median_ms)
    add(measure.CONVOY_ALONE_CPU, alone.cpu / alone.deliveries * 1e6)
    add(measure.CONVOY_BESIDE_CPU, beside.cpu / beside.deliveries * 1e6)


@dataclass
class _Broadcasts:
    cpu: float = 0.0
    deliveries: int = 0
    until_last: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.until_last) / 1e3


def _measure(server: Server, load: Load, plan: Plan, apart: Callable[[], float] = lambda: 0.0) -> _Broadcasts:
    """As many events as the plan has, or fewer where they take long.

    :param apart: CPU seconds that do not count.
    """
    done, deadline = _Broadcasts(), time.monotonic() + plan.convoy_seconds
    before = server.cpu() - apart()
    while len(done.until_last) < plan.convoy_events and (not done.until_last or time.monotonic() < deadline):
        done.until_last.append(_broadcast(server, load))
        done.deliveries += load.clients
    done.cpu = server.cpu() - apart() - before
    return done


def _broadcast(server: Server, load: Load) -> float:
    """Microseconds from ``send`` until the last client has read the event."""
    return load.scattered(1, lambda: _post(server, f"/broadcast/{load.next_number}"), channels=1).max_us


def _post(server: Server, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status != 200:
        raise BenchmarkFailed(f"{path} was answered with {answer.status}: {text}")
    return text


def _on_all_cores(pids: list[int]) -> None:
    """Let each thread of these processes, and those that they will start, run where the system likes."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), os.sched_getaffinity(0))


def _seconds_of_thread(pid: int, thread: int) -> float:
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
