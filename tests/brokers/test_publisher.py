"""Publishing without an app, from threads and forked children, too."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from flask import Flask

from flask_sse_emitters import SSE, Event, InvalidChannel, InvalidEvent, Publisher, SseEmitter
from flask_sse_emitters.testing import open_stream, published
from tests.support.client import new_name
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def redis(shared_server: RedisServer) -> RedisServer:
    shared_server.renew()
    return shared_server


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
def sse(app: Flask) -> Iterator[SSE]:
    sse = SSE(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    sse.authorizer(lambda _: True)
    yield sse
    sse.close()


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
    sse.close()


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


def test_publish_after_close_raises(redis: RedisServer) -> None:
    with Publisher(redis.url, publish_seconds=PATIENCE) as publisher:
        publisher.publish(new_name(), "x")
    publisher.close()
    with pytest.raises(RuntimeError, match="this Publisher is closed"):
        publisher.publish(new_name(), "x")
