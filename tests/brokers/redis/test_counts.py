"""What processes report of themselves through Redis: counts of clients, ``processes()`` and ``flask sse status``."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker
from tests.brokers.redis.commands import Listening, environment, invoked, run
from tests.brokers.states import await_state
from tests.support.board import Board, closing_board, config, read, texts
from tests.support.brokers.broker_calls import RecordingListener, listening
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import connected, get, post
from tests.support.servers import Server
from tests.support.waiting import until


def test_count_has_clients_of_all_processes(server: RedisServer, client: Any, board: Board) -> None:
    with closing_board(server.url) as other:
        channel, there = board.sse.channel("a"), other.sse.channel("a")
        assert (channel.subscribers(), there.subscribers()) == (0, 0)
        with board.open("a"), other.open("a"), other.open("a", "b"):
            until(lambda: (channel.subscribers(), there.subscribers()) == (3, 3), "three clients")
            until(lambda: board.sse.channel("b").subscribers() == 1, "one client")
            assert other.sse.stats()["channels"] == {"a": 2, "b": 1}
            client.flushall()
            until(lambda: channel.subscribers() == 3, "three clients, once more")
        until(lambda: (channel.subscribers(), there.subscribers()) == (0, 0), "no client")


def test_count_is_right_after_redis_flush_and_many_changes(new_broker: Callable[[], Broker], client: Any) -> None:
    """More changes than one command names."""
    broker, other = new_broker(), new_broker()
    channels = [f"c{number}" for number in range(600)]
    for channel in channels:
        broker.subscribe(channel, RecordingListener())
        broker.count_again(channel)
    until(lambda: other.clients_elsewhere(channels[-1]) == 1, "the clients to be counted")
    client.flushall()
    for channel in channels[:300]:
        broker.count_again(channel)

    def count() -> int:
        [process] = other.processes() or [{}]
        return len(process.get("channels", ()))

    until(lambda: count() == 600, "all to be counted again")
    for _ in range(2):  # closing it again changes nothing
        broker.close()
        assert other.clients_elsewhere(channels[-1]) == 0


def test_count_figures_of_process_are_gathered_off_subscriber_thread(new_broker: Callable[[], Broker]) -> None:
    """Gathering them goes through all clients, so it must not delay the events of others."""
    broker, other = new_broker(), new_broker()
    threads: list[str] = []

    def about() -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {"clients": 7}

    broker.about = about
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: [each.get("clients") for each in other.processes()] == [7], "the figures to arrive")
    assert set(threads) == {"sse-figures"}


def test_count_without_redis_raises(server: RedisServer, board: Board) -> None:
    server.kill()
    with pytest.raises(BrokerUnavailable, match="Redis did not count the clients"):
        board.sse.channel("a").subscribers()


def test_count_that_fails_delays_no_event(server: RedisServer, client: Any, board: Board) -> None:
    client.set("sse:{here}:processes", "something else")
    with board.open("a") as stream:
        assert "counting clients: WRONGTYPE" in await_state(board, "degraded")["error"]
        for number in range(3):
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
        client.delete("sse:{here}:processes")
        await_state(board, "ok")
        with closing_board(server.url) as other:
            until(lambda: other.sse.channel("a").subscribers() == 1, "the client to be counted")


def test_processes_show_each_others_figures_until_they_are_gone(server: RedisServer, client: Any, board: Board) -> None:
    """So does ``flask sse status``. A process that only listens has clients, and no figures."""
    with ExitStack() as stack:
        sse = board.sse
        listener = stack.enter_context(Listening(server, "a"))
        one, other = (
            stack.enter_context(Server(kind, "tests.apps.channels:app", env=config(server, SSE_HEARTBEAT=0)))
            for kind in ("gevent", "gthread")
        )
        [reader, *_] = [
            stack.enter_context(connected(http, f"/events?channel={channel}"))
            for http, channel in [(other, "a"), (one, "a"), (one, "b")]
        ]
        servers = {get(http, "/stats")["pid"]: http for http in (one, other)}
        until(lambda: {each.get("pid") for each in sse.processes()} == {*servers, None}, "all three")
        [listening] = [each for each in sse.processes() if "pid" not in each]
        assert listening["channels"] == {"a": 1}
        listener.kill()  # its report holds for some seconds, in which the others are looked at

        post(one, "/publish/a", "x")
        assert reader.texts(1) == ["x"]
        until(lambda: all(each.get("deliveries", 1) == 1 for each in sse.processes()), "their reports")
        found = {each["pid"]: each for each in sse.processes() if "pid" in each}
        channels = {servers[pid]: each["channels"] for pid, each in found.items()}
        assert channels == {one: {"a": 1, "b": 1}, other: {"a": 1}}
        reports: dict[int, dict[str, Any]] = {pid: {**each} for pid, each in found.items()}
        for pid, each in reports.items():
            own = get(servers[pid], "/stats")
            changing = {"broker", "pending", "since"}  # the app shows other values of these, or rounds them
            names = own.keys() & each.keys() - changing
            assert {name: each[name] for name in names} == {name: own[name] for name in names}
            assert {"clients", "opened", "closed", "bytes", "draining", "warnings"} <= each.keys()
            assert each["broker"]["state"] == "ok"
            assert 0 <= each["age"] < 12
        assert len({each["id"] for each in found.values()}) == 2

        for process, until_ms in client.zrange("sse:{here}:processes", 0, -1, withscores=True):
            assert until_ms - time.time() * 1000 <= 12_000
            assert 0 < client.pttl(b"sse:{here}:process:" + process) <= 12_000
        until(lambda: {each.get("pid") for each in sse.processes()} == set(servers), "the killed one to be forgotten")
        assert board.sse.channel("a").subscribers() == 2

        status = json.loads(invoked(server.url, "status", "--json").stdout)
        assert {process["pid"] for process in status["processes"]} == set(servers)
        assert status["channels"] == {"a": 2, "b": 1}
        assert [status[name] for name in ("clients", "deliveries", "pending", "dropped")] == [3, 2, 0, 0]
        shown = run("status", env=environment(server.url))
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert shown.stdout.startswith(b"2 processes, 3 clients, 2 channels\n\n")
        assert all(b" %d " % pid in shown.stdout for pid in servers)
        assert re.search(rb"\na +2\nb +1\n", shown.stdout)
        for http in (one, other):
            http.kill()  # an orderly stop takes seconds


def test_status_without_serving_process_reports_none(server: RedisServer) -> None:
    result = invoked(server.url, "status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "No process has had a stream of a channel in the last seconds.\n"


def test_status_warns_of_read_only_broker(server: RedisServer) -> None:
    """Its processes cannot report this through the broker."""
    server.run("CONFIG SET maxmemory 1")
    for arguments in ([], ["--json"]):
        output = invoked(server.url, "status", *arguments).stdout
        assert "nothing can be published now" in output
        assert "Redis is full: raise its maxmemory" in output
    server.run("CONFIG SET maxmemory 0")
    assert "warning" not in invoked(server.url, "status").stdout
