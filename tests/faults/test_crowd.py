"""Thousands connect at once and disconnect at once; workers and publishers are killed; callbacks misbehave.

``CROWD=2000 pytest tests/faults/test_crowd.py`` changes the number of clients; ``pytest -s`` prints the measurements.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psutil
import pytest

from flask_sse_emitters.runtime.scheduler import CALLBACKS, MAX_HELPERS, TIMERS_IN_A_ROW, Scheduler
from tests.faults.crowd_clients import Crowd, Visitor
from tests.faults.swarm import new_seed
from tests.support.client import Client, answer, connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.workers_server import WorkersServer

#: Clients that connect within one second to a worker that hands streams off, and to one that writes on greenlets.
CROWD = int(os.environ.get("CROWD", 10_000))
CROWD_ON_GREENLETS = CROWD // 5

#: Seconds that a busy machine may take.
SLOW_SECONDS = 150.0

#: Descriptors of a process besides those of the crowd.
OTHERS = 200


class Watched(NamedTuple):
    """Events of the streams that were open before the crowd."""

    ticks: list[list[tuple[float, int, float]]]  #: of each stream: when a tick came, its number, and when it was sent
    beats: list[float]  #: when heartbeats came on a stream without events

    def longest_pause(self, begin: float, end: float) -> float:
        """Return the longest pause of any stream that is sent events all the time."""
        return max(_longest_pause([when for when, _, _ in ticks], begin, end) for ticks in self.ticks)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kind", "wanted"), [("gevent", CROWD), ("gevent_off", CROWD_ON_GREENLETS)])
def test_crowd_connects_and_disconnects_within_a_second_and_old_clients_are_served(kind: str, wanted: int) -> None:
    """Thousands connect, get an event, and disconnect; streams that were open before get their events all the while."""
    number = _as_many_as_fit(wanted)
    with _crowded(kind) as server, _watching(server) as watched, Crowd(server.port) as crowd:
        before = get(server, "/state")
        post(server, "/tick/old?every=0.02")
        spread = crowd.come(number, "/connect/crowd?heartbeat=3", within=0.8)
        crowd.read_until(lambda: crowd.answered == number, "all to be answered", SLOW_SECONDS)
        began = min(visitor.began for visitor in crowd.visitors)
        waits = sorted(visitor.answered - visitor.began for visitor in crowd.visitors)
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
        all_left = time.monotonic()
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
    storm = came - began
    pauses = {
        "while they came": watched.longest_pause(began, came),
        "with the event": watched.longest_pause(sent, reached),
        "while they left": watched.longest_pause(leaving, left),
    }
    print(  # noqa: T201 - measurements
        f"\n{kind}: {number} asked within {spread:.2f} s; head after {waits[number // 2]:.2f} s (median), "
        f"{waits[-1]:.2f} s (last); {crowd.refused} connections reset and made again;",
        f"\n{(there['uss'] - before['uss']) / number / 1000:.1f} kB a client, {there['greenlets']} greenlets; "
        f"event at all of them after {reached - sent:.2f} s; left within {all_left - leaving:.2f} s, "
        f"counted out after {left - leaving:.2f} s;",
        "\nlongest pause of a client that was there before:",
        ", ".join(f"{seconds:.2f} s {when}" for when, seconds in pauses.items()),
        f"; of heartbeats every 0.2 s: {_longest_pause(watched.beats, began, came):.2f} s while they came",
    )
    for ticks in watched.ticks:
        assert [tick for _, tick, _ in ticks] == list(range(len(ticks))), "each event once, and in order"
    assert any(began < beat < came for beat in watched.beats), "heartbeats go on"
    assert pauses["while they came"] < max(1.0, storm / 3)
    if kind == "gevent":
        assert (there["uss"] - before["uss"]) / number < 10_000
        assert there["greenlets"] < 100


@contextmanager
def _crowded(kind: str) -> Iterator[Server]:
    env = {"CONFIG": json.dumps({"SSE_MAX_CLIENTS": 2 * CROWD})}
    with Server(kind, "tests.apps.crowd:app", env=env, arguments=["--worker-connections", "20000"]) as server:
        yield server


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
        ticks = [(when, re.findall(r"data: (\d+) ([\d.]+)", data)) for when, data in record]
        watched.ticks.append([(when, int(tick), float(sent)) for when, found in ticks for tick, sent in found])
    watched.beats.extend(when for when, data in quiet if data.endswith(":\n\n\r\n"))


def _as_many_as_fit(wanted: int) -> int:
    """Lower ``wanted`` to the descriptors allowed: each client takes one here and one in the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + OTHERS:
        print(f"\nno more than {hard} descriptors: {hard - OTHERS} come in place of {wanted}")  # noqa: T201
        wanted = hard - OTHERS
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard), hard))
    return wanted


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


# callbacks


@pytest.fixture(params=["gevent", "gevent_off", "gthread"])
def careless(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose callbacks misbehave."""
    with Server(request.param, "tests.apps.crowd_callbacks:app") as server:
        yield server


def test_callbacks_that_raise_block_or_recurse_harm_no_stream(careless: Server) -> None:
    with connected(careless, "/connect/a/witness?heartbeat=0.1") as witness:
        assert witness.texts(1) == ["welcome"]
        _callbacks_raise(careless, witness)
        _callbacks_recurse(careless)
        _callbacks_make_a_chain(careless)
        _callbacks_block(careless, witness)
        final = get(careless, "/state/a")
        assert (final["count"], final["clients"]) == (1, 1)


def _callbacks_raise(server: Server, witness: Client) -> None:
    """Each is logged once with its traceback, and the next one runs, also where one would end its thread."""
    with connected(server, "/connect/a/raiser?habit=raise") as client:
        client.texts(1)
        client.reset()
    until(lambda: _journal_has(server, "raiser is over"), "the callback after those that raise")
    log = server.log
    assert [log.count(f"the {which} of raiser") for which in ("first", "second")] == [1, 1]
    assert len(re.findall(r"Traceback .*?in fail\n.*?ValueError: the first of raiser", log, re.DOTALL)) == 1
    assert post(server, "/send/a", "still here") == {"reached": 1}
    assert witness.texts(1) == ["still here"]


def _callbacks_recurse(server: Server) -> None:
    """One sends to the list it was in, ends itself and another, adds to the list and removes from it."""
    with ExitStack() as stack:
        recursing, other, removed, following = (
            stack.enter_context(connected(server, f"/connect/b/{path}"))
            for path in ("recursing?habit=recurse", "other", "removed", "next")
        )
        for client in (recursing, other, removed, following):
            assert client.texts(1) == ["welcome"]
        post(server, "/complete/recursing")
        assert recursing.rest() == b""
        assert other.texts(2) == ["recursing is gone", "the late one of recursing is gone"]
        assert following.texts(1) == ["recursing is gone"]
        following.rest()
        assert removed.texts(1) == ["recursing is gone"]
        until(lambda: _journal_has(server, "recursing has registered one more"), "all callbacks")
        now = get(server, "/state/b")
        assert now["count"] == 1
        own = [line for line in now["journal"] if line.startswith("recursing")]
        assert own == ["recursing cannot send to itself", "recursing is over", "recursing has registered one more"]


def _callbacks_make_a_chain(server: Server) -> None:
    """The end of each ends the next one: too deep for recursion."""
    with connected(server, "/connect/c/last") as client:
        client.texts(1)
        assert post(server, "/chain/last?length=10000") == {"length": 10_000}
        assert client.rest() == b""
    assert get(server, "/state/a")["chain"] == 0


def _callbacks_block(server: Server, witness: Client) -> None:
    """Block all threads for callbacks: streams go on, ends are noticed, and the waiting callbacks run later."""
    most = MAX_HELPERS[CALLBACKS]
    names = [f"blocker{number}" for number in range(most + 4)]
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server, f"/connect/d/{name}?habit=block")) for name in names]
        for client in clients:
            client.texts(1)
    until(lambda: len(_blocked(server)) == most, "as many callbacks to begin as may run at once")
    until(lambda: get(server, "/state/d")["count"] == 0, "all to leave their list")
    now = get(server, "/state/d")
    assert now["clients"] == 1, "a client with waiting callbacks has left all the same"
    assert post(server, "/send/a", "while they block") == {"reached": 1}
    assert witness.texts(1) == ["while they block"]
    beats = b""
    while beats.count(b":\n") < 5:
        beats += witness.read_some()
    with connected(server, "/connect/a/newcomer") as newcomer:
        assert newcomer.texts(1) == ["welcome"]
        assert post(server, "/send/a", "to both") == {"reached": 2}
        assert (witness.texts(1), newcomer.texts(1)) == (["to both"], ["to both"])
    until(lambda: get(server, "/state/a")["count"] == 1, "the newcomer's end to be noticed")
    assert len(_blocked(server)) == most
    assert not _journal_has(server, "newcomer is over"), "it waits for one of those"
    post(server, "/release")
    over = {f"{name} is over" for name in [*names, "newcomer"]}
    until(lambda: over <= set(get(server, "/state/d")["journal"]), "the callbacks that have waited")


def _blocked(server: Server) -> list[str]:
    return [line for line in get(server, "/state/d")["journal"] if line.endswith("blocks")]


def _journal_has(server: Server, line: str) -> bool:
    return line in get(server, "/state/a")["journal"]


# killed amid their work


class PublishingProcess:
    """Publishes numbers to a channel, from the first that is not confirmed; can be killed and restarted."""

    def __init__(self, url: str, last: int, pause: float) -> None:
        self.begun = self.confirmed = 0
        self.failures: list[float] = []  #: seconds until each failure was reported
        self._to, self._rest = [url, "a"], [str(last), str(pause)]

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.apps.crowd_publisher",
            *self._to,
            str(self.confirmed + 1),
            *self._rest,
        ]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                what, _, value = line.partition(" ")
                if what == "failed":
                    self.failures.append(float(value))
                else:
                    setattr(self, what, int(value))


@contextmanager
def _publishing(url: str, last: int, pause: float) -> Iterator[PublishingProcess]:
    publisher = PublishingProcess(url, last, pause)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.kill()


@contextmanager
def _shared(redis: RedisServer, **config: object) -> Iterator[WorkersServer]:
    config = {"SSE_BROKER_URL": redis.url, "SSE_HISTORY": 100_000, "SSE_PUBLISH_SECONDS": 0.5, **config}
    env = {f"SWARM_{key}": json.dumps(value) for key, value in config.items()}
    with WorkersServer("gevent", "tests.apps.swarm:app", 2, env=env) as server:
        yield server


def _numbers(visitor: Visitor) -> list[int]:
    return [int(event.data) for event in [*visitor.before, *visitor.events()]]


def _read_to(crowd: Crowd, last: int) -> None:
    """Read until each client has the last number; clients that were cut reconnect."""
    end = f"data: {last}\n".encode()

    def all_have_it() -> bool:
        crowd.come_back([visitor for visitor in crowd.visitors if visitor.ended])
        return all(end in visitor.received for visitor in crowd.visitors)

    crowd.read_until(all_have_it, f"number {last} at all of them")


def test_killed_worker_and_killed_publisher_lose_no_event() -> None:
    """Both are killed amid their work; the clients of the worker reconnect, and the publisher retries."""
    dice = random.Random(seed := new_seed())
    number, last = 400, 150
    with RedisServer() as redis, _shared(redis) as server, Crowd(server.port) as crowd:
        crowd.come(number, "/events?channel=a")
        crowd.read_until(lambda: crowd.answered == number, "all to be answered")
        with _publishing(redis.url, last, pause=0.01) as publisher:
            crowd.read_until(lambda: publisher.confirmed > 20, "the first events")
            victim, its = _kill_amid_a_delivery_pass(server, crowd)
            crowd.read_until(lambda: publisher.confirmed >= dice.randrange(50, 80), "a moment to kill the publisher")
            unconfirmed = _kill_amid_a_publish(redis, publisher)
            publisher.start()
            _read_to(crowd, last)
            until(lambda: publisher.is_over, "the publisher")
        until(lambda: victim not in (pids := {each.pid for each in server.workers}) and len(pids) == 2, "a new worker")
        assert {tuple(_numbers(visitor)) for visitor in crowd.visitors} == {tuple(range(1, last + 1))}
    newest = Counter(int(visitor.at_cut) for visitor in its)
    print(  # noqa: T201 - measurements
        f"\nseed {seed}: worker killed amid a delivery pass: newest events of its {len(its)} clients: {dict(newest)};"
        f" publisher killed amid publishing {unconfirmed}"
    )
    assert len(newest) > 1, "some of its clients had an event that others had not"
    assert crowd.returns == len(its)


def _kill_amid_a_delivery_pass(server: WorkersServer, crowd: Crowd) -> tuple[int, list[Visitor]]:
    """Stop a worker at one moment after another, until some of its clients lack what others have; kill it there."""
    victim = server.workers[0]
    peers = {(each.raddr.ip, each.raddr.port) for each in victim.net_connections("tcp4") if each.raddr}
    its = [visitor for visitor in crowd.visitors if visitor.socket.getsockname() in peers]

    def is_amid() -> bool:
        crowd.read(0.005)
        victim.suspend()
        until(lambda: victim.status() == psutil.STATUS_STOPPED, "the worker to stand still")
        while crowd.read(0):  # all that it has written
            pass
        if len({visitor.received.count(b"\ndata: ") for visitor in its}) > 1:
            return True
        victim.resume()
        return False

    until(is_amid, "a moment amid a delivery pass")
    victim.kill()
    crowd.read_until(lambda: all(visitor.ended for visitor in its), "its clients to be cut")
    return victim.pid, its


def _kill_amid_a_publish(redis: RedisServer, publisher: PublishingProcess) -> int:
    """Kill it while an event is on the way; Redis takes the event all the same, and confirms it to no one."""
    redis.signal(signal.SIGSTOP)
    try:
        failures = len(publisher.failures)  # what is begun may have been confirmed just before
        until(lambda: len(publisher.failures) > failures, "something to be on the way that Redis cannot confirm")
        publisher.kill()
        assert publisher.begun == publisher.confirmed + 1
    finally:
        redis.signal(signal.SIGCONT)
    return publisher.begun


def test_stopped_redis_loses_no_event_and_streams_stay_open() -> None:
    number, last = 100, 150
    with RedisServer() as redis, _shared(redis, SSE_HEARTBEAT=0.2) as server, Crowd(server.port) as crowd:
        crowd.come(number, "/events?channel=a")
        crowd.read_until(lambda: crowd.answered == number, "all to be answered")
        with _publishing(redis.url, last, pause=0.005) as publisher:
            crowd.read_until(lambda: publisher.confirmed > 30, "the first events")
            redis.signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                status, text = answer(server, "POST", "/publish/b", "1", {"Content-Type": "application/json"})
                refused = time.monotonic() - began
                assert (status, b"may have been published" in text) == (503, True)
                until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "degraded", "the worker to know")
                beats = [visitor.received.count(b"\n:\n\n") for visitor in crowd.visitors]
                crowd.read_until(
                    lambda: all(
                        visitor.received.count(b"\n:\n\n") >= count + 3
                        for visitor, count in zip(crowd.visitors, beats, strict=True)
                    ),
                    "three heartbeats of each",
                )
                until(lambda: publisher.failures, "the publisher to get an error")
                assert publisher.confirmed < last, "it was amid its work"
            finally:
                redis.signal(signal.SIGCONT)
            began = time.monotonic()
            _read_to(crowd, last)
            resumed = time.monotonic() - began
        until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "ok", "Redis to be back")
        assert {tuple(_numbers(visitor)) for visitor in crowd.visitors} == {tuple(range(1, last + 1))}
        assert crowd.returns == 0, "no stream was cut"
    print(  # noqa: T201 - measurements
        f"\nwhile Redis was stopped: 503 after {refused:.2f} s, publisher's error after {publisher.failures[0]:.2f} s "
        f"(SSE_PUBLISH_SECONDS=0.5); all at the end {resumed:.2f} s after it went on"
    )
