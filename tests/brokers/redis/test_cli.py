"""``flask sse publish`` and ``flask sse listen`` with a real Redis: files, pipes, a terminal, signals, and outages."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import termios
import time
from array import array
from collections.abc import Iterator
from io import FileIO

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, Publisher
from flask_sse_emitters.testing import decode, published
from tests.brokers.redis.commands import Listening, environment, invoked, read_by_test, run
from tests.support.board import Board, texts
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def publisher(server: RedisServer) -> Iterator[Publisher]:
    with Publisher(server.url, publish_seconds=PATIENCE) as publisher:
        yield publisher


@pytest.mark.parametrize("arguments", [("publish", "orders", "x"), ("listen", "orders")], ids=["publish", "listen"])
def test_cli_waits_for_a_silent_redis_no_longer_than_sse_publish_seconds(
    server: RedisServer, arguments: tuple[str, ...]
) -> None:
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    result = invoked(f"{server.url}?socket_timeout=60&socket_connect_timeout=60", *arguments, SSE_PUBLISH_SECONDS=0.3)
    assert time.monotonic() - began < PATIENCE
    assert result.exit_code == 1
    assert "Error: Redis did not " in result.stderr


def test_cli_publish_prints_the_id_and_the_number_of_readers(server: RedisServer, board: Board) -> None:
    with published(board.sse, "a") as events:
        data = "ein Täg\nzwei Zeilen\r\n".encode()
        found = run("publish", "a", "-", "--event", "day", "--retry", "7", env=environment(server.url), data=data)
    assert (found.returncode, found.stderr) == (0, b"0 clients read it\n")
    event_id = found.stdout.decode().removesuffix("\n")
    assert events == [Event("ein Täg\nzwei Zeilen", event="day", id=event_id)]


def test_cli_publish_data_can_be_json_or_stdin_or_begin_with_a_dash(server: RedisServer, board: Board) -> None:
    with published(board.sse, "a") as events:
        for arguments, data in [
            (["--json", '{"b": [1, null, "ü"]}'], None),
            (["--json", "-", "--event", "made"], b'"a text"\n'),
            (["--", "-5"], None),
            (["-"], b""),
        ]:
            result = invoked(server.url, "publish", "a", *arguments, data=data)
            assert result.exit_code == 0, result.stderr
    assert [event.data for event in events] == ['{"b": [1, null, "\\u00fc"]}', "a text", "-5", ""]
    assert [event.event for event in events] == [None, "made", None, None]


def test_cli_publish_with_a_key_publishes_once(server: RedisServer, board: Board) -> None:
    ids = [invoked(server.url, "publish", "a", "x", "--key", "k").stdout.strip() for _ in range(2)]
    ids.append(board.sse.publish("a", "x", key="k"))
    assert len(set(ids)) == 1
    assert ids[0].endswith("-1")


#: Clears the screen by C0 and by C1, returns to the line's begin, and shows the rest from right to left.
HOSTILE = "\x1b[2J \x9b2J \b \u202e \u2066 \u2028 \x7f\ttab, Täg"


def test_listen_prints_events_as_on_the_wire_and_nothing_else(server: RedisServer, publisher: Publisher) -> None:
    """Also control characters are written as they are."""
    one, other = "one", "other"
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


def test_listen_counts_as_a_client_and_exits_with_130_at_an_interrupt(server: RedisServer, board: Board) -> None:
    with Listening(server, "a") as listening:
        listening.position()
        until(lambda: board.sse.channel("a").subscribers() == 1, "the client")
        assert invoked(server.url, "publish", "a", "x").stderr == "1 client reads it\n"
        assert listening.interrupt() == 130
        assert listening.errors == []
        assert board.sse.channel("a").subscribers() == 0, "it has taken back its report"


def test_listen_with_last_event_id_replays_and_goes_on_live(server: RedisServer, publisher: Publisher) -> None:
    ids = [publisher.publish("a", number) for number in range(300)]
    with Listening(server, "a", "--last-event-id", ids[99]) as listening:
        listening.await_texts([str(number) for number in range(100, 300)])
        publisher.publish("a", "new")
        listening.await_texts([*(str(number) for number in range(100, 300)), "new"])


def test_listen_with_an_unknown_last_event_id_prints_a_gap(server: RedisServer, publisher: Publisher) -> None:
    last = publisher.publish("a", "x")
    with Listening(server, "a", "--last-event-id", "other-7") as listening:
        until(lambda: len(listening.events) == 2, "the gap, and the event")
        gap, event = listening.events
        assert (gap.event, json.loads(gap.data)) == ("gap", {"requested": "other-7", "oldest": last, "newest": last})
        assert (event.data, event.id) == ("x", last)


@pytest.mark.parametrize("channels", [("a",), ("a", "b")], ids=["one", "several"])
def test_listen_ends_with_0_once_its_channels_have_ended(
    server: RedisServer, publisher: Publisher, channels: tuple[str, ...]
) -> None:
    """Also where nothing is left of them: see the second one."""
    says = ["a has ended" if len(channels) == 1 else "all of these channels have ended"]
    with Listening(server, *channels) as listening:
        listening.position()
        for channel in channels:
            last = publisher.publish(channel, "x", last=True)
        assert (listening.exit_code(), listening.errors) == (0, says)
        assert [event.data for event in listening.events] == ["x"] * len(channels)
        assert listening.out.endswith(b"data: x\n\n"), "the end is not printed"
        end = str(listening.events[-1].id)
    assert end.endswith(last)
    second = invoked(server.url, "listen", *channels, "--last-event-id", end)
    assert (second.exit_code, second.stdout, second.stderr.splitlines()) == (0, "", says)


def test_listen_at_a_terminal_escapes_control_characters(server: RedisServer, publisher: Publisher) -> None:
    with read_by_test(pty.openpty(), server, "a") as (_, terminal):
        found = terminal.read(1000)
        event_id = publisher.publish("a", HOSTILE, event="\x1b]0;title\x07")
        while b"T\xc3\xa4g\r\n\r\n" not in found:
            found += terminal.read(1000)
    assert found.decode().partition("\r\n\r\n")[2] == (
        f"id: {event_id}\r\nevent: \\x1b]0;title\\x07\r\n"
        r"data: \x1b[2J \x9b2J \x08 \u202e \u2066 \u2028 \x7f" + "\ttab, Täg\r\n\r\n"
    )


def unread(pipe: FileIO) -> int:
    size = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


@pytest.mark.parametrize("amid_a_call", [True, False], ids=["amid a call", "just before a call"])
@pytest.mark.parametrize("events", [0, 20], ids=["while it waits", "amid a write"])
def test_listen_interrupt_exits_whatever_it_waits_for(
    server: RedisServer, publisher: Publisher, events: int, amid_a_call: bool
) -> None:
    """Nothing reads its output: with some events its pipe is full."""
    with read_by_test(os.pipe(), server, "a") as (listening, pipe):
        for _ in range(events):
            publisher.publish("a", "x" * 10_000)
        until(lambda: unread(pipe) >= 2_500 * events, "a full pipe")
        assert listening.interrupt(amid_a_call=amid_a_call) == 130


def test_listen_slow_reader_loses_no_event_despite_overflow_settings(server: RedisServer, publisher: Publisher) -> None:
    """More is pending than ``SSE_MAX_PENDING`` time and again; the app would drop events of a client then."""
    with read_by_test(os.pipe(), server, "a", SSE_MAX_PENDING=10, SSE_OVERFLOW="drop_oldest") as (_, pipe):
        wanted = [f"{number} {'x' * 1000}" for number in range(500)]
        for text in wanted:
            publisher.publish("a", text)
        found = pipe.read(1000)
        while found.count(b"\n\n") < 1 + len(wanted):
            found += pipe.read(4096)
        assert texts(decode(found)) == wanted


@pytest.mark.parametrize("events", [0, 20], ids=["while it waits", "amid a write"])
def test_listen_exits_quietly_once_its_pipe_has_no_reader(
    server: RedisServer, publisher: Publisher, events: int
) -> None:
    """At once, though it may have nothing to write: its shell waits for it."""
    with read_by_test(os.pipe(), server, "a") as (listening, pipe):
        assert re.fullmatch(rb"id: [\w-]+\n\n", pipe.read(1000))
        for _ in range(events):
            publisher.publish("a", "x" * 10_000)
        until(lambda: unread(pipe) >= 2_500 * events, "a full pipe")
        pipe.close()
        assert listening.exit_code() == 0
        assert listening.errors == []


def test_listen_ends_when_all_its_channels_have_ended(server: RedisServer) -> None:
    with Publisher(server.url) as publisher, Listening(server, "a", "b") as listening:
        listening.position()
        publisher.publish("a", "of a", last=True)
        publisher.publish("b", "of b", last=True)
        assert listening.exit_code() == 0
        assert sorted(event.data for event in listening.events) == ["of a", "of b"]
        assert b"~end" not in listening.out
        last = str(listening.events[-1].id)
    with Listening(server, "a", "b", "--last-event-id", last) as again:
        assert again.exit_code() == 0
        assert again.out == b""


@pytest.mark.parametrize(
    ("options", "log"),
    [(("--appendonly", "yes", "--appendfsync", "always"), "INFO"), ((), "ERROR")],
    ids=["redis keeps its data", "redis loses its data"],
)
def test_listen_reconnects_after_a_redis_outage_and_reports_it_once(options: tuple[str, ...], log: str) -> None:
    """At any log level. Where Redis lost its data, a gap comes."""
    with RedisServer(*options) as server, Publisher(server.url, publish_seconds=PATIENCE) as publisher:
        with Listening(server, "a", log=log) as listening:
            position = listening.position()
            before = publisher.publish("a", "before")
            listening.await_texts(["before"])
            server.kill()
            until(lambda: listening.errors, "its report of the outage")
            with pytest.raises(BrokerUnavailable):
                publisher.publish("a", "away")
            server.start()
            publisher.publish("a", "after")
            until(lambda: listening.events[-1].data == "after", "the event after it")
            publisher.publish("a", "new")
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


def test_listen_interrupt_during_a_redis_outage_exits_with_130(server: RedisServer) -> None:
    with Listening(server, "a") as listening:
        listening.position()
        server.kill()
        until(lambda: listening.errors, "its report of the outage")
        assert listening.interrupt() == 130
        assert len(listening.errors) == 1
