"""``flask sse listen`` in processes of its own: its output to files, pipes and a terminal, signals, and outages."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, Publisher
from flask_sse_emitters.testing import decode
from tests.brokers.commands import FLASK, Listening, app_at, environment, invoked
from tests.support.client import new_name
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def publisher(server: RedisServer) -> Iterator[Publisher]:
    with Publisher(server.url, publish_seconds=PATIENCE) as publisher:
        yield publisher


# listen


#: Clears the screen by C0 and by C1, returns to the line's begin, and shows the rest from right to left.
HOSTILE = "\x1b[2J \x9b2J \b \u202e \u2066 \u2028 \x7f\ttab, Täg"


def test_listen_prints_events_as_on_the_wire_and_nothing_else(server: RedisServer, publisher: Publisher) -> None:
    """Also control characters are written as they are."""
    one, other = new_name(), new_name()
    with Listening(server, one, other, one, SSE_HEARTBEAT=0.01, SSE_TIMEOUT=0.2) as listening:
        begin = listening.position()
        assert begin.count(",") == 1, "each channel once"
        first = publisher.publish(one, f"a\n{HOSTILE}", event="lines")
        until(lambda: len(listening.events) == 1, "the event")
        second = publisher.publish(other, Event({"x": 1}, comment="why", retry=5))
        until(lambda: len(listening.events) == 2, "the event")
        rest = begin.split(",")[1]
        assert listening.out.decode() == (
            f"id: {begin}\n\n"
            f"id: {first},{rest}\nevent: lines\ndata: a\ndata: {HOSTILE}\n\n"
            f'id: {first},{second}\n: why\nretry: 5\ndata: {{"x": 1}}\n\n'
        )
        assert listening.errors == []


def test_listen_counts_as_a_client_and_exits_with_130_at_an_interrupt(server: RedisServer) -> None:
    channel = new_name()
    with Listening(server, channel) as listening, app_at(server.url) as (_, sse):
        listening.position()
        until(lambda: sse.channel(channel).subscribers() == 1, "the client")
        assert invoked(server.url, "publish", channel, "x").stderr == "1 client reads it\n"
        assert listening.interrupt() == 130
        assert listening.errors == []
        assert sse.channel(channel).subscribers() == 0, "it has taken back its report"


def test_listen_with_last_event_id_replays_and_goes_on_live(server: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    ids = [publisher.publish(channel, number) for number in range(300)]
    with Listening(server, channel, "--last-event-id", ids[99]) as listening:
        listening.await_texts([str(number) for number in range(100, 300)])
        publisher.publish(channel, "new")
        listening.await_texts([*(str(number) for number in range(100, 300)), "new"])


def test_listen_with_an_unknown_last_event_id_prints_a_gap(server: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    last = publisher.publish(channel, "x")
    with Listening(server, channel, "--last-event-id", "other-7") as listening:
        until(lambda: len(listening.events) == 2, "the gap, and the event")
        gap, event = listening.events
        assert (gap.event, json.loads(gap.data)) == ("gap", {"requested": "other-7", "oldest": last, "newest": last})
        assert (event.data, event.id) == ("x", last)


@contextmanager
def listening_to_end(ends: tuple[int, int], *arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Have the output go to the second end of a pipe or terminal; the first has been read up to the position."""
    reader, writer = ends
    process = subprocess.Popen([*FLASK, "listen", *arguments], cwd=ROOT, env=env, stdout=writer, stderr=writer)
    try:
        os.close(writer)
        head = b""
        while not head.endswith((b"\n\n", b"\n\r\n")):
            head += os.read(reader, 1000)
        assert head.startswith(b"id: ")
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(reader)


def test_listen_at_a_terminal_escapes_control_characters(server: RedisServer, publisher: Publisher) -> None:
    channel, ends = new_name(), pty.openpty()
    with listening_to_end(ends, channel, env={**environment(server.url), "PYTHONUTF8": "1"}):
        event_id = publisher.publish(channel, HOSTILE, event="\x1b]0;title\x07")
        found = b""
        while not found.endswith(b"T\xc3\xa4g\r\n\r\n"):
            found += os.read(ends[0], 1000)
    assert found.decode() == (
        f"id: {event_id}\r\nevent: \\x1b]0;title\\x07\r\n"
        r"data: \x1b[2J \x9b2J \x08 \u202e \u2066 \u2028 \x7f" + "\ttab, Täg\r\n\r\n"
    )


def unread(pipe: int) -> int:
    size = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


def test_listen_interrupt_exits_though_its_pipe_is_full(server: RedisServer, publisher: Publisher) -> None:
    """Nothing reads its output: it waits to write."""
    channel, ends = new_name(), os.pipe()
    with listening_to_end(ends, channel, env=environment(server.url)) as process:
        for _ in range(20):
            publisher.publish(channel, "x" * 10_000)
        until(lambda: unread(ends[0]) > 60_000, "a full pipe")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_listen_slow_reader_loses_no_event_despite_overflow_settings(server: RedisServer, publisher: Publisher) -> None:
    """More is pending than ``SSE_MAX_PENDING`` time and again; the app would drop events of a client then."""
    channel, ends = new_name(), os.pipe()
    env = environment(server.url, SSE_MAX_PENDING=10, SSE_OVERFLOW="drop_oldest")
    texts = [f"{number} {'x' * 1000}" for number in range(500)]
    with listening_to_end(ends, channel, env=env):
        for text in texts:
            publisher.publish(channel, text)
        found = b""
        while found.count(b"\n\n") < len(texts):
            found += os.read(ends[0], 4096)
    assert [event.data for event in decode(found)] == texts


def test_listen_exits_quietly_once_its_pipe_has_no_reader(server: RedisServer) -> None:
    """At once, though it has nothing to write: its shell waits for it."""
    with Listening(server, new_name(), to="head -n 1") as listening:
        assert listening.exit_code() == 0
        assert listening.out.startswith(b"id: ")
        assert listening.out.count(b"\n") == 1
        assert listening.errors == []


def test_listen_exits_quietly_if_its_reader_leaves_during_a_write(server: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    first = publisher.publish(channel, "first")
    for _ in range(20):
        publisher.publish(channel, "x" * 10_000)
    with Listening(server, channel, "--last-event-id", first, to="head -c 100000") as listening:
        assert listening.exit_code() == 0
        assert len(listening.out) == 100_000
        assert listening.errors == []


@pytest.mark.parametrize(
    ("options", "log"),
    [(("--appendonly", "yes", "--appendfsync", "always"), "INFO"), ((), "ERROR")],
    ids=["redis keeps its data", "redis loses its data"],
)
def test_listen_reconnects_after_a_redis_outage_and_reports_it_once(options: tuple[str, ...], log: str) -> None:
    """At any log level. Where Redis lost its data, a gap comes."""
    channel = new_name()
    with RedisServer(*options) as server, Publisher(server.url, publish_seconds=PATIENCE) as publisher:
        with Listening(server, channel, log=log) as listening:
            position = listening.position()
            before = publisher.publish(channel, "before")
            listening.await_texts(["before"])
            server.kill()
            until(lambda: listening.errors, "its report of the outage")
            with pytest.raises(BrokerUnavailable):
                publisher.publish(channel, "away")
            server.start()
            publisher.publish(channel, "after")
            until(lambda: listening.events[-1].data == "after", "the event after it")
            publisher.publish(channel, "new")
            until(lambda: listening.events[-1].data == "new", "the next event")
            away, back = listening.errors
            assert away.startswith(f"degraded: {server.url}: listening failed: ")
            assert back.startswith(f"{server.url} is back, after ")
            texts = [event.data for event in listening.events if event.event is None]
            assert texts == ["before", "after", "new"]
            gaps = [json.loads(event.data)["requested"] for event in listening.events if event.event == "gap"]
            assert gaps == ([] if options else [before])
            assert b"retry" not in listening.out, "a field between a server and its clients"
            assert position != before
            assert listening.interrupt() == 130


def test_listen_interrupt_during_a_redis_outage_exits_with_130() -> None:
    with RedisServer() as server, Listening(server, new_name()) as listening:
        listening.position()
        server.kill()
        until(lambda: listening.errors, "its report of the outage")
        assert listening.interrupt() == 130
        assert len(listening.errors) == 1
