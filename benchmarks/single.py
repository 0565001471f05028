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
from collections.abc import Iterator

from . import measure
from .load import Load, Publisher
from .measure import Metric, Results
from .plan import Plan
from .processes import LOAD_CORE, ROOT, BenchmarkFailed, on_core
from .steps import served, settle
from .subjects import Server, Subject
from .subjects.gunicorn import ServerWithRedis

#: So many clients of a storm are on their way at once.
STORM_AT_ONCE = 500

POST_ROUNDS = 5


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

    def run(self) -> None:
        self._connect()
        if isinstance(self._server, ServerWithRedis):
            costs = self._costs(self._server)
            self._take_in(self._server, costs["send"])
            self._post(["nothing", "publish", "evalsha"])
        else:
            self._post(["nothing", "publish"])

    def _connect(self) -> None:
        server, load, clients = self._server, self._load, self._plan.single_clients
        load.connect(50, path="/events/warm-*")
        load.close()
        load.plain(min(500, clients))
        settle(server)
        before = server.cpu()
        load.plain(clients)
        settle(server)
        plain = (server.cpu() - before) / clients * 1e6
        before, broker_before = server.cpu(), _broker_cpu(server)
        load.connect(clients, path="/events/user-*")
        settle(server, look=0.5)
        new = (server.cpu() - before) / clients * 1e6
        self._add(measure.SINGLE_PLAIN, plain)
        self._add(measure.SINGLE_CONNECT, new)
        self._add(measure.SINGLE_CONNECT_RATIO, new / plain)
        if isinstance(server, ServerWithRedis):
            self._add(measure.SINGLE_CONNECT_BROKER, (_broker_cpu(server) - broker_before) / clients * 1e6)

    def _costs(self, server: ServerWithRedis) -> dict[str, float]:
        """See ``apps/costs.py``."""
        command = [sys.executable, "-m", "benchmarks.apps.costs", server.redis_url, str(self._plan.single_calls)]
        with on_core(LOAD_CORE):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            raise BenchmarkFailed(f"the costs of calls: {done.stderr}")
        costs: dict[str, float] = json.loads(done.stdout)
        self._add(measure.SINGLE_MEMORY, costs["memory"])
        self._add(measure.SINGLE_PUBLISH, costs["redis"])
        self._add(measure.SINGLE_EVALSHA, costs["evalsha"])
        self._add(measure.SINGLE_PUBLISH_RATIO, costs["redis"] / costs["evalsha"])
        self._add(measure.SINGLE_MANY_RATIO, costs["many"] / costs["redis"])
        self._add(measure.SINGLE_SEND, costs["send"])
        return costs

    def _take_in(self, server: ServerWithRedis, send: float) -> None:
        plan, load = self._plan, self._load
        settle(server)
        with Publisher(server.settings) as publisher:
            before, broker_before = server.cpu(), server.redis_cpu()
            publisher.begin(load.next_number, plan.single_events, plan.single_rate, "user-*", plan.single_clients)
            load.scattered(plan.single_events)
            publisher.end()
        spent = (server.cpu() - before) / plan.single_events * 1e6
        self._add(measure.SINGLE_EVENT, spent)
        self._add(measure.SINGLE_EVENT_BROKER, (server.redis_cpu() - broker_before) / plan.single_events * 1e6)
        self._add(measure.SINGLE_EVENT_RATIO, spent / send)

    def _post(self, paths: list[str]) -> None:
        """What a request costs that does nothing, that publishes to one reader, and that calls Redis once."""
        with _reader(self._server.port), contextlib.closing(_connection(self._server.port)) as connection:
            rounds = [{path: self._cpu_of_posts(connection, path) for path in paths} for _ in range(POST_ROUNDS)]
        medians = {path: statistics.median(each[path] for each in rounds) for path in paths}
        added = {path: medians[path] - medians["nothing"] for path in paths}
        self._add(measure.SINGLE_POST, medians["nothing"])
        self._add(measure.SINGLE_POST_PUBLISH, added["publish"])
        if "evalsha" in added:
            self._add(measure.SINGLE_POST_EVALSHA, added["evalsha"])
            self._add(measure.SINGLE_POST_RATIO, added["publish"] / added["evalsha"])

    def _cpu_of_posts(self, connection: http.client.HTTPConnection, path: str) -> float:
        calls = self._plan.single_calls // POST_ROUNDS
        settle(self._server)
        before = self._server.cpu()
        for _ in range(calls):
            connection.request("POST", f"/{path}", b"x" * 100)
            connection.getresponse().read()
        settle(self._server)
        return (self._server.cpu() - before) / calls * 1e6

    def _add(self, metric: Metric, value: float) -> None:
        self._results.add(metric, self._plan.single_clients, self._subject.name, value)


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


def _broker_cpu(server: Server) -> float:
    return server.redis_cpu() if isinstance(server, ServerWithRedis) else 0.0


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


@contextlib.contextmanager
def _reader(port: int) -> Iterator[None]:
    """The one client of the channel to which ``/publish`` publishes. What it gets stays in its socket."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        client.sendall(b"GET /events/news HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(65536)
        yield
