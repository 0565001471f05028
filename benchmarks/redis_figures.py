"""The figures of channels that go through Redis."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

from . import measure
from .load import Load, Publisher
from .measure import Results
from .plan import Plan
from .processes import BenchmarkFailed, busy_seconds, connections, kernel_bytes
from .steps import connect, events_for, served, settle
from .subjects import Server, Subject
from .subjects.gunicorn import OursOnRedis
from .subjects.redis import ServerWithRedis

WORKERS = 2

#: What a worker of 15,000 idle clients may take, as a share of a core, and be at rest: they get their heartbeats.
_RESTS = 0.1


def shared(subject: Subject, plan: Plan, results: Results) -> None:
    """One event after the other, to clients of two workers."""
    clients = min(plan.shared_clients, subject.most_clients)
    with served(subject, {"WORKERS": str(WORKERS)}) as (server, load):
        assert isinstance(server, ServerWithRedis)
        settle(server)  # all of them have started, and take their share of the clients
        connect(server, load, clients)
        settle(server)
        events = events_for(plan.cpu, server, load)
        before, redis_before = server.cpu(), server.broker_cpu()
        answer = load.one_by_one(events)
        spent, redis_spent = server.cpu() - before, server.broker_cpu() - redis_before
        fewest = min(connections(pid, server.port) for pid in server.pids)

    def add(metric: measure.Metric, value: float) -> None:
        results.add(metric, clients, subject.name, value)

    add(measure.SHARED_CPU, spent / answer.deliveries * 1e6)
    add(measure.SHARED_REDIS, redis_spent / answer.deliveries * 1e6)
    add(measure.SHARED_LOAD, answer.cpu_seconds / answer.deliveries * 1e6)
    add(measure.SHARED_LAST_P50, answer.last_p50_us / 1e3)
    add(measure.SHARED_LAST_P99, answer.last_p99_us / 1e3)
    add(measure.SHARED_FEWEST, fewest)


def foreign(subject: Subject, plan: Plan, results: Results) -> None:
    """Events of a channel that no client of these workers reads."""
    clients = plan.foreign_clients
    with served(subject, {"WORKERS": str(WORKERS)}) as (server, load):
        assert isinstance(server, ServerWithRedis)
        settle(server)
        connect(server, load, clients)
        with Publisher(server.settings) as publisher:
            publisher.begin(1, 10, 0, "elsewhere")  # connects
            publisher.end()
            settle(server)
            before, redis_before = server.cpu(), server.broker_cpu()
            publisher.begin(1, plan.foreign_events, 0, "elsewhere")
            answer = publisher.end()
            spent, redis_spent = server.cpu() - before, server.broker_cpu() - redis_before
        before = server.cpu()
        idle = load.idle(answer.seconds)
        idle_spent = (server.cpu() - before) / idle.seconds * answer.seconds
        listeners = server.listeners(OursOnRedis.announced("elsewhere"))
        if server.listeners(OursOnRedis.announced("news")) != WORKERS:
            raise BenchmarkFailed(f"not all {WORKERS} workers listen to the channel of their clients")

    def add(metric: measure.Metric, value: float) -> None:
        results.add(metric, clients, subject.name, value)

    add(measure.FOREIGN_LISTENERS, listeners)
    add(measure.FOREIGN_RATE, plan.foreign_events / answer.seconds)
    add(measure.FOREIGN_CPU, spent / answer.seconds * 100)
    add(measure.FOREIGN_IDLE, idle_spent / answer.seconds * 100)
    add(measure.FOREIGN_REDIS, redis_spent / plan.foreign_events * 1e6)


def users(subject: Subject, plan: Plan, results: Results) -> None:
    """A channel for each client, all in one worker, and events to one after the other at random."""
    with served(subject) as (server, load):
        assert isinstance(server, ServerWithRedis)
        _Users(subject, server, load, plan, results).run()


class _Users:
    def __init__(self, subject: Subject, server: ServerWithRedis, load: Load, plan: Plan, results: Results) -> None:
        self._subject = subject
        self._server = server
        self._load = load
        self._plan = plan
        self._results = results
        self._events = round(plan.users_rate * plan.users_window_seconds)

    def run(self) -> None:
        plan, server = self._plan, self._server
        self._load.connect(50, path="/events/warm-*")
        self._load.close()
        settle(server)
        self._add(measure.USERS_EMPTY, server.pss() / 1e6)
        with Publisher(server.settings) as publisher:
            self._connect()
            self._idle()
            memory, redis_memory = server.pss(), server.redis_bytes()
            for _ in range(plan.users_windows):
                self._window(publisher)
            events = plan.users_windows * self._events
            self._add(measure.USERS_KEPT, (server.pss() - memory) / events)
            self._add(measure.USERS_KEPT_REDIS, (server.redis_bytes() - redis_memory) / events)

    def _connect(self) -> None:
        server, clients = self._server, self._plan.users_clients
        memory, redis_memory, kernel_memory = server.pss(), server.redis_bytes(), kernel_bytes()
        before, redis_before = server.cpu(), server.broker_cpu()
        self._load.connect(clients, path="/events/user-*")
        settle(server, look=0.5, share=_RESTS)
        self._add(measure.USERS_CONNECT, (server.cpu() - before) / clients * 1e6)
        self._add(measure.USERS_CONNECT_REDIS, (server.broker_cpu() - redis_before) / clients * 1e6)
        self._add(measure.USERS_MEMORY, (server.pss() - memory) / clients)
        self._add(measure.USERS_MEMORY_REDIS, (server.redis_bytes() - redis_memory) / clients)
        self._add(
            measure.USERS_MEMORY_KERNEL, (kernel_bytes() - kernel_memory) / clients / 2
        )  # the other end is here, too

    def _idle(self) -> None:
        before, redis_before = self._server.cpu(), self._server.broker_cpu()
        seconds = self._load.idle(self._plan.users_idle_seconds).seconds
        self._add(measure.USERS_IDLE, (self._server.cpu() - before) / seconds * 100)
        self._add(measure.USERS_IDLE_REDIS, (self._server.broker_cpu() - redis_before) / seconds * 100)

    def _window(self, publisher: Publisher) -> None:
        server, load, plan, events = self._server, self._load, self._plan, self._events
        _collections(server)
        before, redis_before, busy_before = server.cpu(), server.broker_cpu(), busy_seconds()
        what = events, plan.users_rate, "user-*", plan.users_clients
        answer = load.scattered(events, lambda: publisher.begin(load.next_number, *what))
        published = publisher.end()
        spent, redis_spent = server.cpu() - before, server.broker_cpu() - redis_before
        others = busy_seconds() - busy_before - spent - redis_spent - answer.cpu_seconds - published.cpu_seconds
        pauses = _collections(server)
        self._add(measure.USERS_RATE, events / published.seconds)
        self._add(measure.USERS_P50, answer.p50_us / 1e3)
        self._add(measure.USERS_P99, answer.p99_us / 1e3)
        self._add(measure.USERS_MAX, answer.max_us / 1e3)
        self._add(measure.USERS_CPU, spent / events * 1e6)
        self._add(measure.USERS_REDIS, redis_spent / events * 1e6)
        self._add(measure.USERS_PUBLISHER, published.cpu_seconds / events * 1e6)
        self._add(measure.USERS_OTHERS, max(0.0, others) / answer.seconds * 100)
        self._add(measure.USERS_FULL, pauses["full"])
        self._add(measure.USERS_PAUSE, pauses["longest"] * 1e3)

    def _add(self, metric: measure.Metric, value: float) -> None:
        self._results.add(metric, self._plan.users_clients, self._subject.name, value)


def _collections(server: Server) -> dict[str, Any]:
    """What the garbage collector has done since this was last asked."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/collections")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
