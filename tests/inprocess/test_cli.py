"""``flask sse publish`` and ``listen``, in real processes, with signals, pipes and Redis."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable, Event, Publisher
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.testing import decode, published
from tests.support.cli import cli_runner
from tests.support.client import new_name
from tests.support.programs import program
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until

FLASK = [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse"]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def publisher(redis: RedisServer) -> Iterator[Publisher]:
    with Publisher(redis.url, publish_seconds=PATIENCE) as publisher:
        yield publisher


def environment(redis: RedisServer, **config: object) -> dict[str, str]:
    config = {"SSE_BROKER_URL": redis.url, "SSE_PUBLISH_SECONDS": PATIENCE, **config}
    return {**os.environ, "CONFIG": json.dumps(config), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": ""}


def run(*arguments: str, env: dict[str, str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ``flask sse`` to its end."""
    command = [*FLASK, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, input=data, capture_output=True, timeout=PATIENCE, check=False)


class Listening:
    """``flask sse listen``, from ``with`` to its end.

    :param to: a shell's command that reads its output.
    :param log: the level of the app's log, which goes to stderr.
    """

    def __init__(self, redis: RedisServer, *arguments: str, to: str = "", log: str = "", **config: object) -> None:
        command = shlex.join([*FLASK, "listen", *arguments])
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [program("bash", "bash"), "-c", f"set -o pipefail; {command} | {to}" if to else f"exec {command}"],
            cwd=ROOT,
            env={**environment(redis, **config), **({"LOG_LEVEL": log} if log else {})},
            stdout=self._out,
            stderr=self._errors,
            start_new_session=True,
        )

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._out.close()
        self._errors.close()

    @property
    def out(self) -> bytes:
        return _content(self._out)

    @property
    def errors(self) -> list[str]:
        return _content(self._errors).decode().splitlines()

    @property
    def events(self) -> list[Event]:
        return decode(self.out)

    def position(self) -> str:
        """Return the id that the output begins with, once it is there."""
        until(lambda: b"\n\n" in self.out or self._process.poll() is not None, "the position")
        assert self.out.startswith(b"id: "), self.errors
        return self.out[len(b"id: ") : self.out.index(b"\n")].decode()

    def await_texts(self, texts: Sequence[str]) -> None:
        until(lambda: [event.data for event in self.events] == list(texts), f"{texts!r}")

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self.exit_code()

    def exit_code(self) -> int:
        return self._process.wait(PATIENCE)


def _content(file: Any) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


# in this process


def invoked(*arguments: str, data: bytes | None = None, **config: object) -> Result:
    app = Flask(__name__)
    app.config.update({"SSE_BROKER_URL": "redis://127.0.0.1:1", "SSE_PUBLISH_SECONDS": PATIENCE, **config})
    SSE(app)
    return cli_runner(app).invoke(args=["sse", *arguments], input=data)


BOTH = pytest.mark.parametrize(
    "arguments", [("publish", "orders", "x"), ("listen", "orders")], ids=["publish", "listen"]
)


@BOTH
def test_cli_without_a_shared_broker_fails_and_names_the_setting(arguments: tuple[str, ...]) -> None:
    result = invoked(*arguments, SSE_BROKER_URL="memory://")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Error: SSE_BROKER_URL is memory://" in result.stderr
    assert "set SSE_BROKER_URL, in the app's config, to a broker that all processes share" in result.stderr


@BOTH
def test_cli_waits_for_a_silent_redis_no_longer_than_sse_publish_seconds(arguments: tuple[str, ...]) -> None:
    with RedisServer() as server:
        server.signal(signal.SIGSTOP)
        url = f"{server.url}?socket_timeout=60&socket_connect_timeout=60"
        began = time.monotonic()
        result = invoked(*arguments, SSE_BROKER_URL=url, SSE_PUBLISH_SECONDS=0.3)
        assert time.monotonic() - began < PATIENCE
    assert result.exit_code == 1
    assert "Error: Redis did not " in result.stderr


@BOTH
def test_cli_with_an_unreachable_broker_fails_with_one_error(arguments: tuple[str, ...]) -> None:
    """Without the package's own log lines, which Python prints where logging is not configured."""
    config = {"SSE_BROKER_URL": "redis://127.0.0.1:1"}
    found = run(*arguments, env={**os.environ, "CONFIG": json.dumps(config)})
    assert (found.returncode, found.stdout) == (1, b"")
    [line] = found.stderr.decode().splitlines()
    assert line.startswith("Error: Redis did not ")
    assert line.endswith("is redis://127.0.0.1:1 right (SSE_BROKER_URL), and does it run?")


class Elsewhere(MemoryBroker):
    """A broker of a third party, which counts no clients. It may never answer a subscription."""

    is_shared = True
    is_silent = False

    def subscribe(self, *_arguments: Any) -> Any:
        assert self.is_silent
        return None


def test_listen_with_a_broker_that_does_not_subscribe_is_an_error() -> None:
    app = Flask(__name__)
    app.config["SSE_PUBLISH_SECONDS"] = 0.1
    sse = SSE(app)
    broker = sse._channels().broker = Elsewhere()
    broker.is_silent = True
    result = cli_runner(app).invoke(args=["sse", "listen", "orders"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: the broker does not let us listen: no answer in SSE_PUBLISH_SECONDS" in result.stderr
    assert sse.stats()["channels"] == {}


def test_cli_publish_prints_no_count_where_the_broker_counts_no_clients() -> None:
    app = Flask(__name__)
    SSE(app)._channels().broker = Elsewhere()
    result = cli_runner(app).invoke(args=["sse", "publish", "orders", "x"])
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "two words", "x"),
        ("publish", "", "x"),
        ("listen", "orders", "ü"),
        ("listen", "x" * 201),
    ],
)
def test_cli_invalid_channel_name_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = invoked(*arguments)
    assert result.exit_code == 2
    assert "Error: Invalid value for 'CHANNEL" in result.stderr
    assert "a channel's name has 1 to 200 ASCII letters, digits and . _ - : / @, unlike " in result.stderr


def test_listen_to_more_than_fifty_channels_is_a_usage_error() -> None:
    result = invoked("listen", *(f"channel-{number}" for number in range(51)))
    assert result.exit_code == 2
    assert "51 channels: one stream carries 50 at most" in result.stderr


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "no JSON at line 1, column 2: Expecting property name"),
        ('{"a": 1,\n "b"}', "no JSON at line 2, column 5: Expecting ':' delimiter"),
        ("", "no JSON at line 1, column 1: Expecting value"),
        ("[NaN]", "NaN is no JSON"),
        ("-Infinity", "-Infinity is no JSON"),
        ("[" * 200_000, "no JSON that can be read: maximum recursion depth exceeded"),
    ],
)
def test_cli_publish_invalid_json_is_a_usage_error_with_its_position(text: str, where: str) -> None:
    result = invoked("publish", "orders", "--json", "--", text)
    assert result.exit_code == 2
    assert f"Error: Invalid value for 'DATA': {where}" in result.stderr or f": {where}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "data", "wrong"),
    [
        (["x", "--event", "two\nlines"], None, "event must not contain '\\n'"),
        (["x", "--event", "gap"], None, "the name 'gap'"),
        (["x", "--retry", "-1"], None, "Invalid value for '--retry'"),
        (["x", "--retry", "soon"], None, "Invalid value for '--retry'"),
        (["x" * 101], None, "SSE_MAX_EVENT_BYTES allows 100"),
        (["-"], b"\xff", "stdin is not UTF-8"),
        (["--json", '"\\ud800"'], None, "data holds a lone surrogate"),
        (["-5"], None, "No such option"),
        ([], None, "Missing argument 'DATA'"),
    ],
)
def test_cli_publish_invalid_event_is_a_usage_error(arguments: list[str], data: bytes | None, wrong: str) -> None:
    result = invoked("publish", "orders", *arguments, data=data, SSE_MAX_EVENT_BYTES=100)
    assert (result.exit_code, result.stdout) == (2, "")
    assert wrong in result.stderr


def test_cli_command_sse_of_the_app_is_kept() -> None:
    app = Flask(__name__)

    @app.cli.command("sse")
    def own() -> None:
        click.echo("the app's own")

    SSE(app)
    assert cli_runner(app).invoke(args=["sse"]).stdout == "the app's own\n"


def test_cli_serves_several_apps_of_one_extension() -> None:
    sse = SSE()
    for name in ("one", "other"):
        app = Flask(name)
        app.config["SSE_BROKER_URL"] = f"redis://127.0.0.1:1/{len(name)}"
        sse.init_app(app)
        found = cli_runner(app).invoke(args=["sse", "publish", "x", "y"])
        assert f"is redis://127.0.0.1:1/{len(name)} right" in found.stderr


# publish


def test_cli_publish_prints_the_id_and_the_number_of_readers(redis: RedisServer) -> None:
    channel = new_name()
    app = Flask(__name__)
    app.config.update(SSE_BROKER_URL=redis.url, SSE_PUBLISH_SECONDS=PATIENCE)
    with published(SSE(app), channel) as events:
        text = run("publish", channel, "ein Täg", "--event", "day", "--retry", "7", env=environment(redis))
        line = run("publish", channel, "-", data="über\nzwei Zeilen\r\n".encode(), env=environment(redis))
    for found in (text, line):
        assert (found.returncode, found.stderr) == (0, b"0 clients read it\n")
    ids = [found.stdout.decode().removesuffix("\n") for found in (text, line)]
    assert events == [Event("ein Täg", event="day", id=ids[0]), Event("über\nzwei Zeilen", id=ids[1])]


def test_cli_publish_data_can_be_json_or_stdin_or_begin_with_a_dash(redis: RedisServer) -> None:
    channel = new_name()
    app = Flask(__name__)
    app.config.update(SSE_BROKER_URL=redis.url, SSE_PUBLISH_SECONDS=PATIENCE)
    with published(SSE(app), channel) as events:
        for arguments, data in [
            (["--json", '{"b": [1, null, "ü"]}'], None),
            (["--json", "-", "--event", "made"], b'"a text"\n'),
            (["--", "-5"], None),
            (["-"], b""),
        ]:
            result = invoked("publish", channel, *arguments, data=data, SSE_BROKER_URL=redis.url)
            assert result.exit_code == 0, result.stderr
    assert [event.data for event in events] == ['{"b": [1, null, "\\u00fc"]}', "a text", "-5", ""]
    assert [event.event for event in events] == [None, "made", None, None]


def test_cli_publish_with_a_key_publishes_once(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    ids = [invoked("publish", channel, "x", "--key", "k", SSE_BROKER_URL=redis.url).stdout.strip() for _ in range(2)]
    ids.append(publisher.publish(channel, "x", key="k"))
    assert len(set(ids)) == 1
    assert ids[0].endswith("-1")


# listen


def test_listen_prints_events_as_on_the_wire_and_nothing_else(redis: RedisServer, publisher: Publisher) -> None:
    one, other = new_name(), new_name()
    with Listening(redis, one, other, one, SSE_HEARTBEAT=0.01, SSE_TIMEOUT=0.2) as listening:
        begin = listening.position()
        assert begin.count(",") == 1, "each channel once"
        first = publisher.publish(one, "a\nb", event="lines")
        until(lambda: len(listening.events) == 1, "the event")
        second = publisher.publish(other, Event({"x": 1}, comment="why", retry=5))
        until(lambda: len(listening.events) == 2, "the event")
        rest = begin.split(",")[1]
        assert listening.out.decode() == (
            f"id: {begin}\n\n"
            f"id: {first},{rest}\nevent: lines\ndata: a\ndata: b\n\n"
            f'id: {first},{second}\n: why\nretry: 5\ndata: {{"x": 1}}\n\n'
        )
        assert listening.errors == []


def test_listen_counts_as_a_client(redis: RedisServer) -> None:
    channel = new_name()
    with Listening(redis, channel) as listening:
        listening.position()

        def stderr() -> str:
            return invoked("publish", channel, "x", SSE_BROKER_URL=redis.url).stderr

        until(lambda: stderr() == "1 client reads it\n", "the count")


def test_listen_with_last_event_id_replays_and_goes_on_live(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    ids = [publisher.publish(channel, number) for number in range(300)]
    with Listening(redis, channel, "--last-event-id", ids[99]) as listening:
        listening.await_texts([str(number) for number in range(100, 300)])
        publisher.publish(channel, "new")
        listening.await_texts([*(str(number) for number in range(100, 300)), "new"])


def test_listen_with_an_unknown_last_event_id_prints_a_gap(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    last = publisher.publish(channel, "x")
    with Listening(redis, channel, "--last-event-id", "other-7") as listening:
        until(lambda: len(listening.events) == 2, "the gap, and the event")
        gap, event = listening.events
        assert (gap.event, json.loads(gap.data)) == ("gap", {"requested": "other-7", "oldest": last, "newest": last})
        assert (event.data, event.id) == ("x", last)


#: Clears the screen by C0 and by C1, returns to the line's begin, and shows the rest from right to left.
HOSTILE = "\x1b[2J \x9b2J \b\r \u202e \u2066 \u2028 \x7f\ttab, Täg"


def test_listen_at_a_terminal_escapes_control_characters(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    terminal, side = pty.openpty()
    env = {**environment(redis), "PYTHONUTF8": "1"}
    process = subprocess.Popen([*FLASK, "listen", channel], cwd=ROOT, env=env, stdout=side, stderr=side)
    try:
        os.close(side)
        found = os.read(terminal, 1000)
        event_id = publisher.publish(channel, HOSTILE.replace("\r", ""), event="\x1b]0;title\x07")
        while b"T\xc3\xa4g\r\n\r\n" not in found:
            found += os.read(terminal, 1000)
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(terminal)
    assert found.decode().partition("\r\n\r\n")[2] == (
        f"id: {event_id}\r\nevent: \\x1b]0;title\\x07\r\n"
        r"data: \x1b[2J \x9b2J \x08 \u202e \u2066 \u2028 \x7f" + "\ttab, Täg\r\n\r\n"
    )


def test_listen_into_a_file_writes_every_byte_unchanged(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    with Listening(redis, channel) as listening:
        listening.position()
        text = HOSTILE.replace("\r", "")
        publisher.publish(channel, text)
        listening.await_texts([text])


def test_cli_broker_error_escapes_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Flask(__name__)
    sse = SSE(app)
    broker = sse._channels().broker = Elsewhere()

    def fail(*_: object) -> None:
        raise BrokerUnavailable(f"Redis said {HOSTILE}")

    monkeypatch.setattr(broker, "publish", fail)
    result = cli_runner(app).invoke(args=["sse", "publish", "orders", "x"])
    assert result.stderr == r"Error: Redis said \x1b[2J \x9b2J \x08\r \u202e \u2066 \u2028 \x7f\ttab, Täg" + "\n"


def test_status_warning_escapes_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Flask(__name__)
    sse = SSE(app)
    broker = sse._channels().broker = Elsewhere()

    def fail() -> None:
        raise BrokerUnavailable("Redis said \x1b[2J")

    monkeypatch.setattr(broker, "check_writable", fail)
    result = cli_runner(app).invoke(args=["sse", "status"])
    assert result.stdout.endswith("warning: nothing can be published now: Redis said \\x1b[2J\n")


def test_listen_interrupt_exits_with_130_and_without_a_message(redis: RedisServer) -> None:
    with Listening(redis, new_name()) as listening:
        listening.position()
        assert listening.interrupt() == 130
        assert listening.errors == []


def test_listen_interrupt_exits_though_its_pipe_is_full(redis: RedisServer, publisher: Publisher) -> None:
    """Nothing reads its output: it waits to write."""
    channel = new_name()
    reader, writer = os.pipe()
    process = subprocess.Popen([*FLASK, "listen", channel], cwd=ROOT, env=environment(redis), stdout=writer)
    try:
        os.close(writer)
        assert os.read(reader, 1000).startswith(b"id: ")
        for _ in range(20):
            publisher.publish(channel, "x" * 10_000)
        until(lambda: unread(reader) > 60_000, "a full pipe")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(reader)


def unread(pipe: int) -> int:
    size = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


def test_listen_slow_reader_loses_no_event_despite_overflow_settings(redis: RedisServer, publisher: Publisher) -> None:
    """More is pending than ``SSE_MAX_PENDING`` time and again; the app would drop events of a client then."""
    channel = new_name()
    reader, writer = os.pipe()
    env = environment(redis, SSE_MAX_PENDING=10, SSE_OVERFLOW="drop_oldest")
    process = subprocess.Popen([*FLASK, "listen", channel], cwd=ROOT, env=env, stdout=writer)
    try:
        os.close(writer)
        with open(reader, "rb", buffering=0) as stream:
            assert stream.read(1000).startswith(b"id: ")
            texts = [f"{number} {'x' * 1000}" for number in range(500)]
            for text in texts:
                publisher.publish(channel, text)
            found = b""
            while found.count(b"\n\n") < len(texts):
                found += stream.read(4096)
        assert [event.data for event in decode(found)] == texts
    finally:
        process.kill()
        process.wait(PATIENCE)


def test_listen_exits_quietly_once_its_pipe_has_no_reader(redis: RedisServer) -> None:
    """At once, though it has nothing to write: its shell waits for it."""
    with Listening(redis, new_name(), to="head -n 1") as listening:
        assert listening.exit_code() == 0
        assert listening.out.startswith(b"id: ")
        assert listening.out.count(b"\n") == 1
        assert listening.errors == []


def test_listen_exits_quietly_if_its_reader_leaves_during_a_write(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    first = publisher.publish(channel, "first")
    for _ in range(20):
        publisher.publish(channel, "x" * 10_000)
    with Listening(redis, channel, "--last-event-id", first, to="head -c 100000") as listening:
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
