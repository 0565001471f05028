"""Metrics of two workers, as Prometheus scrapes them while workers stop and start."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.shared_broker import SharedBroker, shared_broker
from tests.support.client import Client, answer, connected, get, post
from tests.support.samples import Samples, closed, read
from tests.support.servers import Server
from tests.support.waiting import until
from tests.support.web.workers_server import WorkersServer


def counters(samples: Samples) -> Samples:
    return {name: value for name, value in samples.items() if re.search(r"_(total|count|sum|bucket)\b", name)}


class Scrapes:
    """Scrapes of a server: no counter ever goes down."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last: Samples = {}

    def __call__(self) -> Samples:
        samples = read(until(self._text, "an answer"))
        for name, value in counters(self._last).items():
            assert samples[name] >= value, name
        self._last = samples
        return samples

    def come_to(self, **wanted: float) -> Samples:
        """Return the first scrape with these figures, given by name without the common prefix and suffix."""

        def found() -> Samples | None:
            samples = self()
            return samples if wanted.items() <= in_short(samples).items() else None

        try:
            return until(found) or {}
        except AssertionError:
            assert wanted == {name: in_short(self._last).get(name) for name in wanted}
            raise

    def _text(self) -> str:
        """Return a scrape, empty if the worker ends or prometheus_client meets a file that was just made."""
        try:
            status, body = answer(self._server, "GET", "/metrics")
        except OSError:
            return ""
        assert status == 200 or "struct.error: unpack_from requires a buffer" in self._server.log, self._server.log
        return body.decode() if status == 200 else ""


def in_short(samples: Samples) -> dict[str, float]:
    found = {re.sub(r"^sse_|_total$", "", name): value for name, value in samples.items()}
    found["clients"] = sum(value for name, value in samples.items() if name.startswith("sse_clients{"))
    return {**found, **closed(samples)}


@contextmanager
def serving(
    kind: str,
    tmp_path: Path,
    *arguments: str,
    interval: float,
    hook: bool = True,
    broker: SharedBroker = "redis",
) -> Iterator[WorkersServer]:
    """Serve with two workers that share a broker and their metrics."""
    (tmp_path / "metrics").mkdir()
    settings = ["from tests.support.web.gunicorn_settings import *"]
    if hook:
        settings.append("from flask_sse_emitters.gunicorn import child_exit")
    (tmp_path / "settings.py").write_text("\n".join(settings))
    arguments = ("--graceful-timeout", "60", "--config", str(tmp_path / "settings.py"), *arguments)
    with shared_broker(broker) as (_, url):
        env = {
            "CONFIG": json.dumps({"SSE_BROKER_URL": url, "SSE_RETRY": 1000, "SSE_MOVE": "off"}),
            "INTERVAL": str(interval),
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        }
        with WorkersServer(kind, "tests.apps.servers.metrics:app", 2, env=env, arguments=arguments) as server:
            yield server


def connect(server: Server, stack: ExitStack, count: int) -> tuple[dict[int, list[Client]], int]:
    """Open ``count`` streams on each of two workers; return them by process, and how many were opened in all."""
    held: dict[int, list[Client]] = defaultdict(list)
    for opened in itertools.count(1):
        client = Client(server, "/events?channel=a")
        clients = held[int(client.response.headers["X-Worker"])]
        if len(clients) < count:
            clients.append(stack.enter_context(closing(client)))
        else:
            client.close()
        if [len(clients) for clients in held.values()] == [count, count]:
            return held, opened
    raise AssertionError


def await_clients(server: Server, held: dict[int, list[Client]]) -> None:
    """Wait until each process has noticed which of its other clients have left."""
    expected = {process: len(clients) for process, clients in held.items()}
    found: dict[int, int] = {}

    def is_so() -> bool:
        state = get(server, "/state")
        found[state["pid"]] = state["clients"]
        return found == expected

    until(is_so, "the others to be counted out")


def await_both(server: WorkersServer, gone: Collection[int]) -> None:
    """Wait until two other workers serve and these are gone: an earlier signal to the new ones may be lost."""
    pids: set[int] = set()

    def both() -> bool:
        with suppress(OSError):
            pids.add(get(server, "/state")["pid"])
        return len(pids - set(gone)) == 2 and not set(gone) & {worker.pid for worker in server.workers}

    until(both, "the next workers")


def files_of(tmp_path: Path, process: int) -> list[str]:
    """Return the kinds of metric files that a process shares."""
    return sorted(path.name.removesuffix(f"_{process}.db") for path in tmp_path.glob(f"metrics/*_{process}.db"))


@pytest.mark.parametrize(
    ("kind", "preload", "broker"),
    [("gevent", ["--preload"], "redis"), ("gthread", [], "redis"), ("gthread", [], "postgresql")],
    ids=["gevent", "gthread", "postgresql"],
)
def test_metrics_of_a_stopped_and_a_killed_worker_stay_in_the_sums(
    kind: str, preload: Sequence[str], broker: SharedBroker, tmp_path: Path
) -> None:
    with serving(kind, tmp_path, *preload, interval=0.1, broker=broker) as server, ExitStack() as stack:
        held, opened = connect(server, stack, 3)
        scrapes = Scrapes(server)
        scrapes.come_to(clients=6, streams_opened=opened, disconnected=opened - 6)
        for count in (4, 2):
            post(server, f"/publish/a?times={count}", "x")
        for client in itertools.chain(*held.values()):
            assert len(client.events(6)) == 6
        assert answer(server, "GET", "/events/secret")[0] == 403
        samples = scrapes.come_to(deliveries=36, events_published=6, publish_seconds_count=6, requests_denied=1)
        assert (samples['sse_clients{outlet="handed_off"}'], samples["sse_broker_up"]) == (6, 1)

        stopped, killed = held
        os.kill(stopped, signal.SIGTERM)
        for client in held[stopped]:
            assert b"retry: " in client.rest()
        scrapes.come_to(clients=3, shutdown=3, streams_opened=opened)
        os.kill(killed, signal.SIGKILL)
        scrapes.come_to(clients=0, shutdown=3, disconnected=opened - 6, streams_opened=opened, deliveries=36)
        await_both(server, held)
        with connected(server, "/events?channel=a"):
            scrapes.come_to(clients=1, streams_opened=opened + 1)
        master = server.workers[0].ppid()
        assert files_of(tmp_path, master) == [], "the gunicorn master has none"
        assert files_of(tmp_path, killed) == files_of(tmp_path, stopped) == ["counter", "histogram"]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_metrics_of_a_reload_have_all_gauges_and_the_final_counts(kind: str, tmp_path: Path) -> None:
    """Also without the hook, and long before the next update."""
    with serving(kind, tmp_path, interval=3600, hook=False) as server, ExitStack() as stack:
        held, opened = connect(server, stack, 2)
        await_clients(server, held)
        scrapes = Scrapes(server)
        post(server, "/publish/a?times=5", "x")
        for client in itertools.chain(*held.values()):
            assert len(client.events(5)) == 5
        server.signal(signal.SIGHUP)
        while {worker.pid for worker in server.workers} & set(held):
            samples = scrapes()
            time.sleep(0.02)  # leaves the processor to the workers
            assert {"sse_broker_up", 'sse_clients{outlet="server"}', "sse_draining"} <= set(samples)
        for client in itertools.chain(*held.values()):
            assert b"retry: " in client.rest()
        scrapes.come_to(clients=0, streams_opened=opened, disconnected=opened - 4, shutdown=4)
        scrapes.come_to(deliveries=20, publish_seconds_count=5, events_published=5)
        await_both(server, held)
        assert [files_of(tmp_path, process) for process in held] == [["counter", "histogram"]] * 2


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_metrics_of_a_reload_count_streams_that_move_out_and_in(kind: str, tmp_path: Path) -> None:
    env = {"INTERVAL": "0.1", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with RedisServer() as redis, ExitStack() as stack:
        env["CONFIG"] = json.dumps({"SSE_BROKER_URL": redis.url})
        arguments = ["--graceful-timeout", "60"]
        server = stack.enter_context(Server(kind, "tests.apps.servers.metrics:app", env=env, arguments=arguments))
        for _ in range(4):
            stack.enter_context(connected(server, "/events?channel=a"))
        [old] = psutil.Process(server.pid).children()
        server.signal(signal.SIGHUP)
        until(lambda: not old.is_running(), "the old worker to end")
        moved = {f'streams_moved_total{{direction="{way}"}}': 4 for way in ("in", "out")}
        Scrapes(server).come_to(clients=4, streams_opened=4, shutdown=0, **moved)
