"""A crowd connects at once, and disconnects at once.

``CROWD=10000 pytest tests/faults/test_crowd.py`` changes the number of clients; ``pytest -s`` prints the measurements.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
import pytest

from benchmarks.processes import raise_limits
from tests.faults.crowd_clients import Crowd, Visitor
from tests.support.client import get, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until

#: Clients that connect within one second to a worker that hands streams off, and to one that writes on greenlets.
CROWD = int(os.environ.get("CROWD", 2_000))
CROWD_ON_GREENLETS = CROWD // 5

#: Seconds that a busy machine may take.
SLOW_SECONDS = 150.0

#: Descriptors of a process besides those of the crowd.
OTHERS = 200


class Watched(NamedTuple):
    """Events of the streams that were open before the crowd."""

    ticks: list[list[tuple[float, int]]]  #: of each stream: when a tick came, and its number
    beats: list[float]  #: when heartbeats came on a stream without events

    def longest_pause(self, begin: float, end: float) -> float:
        """Return the longest pause of any stream that is sent events all the time."""
        return max(_longest_pause([when for when, _ in ticks], begin, end) for ticks in self.ticks)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kind", "wanted"), [("gevent", CROWD), ("gevent_off", CROWD_ON_GREENLETS)])
def test_crowd_comes_and_goes_within_a_second_and_others_are_served(kind: str, wanted: int) -> None:
    """Thousands connect, get an event, and disconnect; streams that were open before get their events all the while."""
    number = min(wanted, raise_limits() - OTHERS)  # each client takes a descriptor here, and one in the server
    env = {"CONFIG": json.dumps({"SSE_MAX_CLIENTS": 2 * CROWD})}
    with (
        Server(kind, "tests.apps.crowd:app", env=env, arguments=["--worker-connections", "20000"]) as server,
        _watching(server) as watched,
        Crowd(server.port) as crowd,
    ):
        before = get(server, "/state")
        post(server, "/tick/old?every=0.02")
        crowd.come(number, "/connect/crowd?heartbeat=3", within=0.8)
        crowd.read_until(lambda: crowd.answered == number, "all to be answered", SLOW_SECONDS)
        began = min(visitor.began for visitor in crowd.visitors)
        came = max(visitor.answered for visitor in crowd.visitors)
        there = get(server, "/state")
        assert there["lists"]["crowd"] == number

        sent = time.monotonic()
        assert post(server, "/send/crowd", "to all") == {"reached": number}
        crowd.read_until(lambda: all(b"to all" in each.received for each in crowd.visitors), "the event", SLOW_SECONDS)
        reached = time.monotonic()
        assert Counter(map(_texts, crowd.visitors)) == {("welcome", "to all"): number}

        stay, half = crowd.visitors[:20], number // 2
        leaving = time.monotonic()
        crowd.leave(crowd.visitors[20:half], ["close", "reset"])
        amid = post(server, "/send/crowd", "amid")["reached"]
        crowd.leave(crowd.visitors[half:], ["close", "reset"])
        until(
            lambda: _disconnects_are_counted(server, crowd, 20, number - 20),
            "all disconnects to be counted",
            SLOW_SECONDS,
        )
        left = time.monotonic()
        assert 20 <= amid <= number
        crowd.read_until(lambda: all(b"amid" in each.received for each in stay), "the event amid the disconnects")
        assert {_texts(each) for each in stay} == {("welcome", "to all", "amid")}
        crowd.leave(stay, ["reset"])
        until(lambda: _disconnects_are_counted(server, crowd, 0, number), "the last disconnects to be counted")
        until(lambda: _settled(server, before), "the descriptors to be closed")
        ends = get(server, "/state")["ends"]["crowd"]
        assert number <= ends.pop("DISCONNECTED") <= number + crowd.refused
        assert not ends
        post(server, "/tick/old?every=0")
        assert _busy_for(before["pid"], 0.5) < 0.25
        assert "Traceback" not in server.log
    size = (there["uss"] - before["uss"]) / number
    pauses = {
        "while they came": watched.longest_pause(began, came),
        "with the event": watched.longest_pause(sent, reached),
        "while they left": watched.longest_pause(leaving, left),
    }
    print(  # noqa: T201 - measurements
        f"\n{kind}: {number} clients; answered after {came - began:.2f} s, given an event in {reached - sent:.2f} s, "
        f"counted out {left - leaving:.2f} s after they left; {size / 1000:.1f} kB a client; pauses of others:",
        ", ".join(f"{seconds:.2f} s {when}" for when, seconds in pauses.items()),
    )
    for ticks in watched.ticks:
        assert [tick for _, tick in ticks] == list(range(len(ticks))), "each event once, and in order"
    assert any(began < beat < came for beat in watched.beats), "heartbeats go on"
    assert pauses["while they came"] < max(1.0, (came - began) / 3)
    if kind == "gevent":
        assert size < 10_000
        assert there["greenlets"] < 100


@contextmanager
def _watching(server: Server) -> Iterator[Watched]:
    """Read some streams in another process; its record is there at the end."""
    watched = Watched([], [])
    paths = ["/connect/old", "/connect/old", "/connect/quiet?heartbeat=0.2"]
    command = [sys.executable, "-m", "tests.apps.crowd_watcher", str(server.port), *paths]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        try:
            assert watcher.stdout.readline() == "ready\n"
            yield watched
            *busy, quiet = json.loads(watcher.communicate(timeout=PATIENCE)[0])
        finally:
            watcher.kill()
    for record in busy:
        assert record[-1][1], "the stream is still open"
        watched.ticks.append([(when, int(tick)) for when, data in record for tick in re.findall(r"data: (\d+)", data)])
    watched.beats.extend(when for when, data in quiet if data.endswith(":\n\n\r\n"))


def _texts(visitor: Visitor) -> tuple[str, ...]:
    return tuple(event.data for event in visitor.events())


def _disconnects_are_counted(server: Server, crowd: Crowd, there: int, ended: int) -> bool:
    """A client whose connection was reset and made again may have had a stream before."""
    found = get(server, "/counts/crowd")
    in_time = ended <= found["ended"] <= ended + crowd.refused
    return in_time and (found["clients"], found["listed"]) == (there + 3, there)


def _settled(server: Server, before: dict[str, Any]) -> bool:
    return bool(get(server, "/state")["descriptors"] <= before["descriptors"] + 2)


def _longest_pause(times: list[float], begin: float, end: float) -> float:
    """Return the longest pause between ``times``, as far as it lies within ``begin`` and ``end``."""
    inner = [begin, *(when for when in times if begin < when < end), end]
    return max(after - before for before, after in itertools.pairwise(inner))


def _busy_for(pid: int, seconds: float) -> float:
    """Return the seconds of processor time that a process takes meanwhile."""
    process = psutil.Process(pid)
    began = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return float(sum(process.cpu_times()[:2]) - began)
