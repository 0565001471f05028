"""What one client and one event cost, where each client has its own channel; and many clients that come at once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from . import measure
from .load import Load, Publisher
from .measure import Metric, Results
from .plan import Plan
from .processes import LOAD_CORE, ROOT, BenchmarkFailed, on_core
from .steps import served, settle
from .subjects import Server, Subject
from .subjects.gunicorn import OursOnRedis, OursWithChannels

#: So many clients of a storm are on their way at once.
STORM_AT_ONCE = 500

POST_ROUNDS = 5

#: What is posted.
EVENT = b"x" * 100


def single(subject: Subject, plan: Plan, results: Results) -> None:
    """One client, one event: CPU time, beside that of what cannot be done without."""
    with served(subject, {"SSE_HEARTBEAT": "300"}) as (server, load):
        _Single(subject, server, load, plan, results).run()


class _Single:
    def __init__(self, subject: Subject, server: Server, load: Load, plan: Plan, results: Results) -> None:
        self._subject = subject
        self._server = server
        self._load = load
        self._plan = plan
        self._results = results
        self._clients = min(plan.single_clients, subject.most_clients)

    def run(self) -> None:
        self._connect()
        if isinstance(self._subject, OursWithChannels) and self._server.broker_url:
            costs = self._costs(self._server.broker_url)
            self._take_in(costs["send"])
        self._post(["nothing", "publish/news", *(["evalsha"] if isinstance(self._subject, OursOnRedis) else [])])

    def _connect(self) -> None:
        server, load, clients = self._server, self._load, self._clients
        server.connect_each(load, 50, "warm")
        load.close()
        load.plain(min(500, clients))
        settle(server)
        before = server.cpu()
        load.plain(clients)
        settle(server)
        plain = (server.cpu() - before) / clients * 1e6
        before, broker_before = server.cpu(), server.broker_cpu()
        server.connect_each(load, clients, "user")
        settle(server, look=0.5)
        new = (server.cpu() - before) / clients * 1e6
        self._add(measure.SINGLE_PLAIN, plain)
        self._add(measure.SINGLE_CONNECT, new)
        self._add(measure.SINGLE_CONNECT_RATIO, new / plain)
        if server.helpers:
            self._add(measure.SINGLE_CONNECT_BROKER, (server.broker_cpu() - broker_before) / clients * 1e6)

    def _costs(self, url: str) -> dict[str, float]:
        """See ``apps/costs.py``."""
        command = [sys.executable, "-m", "benchmarks.apps.costs", url, str(self._plan.single_calls)]
        with on_core(LOAD_CORE):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            raise BenchmarkFailed(f"the costs of calls: {done.stderr}")
        costs: dict[str, float] = json.loads(done.stdout)
        self._add(measure.SINGLE_MEMORY, costs["memory"])
        self._add(measure.SINGLE_PUBLISH, costs["publish"])
        if "evalsha" in costs:
            self._add(measure.SINGLE_EVALSHA, costs["evalsha"])
            self._add(measure.SINGLE_PUBLISH_RATIO, costs["publish"] / costs["evalsha"])
        self._add(measure.SINGLE_MANY_RATIO, costs["many"] / costs["publish"])
        self._add(measure.SINGLE_SEND, costs["send"])
        self._add(measure.SINGLE_RELAY, costs["relay"])
        return costs

    def _take_in(self, send: float) -> None:
        plan, load, server = self._plan, self._load, self._server
        settle(server)
        with Publisher(server.settings) as publisher:
            before, broker_before = server.cpu(), server.broker_cpu()
            events = plan.single_events, plan.single_rate, "user-*", self._clients
            load.scattered(plan.single_events, lambda: publisher.begin(load.next_number, *events))
            publisher.end()
        spent = (server.cpu() - before) / plan.single_events * 1e6
        self._add(measure.SINGLE_EVENT, spent)
        self._add(measure.SINGLE_EVENT_BROKER, (server.broker_cpu() - broker_before) / plan.single_events * 1e6)
        self._add(measure.SINGLE_EVENT_RATIO, spent / send)

    def _post(self, paths: list[str]) -> None:
        """What a request costs that does nothing, that publishes to one reader, and that calls Redis once."""
        with self._server.reader("news") as reader, contextlib.closing(_connection(self._server.port)) as connection:
            rounds = [{path: self._cost_of_posts(connection, path) for path in paths} for _ in range(POST_ROUNDS)]
            _check(reader, POST_ROUNDS * self._calls)
        cpu = {path: statistics.median(each[path][0] for each in rounds) for path in paths}
        published = cpu["publish/news"] - cpu["nothing"]
        self._add(measure.SINGLE_POST, cpu["nothing"])
        self._add(measure.SINGLE_POST_EVENT, cpu["publish/news"])
        self._add(measure.SINGLE_POST_PUBLISH, published)
        if self._server.helpers:
            self._add(measure.SINGLE_POST_BROKER, statistics.median(each["publish/news"][1] for each in rounds))
        if "evalsha" in cpu:
            called = cpu["evalsha"] - cpu["nothing"]
            self._add(measure.SINGLE_POST_EVALSHA, called)
            self._add(measure.SINGLE_POST_RATIO, published / called)

    @property
    def _calls(self) -> int:
        return self._plan.single_calls // POST_ROUNDS

    def _cost_of_posts(self, connection: http.client.HTTPConnection, path: str) -> tuple[float, float]:
        """Microseconds of CPU for each: of the server, and of what keeps the channels."""
        server = self._server
        settle(server)
        before, broker_before = server.cpu(), server.broker_cpu()
        for _ in range(self._calls):
            connection.request("POST", f"/{path}", EVENT)
            answer = connection.getresponse()
            answer.read()
            if answer.status // 100 != 2:
                raise BenchmarkFailed(f"/{path} was answered with {answer.status}")
        settle(server)
        spent, broker_spent = server.cpu() - before, server.broker_cpu() - broker_before
        return spent / self._calls * 1e6, broker_spent / self._calls * 1e6

    def _add(self, metric: Metric, value: float) -> None:
        self._results.add(metric, self._clients, self._subject.name, value)


def storm(subject: Subject, plan: Plan, results: Results) -> None:
    """Clients that come back at once to two workers, each to its own channel, and as many plain views."""
    clients = plan.storm_clients
    with served(subject, {"WORKERS": "2", "SSE_HEARTBEAT": "300"}) as (server, load):
        load.connect(50, path="/events/warm-*")
        load.close()
        load.plain(500, at_once=STORM_AT_ONCE)
        settle(server)
        before = server.cpu()
        plain_seconds = load.plain(clients, at_once=STORM_AT_ONCE).seconds
        settle(server)
        plain, before = server.cpu() - before, server.cpu()
        seconds = load.connect(clients, at_once=STORM_AT_ONCE, path="/events/user-*").seconds
        settle(server, look=0.5)
        spent = server.cpu() - before
    results.add(measure.STORM_RATIO, clients, subject.name, spent / plain)
    results.add(measure.STORM_SECONDS, clients, subject.name, seconds)
    results.add(measure.STORM_PLAIN_SECONDS, clients, subject.name, plain_seconds)


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def _check(reader: socket.socket, events: int) -> None:
    """The reader has each event."""
    got, deadline = b"", time.monotonic() + 30
    reader.settimeout(1)
    while got.count(EVENT) < events and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            got += reader.recv(1 << 20)
    if got.count(EVENT) != events:
        raise BenchmarkFailed(f"{got.count(EVENT)} of {events} events came to the reader")
