"""Publishing without an app: events, keys, options, threads and forked children, and a Redis that gives no answer."""

from __future__ import annotations

import enum
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, InvalidChannel, InvalidEvent, Publisher, SseEmitter
from flask_sse_emitters.testing import published
from tests.support.board import Board, closing_board, texts
from tests.support.brokers.broker_calls import in_threads
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import new_name
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE


@pytest.fixture
def publisher(server: RedisServer) -> Iterator[Publisher]:
    with Publisher(server.url, publish_seconds=PATIENCE) as publisher:
        yield publisher


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("text", {}),
        ("a\r\nb\rc", {"event": "lines"}),
        ({"id": 7, "name": "ü"}, {"event": "created", "retry": 10}),
        ([None, 0.5, True], {}),
        (None, {}),
        (Event("whole", event="made", retry=5), {}),
        (SseEmitter.event().name("built").data("x").data({"y": 1}), {}),
    ],
)
def test_publisher_writes_the_same_event_as_the_app(
    publisher: Publisher, board: Board, server: RedisServer, data: Any, options: dict[str, Any]
) -> None:
    ours, theirs = new_name(), new_name()
    first = publisher.publish(ours, data, **options)
    board.sse.publish(theirs, data, **options)
    assert first.endswith("-1")
    assert body(server, ours) == body(server, theirs)


def body(server: RedisServer, channel: str) -> bytes:
    """Return the newest event as stored in Redis, without its position and time."""
    fields = server.run(f"XREVRANGE sse:{{{channel}}}:log + - COUNT 1").split(b"\r\n")
    name, payload = fields.index(b"n"), fields.index(b"b")
    return b"\n".join([*fields[payload:name], *fields[name : name + 3]])


def test_invalid_event_raises_and_is_not_published(publisher: Publisher, board: Board) -> None:
    channel = new_name()
    with published(board.sse, channel) as events:
        for name in ("", "two words", "ü", 7, None):
            with pytest.raises(InvalidChannel):
                publisher.publish(name, "x")  # type: ignore[arg-type]
        for data in (Event("x", id="mine"), {"when": object()}, "\ud800", "x" * 1_048_577):
            with pytest.raises(InvalidEvent):
                publisher.publish(channel, data)
        with pytest.raises(InvalidEvent, match="give no id, event or retry with it"):
            publisher.publish(channel, Event("x"), event="named")
        with pytest.raises(InvalidEvent):
            publisher.publish(channel, "x", retry=-1)
        with pytest.raises(InvalidEvent, match="the name 'gap'"):
            publisher.publish_to("ann", "x", event="gap")
        with pytest.raises(TypeError, match="key is a str, not 7"):
            publisher.publish(channel, "x", key=7)  # type: ignore[arg-type]
    assert events == []


def test_key_publishes_one_event_from_any_publisher(publisher: Publisher, board: Board) -> None:
    with published(board.sse, "a") as events:
        first = publisher.publish("a", "first", event="tick", key="k")
        assert publisher.publish("a", "again", key="k") == first
        assert board.sse.publish("a", "from the app", key="k") == first
        other = publisher.publish("a", "another", key="l")
    assert events == [Event("first", event="tick", id=first), Event("another", id=other)]


class Name(str, enum.Enum):  # noqa: UP042 - its format is not its text
    CHANNEL = "news"
    KEY = "k"
    PREFIX = "staging"


def test_str_enum_names_are_their_text(server: RedisServer) -> None:
    with (
        closing_board(server.url, SSE_BROKER_PREFIX=Name.PREFIX) as board,
        Publisher(server.url, prefix="staging") as publisher,
        published(board.sse, "news") as events,
    ):
        first = publisher.publish("news", "text", key="k")
        for publish in (publisher.publish, board.sse.publish):
            assert publish(Name.CHANNEL, "again", key=Name.KEY) == first
        assert board.sse.channel(Name.CHANNEL).name == "news"
    assert texts(events) == ["text"]


def test_publisher_keeps_history_bounds_of_the_app_or_the_default(
    publisher: Publisher, board: Board, client: Any
) -> None:
    board.sse.channel("short", history=3)
    board.sse.channel("none", history=0)
    for channel in ("short", "none"):
        board.publish(channel, "app's")
    for number in range(5):
        for channel in ("short", "none", "default"):
            publisher.publish(channel, number)
    assert [client.xlen(f"sse:{{{channel}}}:log") for channel in ("short", "none", "default")] == [3, 0, 5]
    assert client.hmget("sse:{default}:at", "events", "ms") == [b"1000", b"300000"]


STARTS_NOTHING = """
import logging, os, sys, threading
from flask_sse_emitters import BrokerUnavailable, Publisher
logging.disable()
with Publisher(sys.argv[1], publish_seconds=30) as publisher:
    publisher.publish("x", "y", key="k")
    try:
        Publisher("redis://127.0.0.1:1").publish("x", "y")
    except BrokerUnavailable:
        print(threading.active_count(), len(os.listdir("/proc/self/task")))
"""


def test_publisher_starts_no_thread_even_without_redis(server: RedisServer) -> None:
    """Nor does it leave a connection open."""
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", STARTS_NOTHING, server.url]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "1 1\n", "")


def test_forked_child_and_parent_both_publish(publisher: Publisher) -> None:
    """At the fork, the publisher has connections, and other threads publish."""
    is_over = threading.Event()

    def publish_on() -> None:
        while not is_over.is_set():
            publisher.publish("busy", "x")

    def publish_and_fork() -> None:
        ids = [publisher.publish("x", "parent")]
        for _ in range(5):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.write(writer, publisher.publish("x", "child").encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            os.close(writer)
            ids += [os.read(reader, 100).decode(), publisher.publish("x", "parent")]
            os.close(reader)
        is_over.set()
        assert [int(event_id.split("-")[1]) for event_id in ids] == list(range(1, 12))

    in_threads([publish_on, publish_on, publish_on, publish_and_fork])


def test_publish_after_close_raises(server: RedisServer) -> None:
    with Publisher(server.url, publish_seconds=PATIENCE) as publisher:
        publisher.publish(new_name(), "x")
    publisher.close()
    with pytest.raises(RuntimeError, match="this Publisher is closed"):
        publisher.publish(new_name(), "x")


@pytest.mark.parametrize(
    ("option", "value", "accepts"),
    [
        ("prefix", "", "1 to 100 ASCII letters"),
        ("prefix", "two words", "1 to 100 ASCII letters"),
        ("prefix", None, "1 to 100 ASCII letters"),
        ("publish_seconds", 0, "more than 0"),
        ("publish_seconds", -1.0, "more than 0"),
        ("publish_seconds", "2", "seconds as a number or a timedelta"),
        ("publish_seconds", float("inf"), "seconds as a number or a timedelta"),
    ],
)
def test_publisher_option_that_is_invalid_raises_and_is_named(option: str, value: Any, accepts: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be .*{accepts}"):
        Publisher("redis://localhost", **{option: value})


#: Other timeouts, of 60 s, that would end the attempts of these tests; and the seconds that they may take at most,
#: however busy the machine is.
OTHER_TIMEOUTS, MAX_SECONDS = "socket_timeout=60&socket_connect_timeout=60", 20.0


@contextmanager
def server_that(answers: str) -> Iterator[int]:
    """Yield a port where connections are refused, dropped as by a firewall, or accepted by the system and not read."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if answers != "refuses":
            bound.listen(0 if answers == "drops" else 100)
        port = bound.getsockname()[1]
        waiting = [socket.socket() for _ in range(4 if answers == "drops" else 0)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield port
        for each in waiting:
            each.close()


@pytest.mark.parametrize(
    ("answers", "url"),
    [
        ("refuses", "redis://127.0.0.1:{}"),
        ("drops", "redis://127.0.0.1:{}"),
        ("is silent", "redis://127.0.0.1:{}"),
        ("is silent", "rediss://127.0.0.1:{}"),
        ("is silent", "redis+sentinel://127.0.0.1:{}/mymaster"),
    ],
)
def test_publisher_without_answer_times_out(answers: str, url: str) -> None:
    """So do all of its threads: none waits for another's turn."""
    with (
        server_that(answers) as port,
        Publisher(f"{url.format(port)}?{OTHER_TIMEOUTS}", publish_seconds=timedelta(milliseconds=300)) as publisher,
    ):

        def attempt() -> None:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="nothing was published") as raised:
                publisher.publish("x", "y")
            assert raised.value.may_be_published is False
            assert time.monotonic() - began < MAX_SECONDS

        in_threads([attempt] * 20)


def test_publisher_timeout_covers_all_round_trips() -> None:
    """The server takes more than half of the timeout for each answer, and a new connection needs several."""
    ends = threading.Event()
    answered: list[int] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(65_536) and not ends.wait(0.3):
                answered.append(1)
                connection.sendall(b"+OK\r\n")

    def attempt() -> None:
        with pytest.raises(BrokerUnavailable):
            publisher.publish("a", "x")
        assert len(answered) < 3
        ends.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with Publisher(url, publish_seconds=0.5) as publisher:
            in_threads([serve, attempt])


def test_publisher_works_again_after_redis_restart(server: RedisServer, publisher: Publisher) -> None:
    before = publisher.publish("x", "before")
    server.kill()
    with pytest.raises(BrokerUnavailable):
        publisher.publish("x", "away")
    server.start()
    after = publisher.publish("x", "after")
    assert before.split("-")[0] != after.split("-")[0], "nothing was kept on disk"
