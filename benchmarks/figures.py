"""The figures: each measures one subject once, on a server that is started for it."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import measure
from .convoy import convoy
from .load import Load
from .measure import Results
from .plan import Plan
from .processes import BenchmarkFailed
from .redis_figures import foreign, shared, users
from .reload_figures import reloads
from .single import single, storm
from .steps import connect, events_for, in_turns, served, settle
from .subjects import Server, Subject

PUBLISHERS = 16

#: More than any socket takes (``net.ipv4.tcp_wmem``), for a client that reads nothing.
_FILL_BYTES = 5_000_000
_FILL_EVENT = 50_000

#: A client that reads nothing stays, and loses its oldest events: so that it is there for as long as it is measured.
_STAYS_STUCK = {"SSE_OVERFLOW": "drop_oldest", "SSE_MAX_PENDING": "1000", "SSE_WRITE_SECONDS": "0"}


def delivery(subject: Subject, plan: Plan, results: Results) -> None:
    """One event after the other: CPU time and latency of a delivery, with more and more clients on one server."""
    with served(subject) as (server, load):
        for clients in plan.clients:
            if clients > subject.most_clients:
                break
            connect(server, load, clients)
            _deliver(subject, server, load, plan, results)


def _deliver(subject: Subject, server: Server, load: Load, plan: Plan, results: Results) -> None:
    events, clients = events_for(plan.cpu, server, load), load.clients
    before, helpers_before = server.cpu(), server.broker_cpu()
    answer = load.one_by_one(events)
    spent, helpers_spent = server.cpu() - before, server.broker_cpu() - helpers_before

    def add(metric: measure.Metric, value: float) -> None:
        results.add(metric, clients, subject.name, value)

    add(measure.DELIVERY_CPU, spent / answer.deliveries * 1e6)
    if server.helpers:
        add(measure.DELIVERY_HELPERS, helpers_spent / answer.deliveries * 1e6)
    add(measure.DELIVERY_LOAD, answer.cpu_seconds / answer.deliveries * 1e6)
    add(measure.LATENCY_P50, answer.p50_us / 1e3)
    add(measure.LATENCY_P99, answer.p99_us / 1e3)
    add(measure.LATENCY_MAX, answer.max_us / 1e3)


def burst(subject: Subject, plan: Plan, results: Results) -> None:
    """Sixteen publishers, each as fast as it is answered."""
    for clients in plan.burst_clients:
        if clients <= subject.most_clients:
            with served(subject) as (server, load):
                connect(server, load, clients)
                load.burst(PUBLISHERS, 1)
                before = server.cpu()
                answer = load.burst(PUBLISHERS, max(1, plan.burst_deliveries // PUBLISHERS // clients))
                spent = server.cpu() - before
            results.add(measure.BURST_RATE, clients, subject.name, answer.deliveries / answer.delivery_seconds)
            results.add(measure.BURST_CPU, clients, subject.name, spent / answer.deliveries * 1e6)
            results.add(measure.BURST_SHARE, clients, subject.name, spent / answer.seconds * 100)
            results.add(measure.BURST_LOAD, clients, subject.name, answer.cpu_seconds / answer.deliveries * 1e6)


def memory(subject: Subject, plan: Plan, results: Results) -> None:
    """What one more client costs that only waits: PSS with a tenth of them, and with all.

    With a tenth the server has what comes once, however many come then: threads, their stacks, what their malloc keeps.
    """
    clients = min(plan.memory_clients, subject.most_clients)
    tenth = clients // 10
    with served(subject) as (server, load):
        connect(server, load, tenth)
        load.one_by_one(2)
        time.sleep(1)
        before = server.pss()
        connect(server, load, clients)
        time.sleep(1)
        results.add(measure.MEMORY, clients, subject.name, (server.pss() - before) / (clients - tenth))


def connects(subject: Subject, plan: Plan, results: Results) -> None:
    """New streams, and plain views of the same server: each on a connection of its own, a few at a time, in turns."""
    costs: dict[str, list[float]] = {"plain": [], "streams": []}
    with served(subject) as (server, load):

        def run(what: str, count: int) -> None:
            before = server.cpu()
            (load.plain if what == "plain" else load.connect)(count, at_once=4)
            settle(server)
            costs[what].append((server.cpu() - before) / count)
            load.close()
            settle(server)

        for what in costs:
            run(what, min(500, plan.connects))  # warms it up
        for what in in_turns("plain", "streams", plan.connect_rounds):
            run(what, plan.connects)
    plain, streams = costs["plain"][1:], costs["streams"][1:]
    results.add(measure.CONNECT_CPU, plan.connects, subject.name, statistics.median(streams) * 1e6)
    results.add(measure.PLAIN_CPU, plan.connects, subject.name, statistics.median(plain) * 1e6)
    ratio = statistics.median(stream / plain for stream, plain in zip(streams, plain, strict=True))
    results.add(measure.CONNECT_RATIO, plan.connects, subject.name, ratio)


def idle(subject: Subject, plan: Plan, results: Results) -> None:
    """Clients that only get their heartbeats."""
    with served(subject, {"SSE_HEARTBEAT": str(plan.heartbeat)}) as (server, load):
        connect(server, load, plan.idle_clients)
        time.sleep(1)
        before = server.cpu()
        answer = load.idle(plan.idle_seconds)
        spent = server.cpu() - before
    heartbeats = answer.comments / answer.clients
    if heartbeats < plan.idle_seconds // plan.heartbeat - 1:
        raise BenchmarkFailed(f"only {heartbeats} heartbeats per client came in {plan.idle_seconds} s")
    results.add(measure.IDLE_CPU, plan.idle_clients, subject.name, spent / answer.seconds * 100)
    results.add(measure.IDLE_HEARTBEATS, plan.idle_clients, subject.name, heartbeats)


def stuck(subject: Subject, plan: Plan, results: Results) -> None:
    """One client that reads nothing any more, among many: what that does to the others, in turns without and with."""
    slowest: dict[str, list[float]] = {"without": [], "with": []}
    with served(subject, _STAYS_STUCK) as (server, load):
        connect(server, load, plan.stuck_clients)
        events = events_for(2 * plan.cpu, server, load)
        for how in in_turns("without", "with", plan.stuck_rounds):
            port = load.stuck(1).ports[0] if how == "with" else None
            load.one_by_one(_FILL_BYTES // _FILL_EVENT, size=_FILL_EVENT)
            waiting = _unsent(server.port, port)
            slowest[how].append(load.one_by_one(events).p99_us)
            if (waiting > 0) != (how == "with") or waiting != _unsent(server.port, port):
                raise BenchmarkFailed(f"stuck is not what it should be: {waiting}, {_unsent(server.port, port)} bytes")
            load.unstuck()
            settle(server)
    before, after = statistics.median(slowest["without"]), statistics.median(slowest["with"])
    results.add(measure.STUCK_WITHOUT, plan.stuck_clients, subject.name, before / 1e3)
    results.add(measure.STUCK_WITH, plan.stuck_clients, subject.name, after / 1e3)
    results.add(measure.STUCK_RATIO, plan.stuck_clients, subject.name, after / before)


def ordinary(subject: Subject, plan: Plan, results: Results) -> None:
    """An ordinary request of the same worker, on an open connection, while one broadcast follows the other."""
    waits: list[float] = []
    with served(subject) as (server, load):
        connect(server, load, plan.ordinary_clients)
        events = events_for(4 * plan.cpu, server, load)
        over = threading.Event()
        asker = threading.Thread(target=_ask, args=(server.port, over, waits))
        asker.start()
        try:
            load.one_by_one(events)
        finally:
            over.set()
            asker.join()
    hundredths = statistics.quantiles(waits, n=100)
    results.add(measure.ORDINARY_P50, plan.ordinary_clients, subject.name, hundredths[49] * 1e3)
    results.add(measure.ORDINARY_P99, plan.ordinary_clients, subject.name, hundredths[98] * 1e3)
    results.add(measure.ORDINARY_MAX, plan.ordinary_clients, subject.name, max(waits) * 1e3)


def _ask(port: int, over: threading.Event, waits: list[float]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        while not over.wait(0.002):
            begin = time.perf_counter()
            connection.request("GET", "/plain")
            connection.getresponse().read()
            waits.append(time.perf_counter() - begin)


def _unsent(server: int, client: int | None) -> int:
    """Bytes in the server's socket that the client at this port has not taken."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if int(local.split(":")[1], 16) == server and int(remote.split(":")[1], 16) == client:
            return int(queues.split(":")[0], 16)
    return 0


@dataclass(frozen=True)
class Figure:
    """What is measured, and of whom.

    :ivar quick: of whom with ``--quick``; all, where it is empty.
    :ivar most_runs: where one run measures several times by itself.
    """

    run: Callable[[Subject, Plan, Results], None]
    subjects: tuple[str, ...]
    quick: tuple[str, ...] = ()
    most_runs: int | None = None


_OURS = ("ours-on", "ours-sync", "ours-gthread", "ours-off")

_EVERYONE = ("bare", *_OURS, "recipe", "flask-sse", "sse-starlette", "nchan")

_RELOADED = (
    *("ours-redis", "ours-redis-sync", "ours-redis-gthread"),
    *("ours-memory", "ours-memory-sync", "ours-memory-gthread"),
)

_SINGLE = (
    *("ours-memory", "ours-redis", "ours-postgresql"),
    *("flask-sse", "socketio-redis", "nchan", "nchan-redis"),
)

FIGURES = {
    "delivery": Figure(delivery, _EVERYONE),
    "burst": Figure(burst, (*_OURS, "recipe", "nchan")),
    "memory": Figure(memory, _EVERYONE, quick=("ours-on", "recipe")),
    "connect": Figure(connects, _OURS, quick=("ours-on",)),
    "idle": Figure(idle, ("ours-on", "ours-sync", "ours-gthread")),
    "stuck": Figure(stuck, _OURS, quick=("ours-on",)),
    "ordinary": Figure(ordinary, _OURS, quick=("ours-on",)),
    "convoy": Figure(convoy, ("plain-sends", "ours-sync", "ours-gthread"), quick=("plain-sends", "ours-gthread")),
    "shared": Figure(shared, ("flask-sse", "ours-redis"), quick=("ours-redis",)),
    "foreign": Figure(foreign, ("ours-redis",)),
    "reload": Figure(reloads, _RELOADED, quick=("ours-redis",), most_runs=1),
    "users": Figure(users, ("ours-redis",), most_runs=1),
    "single": Figure(single, _SINGLE, quick=("ours-redis",)),
    "storm": Figure(storm, ("ours-memory", "ours-redis"), quick=("ours-redis",)),
}
