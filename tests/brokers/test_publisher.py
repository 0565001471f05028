"""Publishing without an app, and from other processes: threads, forked children, Celery workers."""

from __future__ import annotations

import enum
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable, Event, InvalidChannel, InvalidEvent, Publisher, SseEmitter
from flask_sse_emitters.brokers import GROUP
from flask_sse_emitters.testing import open_stream, published
from tests.support.client import connected, get, new_name
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def publisher(redis: RedisServer) -> Iterator[Publisher]:
    with Publisher(redis.url, publish_seconds=PATIENCE) as publisher:
        yield publisher


@pytest.fixture(scope="module")
def app(redis: RedisServer) -> Flask:
    app = Flask(__name__)
    app.config.update(SSE_BROKER_URL=redis.url, SSE_PUBLISH_SECONDS=PATIENCE)
    return app


@pytest.fixture(scope="module")
def sse(app: Flask) -> SSE:
    sse = SSE(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    sse.authorizer(lambda _: True)
    return sse


def kept(app: Flask, channel: str) -> list[str]:
    """Return the texts of the kept events, as a client that missed them all gets them."""
    with open_stream(app.test_client(), f"/events/{channel}", headers={"Last-Event-ID": "none-0"}) as stream:
        events: list[Event] = []

        def reads_all() -> bool:
            events.extend(stream.ready())
            return bool(events) and len(events) > events_after(events[0])

        until(reads_all, "all that is kept")
        assert events[0].event == "gap"
        return [event.data for event in events[1:]]


def events_after(gap: Event) -> int:
    """Return how many events follow this gap."""
    bounds = json.loads(gap.data)
    oldest, newest = (int(bounds[name].split("-")[1]) for name in ("oldest", "newest"))
    return newest - oldest + 1


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
    publisher: Publisher, sse: SSE, redis: RedisServer, data: Any, options: dict[str, Any]
) -> None:
    ours, theirs = new_name(), new_name()
    first = publisher.publish(ours, data, **options)
    sse.publish(theirs, data, **options)
    assert first.endswith("-1")
    assert body(redis, ours) == body(redis, theirs)


def body(redis: RedisServer, channel: str) -> bytes:
    """Return the newest event as stored in Redis, without its position and time."""
    fields = redis.run(f"XREVRANGE sse:{{{channel}}}:log + - COUNT 1").split(b"\r\n")
    name, payload = fields.index(b"n"), fields.index(b"b")
    return b"\n".join([*fields[payload:name], *fields[name : name + 3]])


def test_events_of_publisher_reach_subscribers_with_returned_ids(publisher: Publisher, sse: SSE) -> None:
    channel = new_name()
    with published(sse, channel) as events:
        ids = [publisher.publish(channel, number, event="tick") for number in range(3)]
    assert events == [Event(str(number), event="tick", id=event_id) for number, event_id in enumerate(ids)]


def test_invalid_event_raises_and_is_not_published(publisher: Publisher, sse: SSE) -> None:
    channel = new_name()
    with published(sse, channel) as events:
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


def test_key_publishes_one_event_from_any_publisher(publisher: Publisher, sse: SSE) -> None:
    channel = new_name()
    with published(sse, channel) as events:
        first = publisher.publish(channel, "first", key="k")
        assert publisher.publish(channel, "again", key="k") == first
        assert sse.publish(channel, "from the app", key="k") == first
        assert publisher.publish(channel, "another", key="l") != first
    assert [event.data for event in events] == ["first", "another"]


class Name(str, enum.Enum):  # noqa: UP042 - its format is not its text
    KEY = "k"
    PREFIX = "staging"


def test_str_enum_names_are_their_text(redis: RedisServer) -> None:
    channel = new_name()
    topics = enum.Enum("topics", {"NEWS": channel}, type=str)
    news, key = cast(Any, topics["NEWS"]), cast(Any, Name.KEY)
    app = Flask(__name__)
    app.config.update(SSE_BROKER_URL=redis.url, SSE_BROKER_PREFIX=Name.PREFIX)
    sse = SSE(app)
    with Publisher(redis.url, prefix="staging") as publisher, published(sse, channel) as events:
        first = publisher.publish(channel, "text", key="k")
        assert publisher.publish(news, "again", key=key) == first
        assert sse.publish(news, "again", key=key) == first
        assert sse.channel(news).name == channel
    assert [event.data for event in events] == ["text"]
    sse._channels().broker.close()


def test_publisher_keeps_history_bounds_of_the_app(publisher: Publisher, sse: SSE, app: Flask) -> None:
    short, none = new_name(), new_name()
    sse.channel(short, history=3)
    sse.channel(none, history=0)
    for channel in (short, none):
        sse.publish(channel, "app's")
        for number in range(5):
            publisher.publish(channel, number)
    assert kept(app, short) == ["2", "3", "4"]
    assert kept(app, none) == []


def test_publisher_before_the_app_keeps_default_history(publisher: Publisher, app: Flask, sse: SSE) -> None:
    channel = new_name()
    for number in range(5):
        publisher.publish(channel, number)
    assert kept(app, channel) == ["0", "1", "2", "3", "4"]


def test_prefix_separates_apps(redis: RedisServer, publisher: Publisher) -> None:
    channel = new_name()
    publisher.publish(channel, "x")
    with Publisher(redis.url, prefix="another", publish_seconds=PATIENCE) as another:
        assert another.publish(channel, "y").endswith("-1")
        assert another.publish(channel, "z").endswith("-2")
    assert publisher.publish(channel, "y").endswith("-2")


def test_concurrent_publishes_have_consecutive_ids_in_thread_order(redis: RedisServer, app: Flask, sse: SSE) -> None:
    channel, ids, errors = new_name(), [], []
    begin = threading.Barrier(12)

    with Publisher(redis.url, publish_seconds=PATIENCE) as publisher:

        def run(number: int) -> None:
            try:
                begin.wait(PATIENCE)
                ids.extend([publisher.publish(channel, f"{number} {count}") for count in range(20)])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert errors == []
    assert sorted(int(event_id.split("-")[1]) for event_id in ids) == list(range(1, 241))
    texts = kept(app, channel)
    for number in range(12):
        assert [text for text in texts if text.startswith(f"{number} ")] == [f"{number} {n}" for n in range(20)]


def test_publisher_starts_no_thread_even_without_redis(redis: RedisServer) -> None:
    output = run_script(
        """
        import logging, os, sys, threading
        from flask_sse_emitters import BrokerUnavailable, Publisher
        logging.disable()
        with Publisher(sys.argv[1], publish_seconds=30) as publisher:
            publisher.publish("x", "y", key="k")
            try:
                Publisher("redis://127.0.0.1:1").publish("x", "y")
            except BrokerUnavailable:
                print(threading.active_count(), len(os.listdir("/proc/self/task")))
        """,
        redis.url,
    )
    assert output == "1 1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_and_parent_both_publish(redis: RedisServer) -> None:
    """At the fork, the publisher has connections, and other threads publish."""
    output = run_script(
        """
        import os, sys, threading
        from flask_sse_emitters import Publisher
        publisher, going = Publisher(sys.argv[1], publish_seconds=30), True

        def publish():
            while going:
                publisher.publish("busy", "x")

        threads = [threading.Thread(target=publish) for _ in range(3)]
        for thread in threads:
            thread.start()
        ids = [publisher.publish("x", "parent")]
        for _ in range(5):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(writer, publisher.publish("x", "child").encode())
                os._exit(0)
            ids += [os.read(reader, 100).decode(), publisher.publish("x", "parent")]
            assert os.waitpid(child, 0)[1] == 0
        going = False
        for thread in threads:
            thread.join()
        print(*(event_id.split("-")[1] for event_id in ids))
        """,
        f"{redis.url}/2",
    )
    assert sorted(map(int, output.split())) == list(range(1, 12))


def run_script(text: str, *arguments: str) -> str:
    """Run a script and return its output. It must succeed and leave no resource open."""
    indent = len(text.lstrip("\n")) - len(text.lstrip())
    code = "\n".join(line[indent:] for line in text.splitlines())
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", code, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.strip()


# Closing.


def test_publish_after_close_raises(redis: RedisServer) -> None:
    with Publisher(redis.url, publish_seconds=PATIENCE) as publisher:
        publisher.publish(new_name(), "x")
    publisher.close()
    with pytest.raises(RuntimeError, match="this Publisher is closed"):
        publisher.publish(new_name(), "x")


# URLs and options.


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (None, "must be a URL such as redis://localhost:6379/0, not None"),
        (b"redis://localhost", "must be a URL"),
        ("", "must be a URL"),
        ("localhost:6379", "must be a URL such as redis://localhost:6379/0, not 'localhost:6379'"),
        ("redis:localhost", "must be a URL"),
        ("://localhost", "no broker is known for"),
        ("http://localhost", "no broker is known for 'http': known schemes are .*redis, "),
        ("redis://localhost:port", "'port': give a URL such as redis://localhost:6379/0"),
        ("redis://localhost:99999", "0-65535: give a URL such as"),
        ("redis://[::1", "Invalid IPv6 URL"),
        ("redis://localhost/orders", "the path is the number of a database, not 'orders'"),
        ("redis://localhost/-1", "the path is the number of a database, not '-1'"),
        ("redis://localhost?db=one", "'db'.*: give a URL such as"),
        ("redis://localhost?socket_timeout=soon", "'socket_timeout'.*: give a URL such as"),
        ("redis+sentinel://localhost", "lacks the name of the service: /mymaster"),
        ("redis+cluster://localhost/1", "a cluster has no databases"),
        ("redis+cluster://", "is not host:port"),
    ],
)
def test_invalid_url_raises_with_advice(url: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=f"^url.*{advice}"):
        Publisher(url)


def test_invalid_url_error_hides_password() -> None:
    with pytest.raises(ValueError, match="not 'localhost'") as caught:
        Publisher("user:secret@localhost")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["memory", "alone"])
def test_broker_that_is_not_shared_is_refused(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events would reach no subscriber."""
    metadata = tmp_path / "alone-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: alone\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nalone = {Alone.__module__}:Alone\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(
        ValueError, match=f"^url: what is published to {scheme}:// .*give the SSE_BROKER_URL of the app"
    ):
        Publisher(f"{scheme}://")


class Alone:
    """A broker of a third party."""

    is_shared = False

    def __init__(self, url: str) -> None:
        pass


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
def test_invalid_option_raises_and_names_it(option: str, value: Any, accepts: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be .*{accepts}"):
        Publisher("redis://localhost", **{option: value})


# No answer.

#: Other timeouts, of 60 s, that would end the attempts of these tests; and the seconds that they may take at most,
#: however busy the machine is.
OTHER_TIMEOUTS, MAX_SECONDS = "socket_timeout=60&socket_connect_timeout=60", 20.0


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as held:  # bound, and not listening
        held.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """The system accepts connections, and no process reads them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def full() -> Iterator[str]:
    """Attempts to connect are dropped, as by a firewall."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield f"redis://127.0.0.1:{port}"
        for each in waiting:
            each.close()


@pytest.mark.parametrize("server", [refusing, silent, full])
@pytest.mark.parametrize("seconds", [0.5, timedelta(milliseconds=500)])
def test_publish_without_answer_times_out(server: Any, seconds: Any) -> None:
    with server() as url, Publisher(f"{url}?{OTHER_TIMEOUTS}", publish_seconds=seconds) as publisher:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="nothing was published") as raised:
            publisher.publish("x", "y")
        assert raised.value.may_be_published is False
        assert time.monotonic() - began < MAX_SECONDS


def test_concurrent_publishes_without_answer_time_out() -> None:
    took, errors = [], []
    with silent() as url, Publisher(f"{url}?{OTHER_TIMEOUTS}", publish_seconds=0.5) as publisher:

        def run() -> None:
            began = time.monotonic()
            try:
                publisher.publish("x", "y")
            except BrokerUnavailable as error:
                errors.append(error)
            took.append(time.monotonic() - began)

        threads = [threading.Thread(target=run) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(errors) == 20
    assert max(took) < MAX_SECONDS


def test_publish_to_paused_redis_times_out_and_key_makes_retry_safe() -> None:
    with RedisServer() as server, Publisher(f"{server.url}?{OTHER_TIMEOUTS}", publish_seconds=0.5) as publisher:

        def attempt(key: str) -> str | None:
            try:
                return publisher.publish("x", "y", key=key)
            except BrokerUnavailable:
                return None

        first = until(lambda: attempt("first"), "a connection")
        server.signal(signal.SIGSTOP)
        for _ in range(3):
            began = time.monotonic()
            assert attempt("paused") is None
            assert time.monotonic() - began < MAX_SECONDS
        server.signal(signal.SIGCONT)
        ids = [until(partial(attempt, key), "Redis") for key in ("paused", "paused", "then")]
        epoch = str(first).split("-")[0]
        assert ids == [f"{epoch}-2", f"{epoch}-2", f"{epoch}-3"]


def test_publish_works_again_after_redis_restart() -> None:
    with RedisServer() as server, Publisher(server.url, publish_seconds=MAX_SECONDS) as publisher:
        before = publisher.publish("x", "before")
        server.kill()
        with pytest.raises(BrokerUnavailable):
            publisher.publish("x", "away")
        server.start()
        after = publisher.publish("x", "after")
        assert before.split("-")[0] != after.split("-")[0], "nothing was kept on disk"


# Celery


@contextmanager
def celery_worker(redis: RedisServer) -> Iterator[Celery]:
    """Run a real worker, which forks; its queue is another database of the same Redis."""
    env = {
        **os.environ,
        "CONFIG": json.dumps({"SSE_BROKER_URL": redis.url, "SSE_PUBLISH_SECONDS": PATIENCE}),
        "REDIS_URL": redis.url,
        "CELERY_URL": f"{redis.url}/1",
        "C_FORCE_ROOT": "yes",
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.celery_tasks", "worker", "--concurrency", "1"]
    with tempfile.TemporaryFile("a+") as log:
        worker = subprocess.Popen(
            [*command, "--pool", "prefork", "--without-gossip", "--without-mingle"],
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with Celery(broker=env["CELERY_URL"]) as celery:
                yield celery
        except BaseException:
            log.seek(0)
            print(log.read())  # noqa: T201 - pytest shows it where the test fails
            raise
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(PATIENCE)


def test_celery_task_reaches_clients_of_a_server(redis: RedisServer) -> None:
    channel = new_name()
    env = {"CONFIG": json.dumps({"SSE_BROKER_URL": redis.url})}
    with (
        celery_worker(redis) as celery,
        Server("gevent", "tests.apps.channels:app", env=env) as server,
        connected(server, f"/events/{channel}") as client,
    ):
        until(lambda: get(server, "/stats")["channels"].get(channel), "the client")
        client.read_some()  # its position: it gets every later event
        celery.send_task("publish_as_app", [channel, 7])
        celery.send_task("publish_without_app", [channel, 8])
        events = client.events(2)
    assert {event.event: json.loads(event.data)["id"] for event in events} == {"app": 7, "publisher": 8}
    assert all(json.loads(event.data)["pid"] != os.getpid() for event in events)
