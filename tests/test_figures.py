"""What an app knows of its own streams: the figures, exactly, and the signals."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask, current_app, has_app_context

from flask_sse_emitters import SSE, BrokerUnavailable, CloseReason, Event, SseEmitter, SseEmitters, signals
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.brokers.redis.messages import read_process
from flask_sse_emitters.testing import open_stream

from .client import Client, connected, get, post
from .redis_server import RedisServer
from .servers import Server
from .waiting import until

KINDS = ["gevent", "gevent_off", "gthread"]


@contextmanager
def serving(kind: str, **config: Any) -> Iterator[Server]:
    with Server(kind, "tests.channels_app:app", env={"CONFIG": json.dumps({"SSE_HEARTBEAT": 0, **config})}) as server:
        yield server
        server.kill()  # an orderly stop takes seconds


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_and_byte_that_a_client_gets_is_counted_once(kind: str) -> None:
    with serving(kind) as server, ExitStack() as stack:
        channel = [stack.enter_context(connected(server, "/events?channel=a")) for _ in range(3)]
        several = stack.enter_context(connected(server, "/events?channel=a&channel=b"))
        listed = [stack.enter_context(connected(server, "/connect")) for _ in range(2)]
        until(lambda: get(server, "/stats")["clients"] == 6, "all clients")
        for number in range(5):
            post(server, "/publish/a", f"a {number}")
        post(server, "/publish/b", "b")
        post(server, "/publish/nobody", "reads this")
        for number in range(4):
            post(server, "/send", f"é {number}")
        read = sum(read_until(client, b"a 4\n\n") for client in channel)
        read += read_until(several, b"data: b\n\n") + sum(read_until(client, "é 3\n\n".encode()) for client in listed)
        stats = get(server, "/stats")
        assert stats["deliveries"] == 3 * 5 + 6 + 2 * 4
        assert stats["bytes"] == read
        assert (stats["replayed"], stats["gaps"], stats["dropped"], stats["slow"]) == (0, 0, 0, [])
        assert stats["events"] == {"a": 5, "b": 1}
        assert (stats["publish"]["count"], stats["publish"]["failed"], stats["published"]) == (7, 0, 7)
        assert 0 < stats["publish"]["seconds"] < 60
        assert stats["pid"] != os.getpid()


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_again_and_what_does_not_is_counted(kind: str) -> None:
    with serving(kind, SSE_HISTORY=10) as server:
        with connected(server, "/events?channel=a"):
            ids = [post(server, "/publish/a", f"{number} " + "x" * 10_000)["id"] for number in range(1, 21)]
        assert get(server, "/stats")["replayed"] == 0
        before = get(server, "/stats")["deliveries"]
        with connected(server, "/events?channel=a", headers={"Last-Event-ID": ids[15]}) as client:
            assert len(client.texts(4)) == 4
        assert (replayed(server), get(server, "/stats")["gaps"]) == (4, 0)
        with connected(server, "/events?channel=a", headers={"Last-Event-ID": ids[2]}) as client:
            assert client.events(1)[0].event == "gap"
            assert len(client.texts(10)) == 10
        assert (replayed(server), get(server, "/stats")["gaps"]) == (14, 1)
        with connected(server, "/events?channel=b", headers={"Last-Event-ID": "never-7"}) as client:
            assert client.events(1)[0].event == "gap"
        stats = get(server, "/stats")
        assert (stats["replayed"], stats["gaps"]) == (14, 2)
        assert stats["deliveries"] == before + 14


def test_a_gap_that_no_client_was_told_of_is_none() -> None:
    """It left before the first byte, or asked for the head alone."""
    app, sse = make_app()
    app.test_client().head("/events?channel=a", headers={"Last-Event-ID": "never-7"})
    assert sse.stats()["gaps"] == 0
    with open_stream(app.test_client(), "/events?channel=a", headers={"Last-Event-ID": "never-7"}) as stream:
        assert [event.event for event in stream.ready()] == ["gap"]
    assert sse.stats()["gaps"] == 1


def test_comments_are_no_events() -> None:
    app, sse = make_app()
    with open_stream(app.test_client(), "/list") as stream:
        [emitter] = emitters_of(app)
        for event in (Event(comment="hello"), Event("text"), Event(retry=5)):
            emitter.send(event)
        assert [event.data for event in stream.ready()] == ["text"]
    assert sse.stats()["deliveries"] == 1


def test_what_an_emitter_takes_itself_of_a_list_that_is_being_walked_is_counted() -> None:
    app, sse = make_app()
    listed = SseEmitters()
    with open_stream(app.test_client(), "/list") as stream:
        stream.ready()
        [emitter] = emitters_of(app)
        listed.add(emitter)
        listed._delivery._is_passing = True  # as another thread does, which has not come to this client
        listed.send("first")
        listed.send("second")
        emitter.send("own")
        assert [event.data for event in stream.ready()] == ["first", "second", "own"]
    assert sse.stats()["deliveries"] == 3


def test_a_list_with_clients_of_two_apps_counts_for_each() -> None:
    listed = SseEmitters()
    (one, ones), (other, others) = make_app(), make_app()
    with ExitStack() as stack:
        for app, count in ((one, 2), (other, 3)):
            for _ in range(count):
                stack.enter_context(open_stream(app.test_client(), "/list")).ready()
            for emitter in emitters_of(app):
                listed.add(emitter)
        listed.send("x")
        until(lambda: ones.stats()["deliveries"] + others.stats()["deliveries"] == 5, "all of them")
        assert (ones.stats()["deliveries"], others.stats()["deliveries"]) == (2, 3)


def test_what_waits_and_what_was_dropped_shows_with_whose_stream_it_is() -> None:
    app, sse = make_app(SSE_OVERFLOW="drop_oldest", SSE_MAX_PENDING=5)
    sse.authorizer(lambda _: "ann")
    with open_stream(app.test_client(), "/events?channel=closed") as stream:
        stream.ready()
        for number in range(9):
            sse.publish("closed", number)
        stats = sse.stats()
        assert (stats["pending"], stats["dropped"]) == (5, 3), "the first was on its way"
        [slow] = stats["slow"]
        assert slow["pending"] == stats["pending"]
        assert slow["dropped"] == stats["dropped"] > 0
        assert (slow["channels"], slow["identity"], slow["outlet"]) == (["closed"], "ann", "server")
        assert 0 <= slow["seconds"] < 600
    stats = sse.stats()
    assert (stats["pending"], stats["slow"]) == (0, [])
    assert stats["dropped"] == slow["dropped"], "also of streams that are over"


def test_only_the_slowest_are_shown_and_the_worst_is_first() -> None:
    app, sse = make_app()
    made = [SseEmitter() for _ in range(25)]
    state = app.extensions["sse_emitters"]
    for number, emitter in enumerate(made):
        state.streams.admit(emitter)
        for _ in range(number):
            emitter.send("x")
    stats = sse.stats()
    assert [each["pending"] for each in stats["slow"]] == list(range(24, 4, -1))
    assert stats["pending"] == sum(range(25))


def test_each_signal_is_sent_once_with_the_app_as_its_sender() -> None:
    app, sse = make_app()
    told: list[tuple[str, dict[str, Any]]] = []
    with listening(app, told):
        event_id = sse.publish("a", "x", event="created")
        assert [name for name, _ in told] == ["event-published"]
        said = told[0][1]
        assert (said["channel"], said["id"], said["event"]) == ("a", event_id, "created")
        assert (said["size"], said["seconds"] > 0) == (len(b"event: created\ndata: x\n\n"), True)
        with open_stream(app.test_client(), "/events?channel=a", headers={"Last-Event-ID": "old"}) as stream:
            stream.ready()
            until(lambda: len(told) == 3, "the gap")
            assert [name for name, _ in told[1:]] == ["emitter-opened", "gap-sent"]
            assert told[1][1]["emitter"] is told[2][1]["emitter"]
            assert told[2][1]["requested"] == "old"
        until(lambda: len(told) == 4, "the end")
        name, said = told[3]
        assert (name, said["emitter"] is told[1][1]["emitter"]) == ("emitter-closed", True)
        assert said["reason"] is CloseReason.DISCONNECTED
        assert isinstance(said["error"], ConnectionAbortedError)


def test_an_event_that_was_published_before_under_its_key_is_no_news() -> None:
    app, sse = make_app()
    told: list[tuple[str, dict[str, Any]]] = []
    with listening(app, told):
        assert sse.publish("a", "x", key="k") == sse.publish("a", "x", key="k")
    assert [name for name, _ in told] == ["event-published"]
    assert (sse.stats()["published"], sse.stats()["publish"]["count"]) == (1, 2)


def test_ends_are_told_of_in_the_background_and_may_block() -> None:
    app, _ = make_app()
    blocked, seen = threading.Event(), threading.Event()

    def note(sender: Flask, **_: Any) -> None:
        assert has_app_context()
        assert current_app._get_current_object() is sender  # type: ignore[attr-defined]
        blocked.wait(60)
        seen.set()

    with signals.emitter_closed.connected_to(note, app):
        with open_stream(app.test_client(), "/list") as stream:
            emitters_of(app)[0].complete()
            stream.ready()
        assert not seen.is_set()
        blocked.set()
        until(seen.is_set, "the receiver")


def test_a_receiver_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app, sse = make_app()
    told: list[str] = []

    def fail(_: Flask, **said: Any) -> None:
        raise ValueError("broken")

    def note(_: Flask, id: str, **said: Any) -> None:
        told.append(id)

    with signals.event_published.connected_to(fail, app), signals.event_published.connected_to(note, app):
        published = sse.publish("a", "x")
    assert told == [published]
    assert "broken" in caplog.text
    assert "event-published" in caplog.text


def test_a_muted_signal_is_not_sent() -> None:
    app, sse = make_app()
    told: list[tuple[str, dict[str, Any]]] = []
    with listening(app, told), signals.event_published.muted():
        sse.publish("a", "x")
    assert told == []


def test_signals_of_one_app_are_not_heard_by_who_listens_to_another() -> None:
    (one, _), (_, others) = make_app(), make_app()
    told: list[tuple[str, dict[str, Any]]] = []
    with listening(one, told):
        others.publish("a", "x")
    assert told == []


def test_a_broker_that_goes_and_comes_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    with RedisServer() as server:
        app, sse = make_app(SSE_BROKER_URL=server.url, SSE_PUBLISH_SECONDS=30)
        told: list[tuple[str, dict[str, Any]]] = []
        with listening(app, told), open_stream(app.test_client(), "/events?channel=a"):
            until(lambda: sse.processes()[0]["channels"] == {"a": 1}, "the client")
            told.clear()
            server.kill()
            until(lambda: told, "the end of Redis")
            name, said = told[0]
            assert (name, said["state"]) == ("broker-changed", "degraded")
            assert said["error"] in sse.stats()["broker"]["error"]
            server.start()
            until(lambda: len(told) == 2, "Redis")
            assert told[1] == ("broker-changed", {"state": "ok", "error": None})
        app.extensions["sse_emitters"].channels.broker.close()


def test_however_long_a_receiver_takes_it_is_told_of_the_brokers_last_state_last() -> None:
    app, _ = make_app()
    broker = app.extensions["sse_emitters"].channels.broker
    health = Health("somewhere", lambda: broker.changed())
    broker.status = health.status
    told: list[str] = []
    begun, blocked = threading.Event(), threading.Event()

    def note(_: Flask, state: str, **said: Any) -> None:
        begun.set()
        blocked.wait(60)
        told.append(state)

    with signals.broker_changed.connected_to(note, app):
        health.failed("publishing", OSError("gone"))
        until(begun.is_set, "the first")
        health.worked("publishing")
        health.failed("publishing", OSError("gone again"))
        health.worked("publishing")
        blocked.set()
        until(lambda: told[-1:] == ["ok"], "the last")
        health.failed("publishing", OSError("gone again"))
        until(lambda: told == ["degraded", "ok", "degraded"], "the next")


@pytest.mark.parametrize("about", [b"[]", b"7", b"no json", b"\xff"])
def test_what_a_process_says_of_itself_may_be_anything(about: bytes) -> None:
    found = read_process(
        b"id", b"11000", [b"a", b"2", b"!about", about, b"b", b"many", b"!revoked", b"1", b"\xff", b"1"]
    )
    assert found == {"id": "id", "age": 1.0, "channels": {"a": 2, "\ufffd": 1}}


def test_a_publish_that_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    with RedisServer() as server:
        url = server.url
    _, sse = make_app(SSE_BROKER_URL=url)
    with pytest.raises(BrokerUnavailable):
        sse.publish("a", "x")
    stats = sse.stats()
    assert (stats["published"], stats["publish"]["count"], stats["publish"]["failed"]) == (0, 0, 1)


def test_one_process_alone_is_all_there_is() -> None:
    app, sse = make_app()
    assert sse.processes() == [], "it serves nobody yet"
    with open_stream(app.test_client(), "/events?channel=a"):
        [own] = sse.processes()
    assert (own["pid"], own["channels"], own["age"], own["opened"]) == (os.getpid(), {"a": 1}, 0.0, 1)


def test_all_processes_show_each_others_figures() -> None:
    with RedisServer() as redis:
        config = {"SSE_BROKER_URL": redis.url}
        with serving("gevent", **config) as one, serving("gthread", **config) as other, ExitStack() as stack:
            stack.enter_context(connected(one, "/events?channel=a"))
            stack.enter_context(connected(one, "/events?channel=b"))
            client = stack.enter_context(connected(other, "/events?channel=a"))
            pids = {get(server, "/stats")["pid"]: server for server in (one, other)}
            _, sse = make_app(**config)
            until(lambda: {each.get("pid") for each in sse.processes()} == set(pids), "both")
            post(one, "/publish/a", "x")
            assert client.texts(1) == ["x"]
            until(lambda: all(each["deliveries"] == 1 for each in sse.processes()), "their news")
            found = {each["pid"]: each for each in sse.processes()}
            assert {pids[pid]: each["channels"] for pid, each in found.items()} == {
                one: {"a": 1, "b": 1},
                other: {"a": 1},
            }
            for pid, each in found.items():
                own = get(pids[pid], "/stats")
                changing = {"broker", "pending", "since"}  # of these the app shows another, or they are rounded
                assert {name: each[name] for name in own.keys() & each.keys() - changing} == {
                    name: own[name] for name in own.keys() & each.keys() - changing
                }
                assert {"clients", "opened", "closed", "bytes", "draining", "warnings"} <= each.keys()
                assert each["broker"]["state"] == "ok"
                assert 0 <= each["age"] < 12
            assert len({each["id"] for each in found.values()}) == 2
            killed = next(iter(pids))
            pids[killed].kill()
            until(lambda: {each["pid"] for each in sse.processes()} == set(pids) - {killed}, "the end of one")
            sse._channels().broker.close()


def test_a_process_whose_clients_come_and_go_all_the_time_says_its_news() -> None:
    with RedisServer() as redis:
        (app, serving), (_, other) = make_app(SSE_BROKER_URL=redis.url), make_app(SSE_BROKER_URL=redis.url)

        def says_news() -> bool:
            with open_stream(app.test_client(), "/events?channel=a"):
                until(lambda: any(each["channels"] for each in other.processes()), "the client")
            until(lambda: not any(each["channels"] for each in other.processes()), "its end")
            return any(each.get("opened", 0) >= 3 for each in other.processes())

        until(says_news, "news of three streams")
        for sse in (serving, other):
            sse._channels().broker.close()


def test_who_only_listens_is_seen_without_figures() -> None:
    """``flask sse listen``, say: it serves nobody, and its clients count."""
    with RedisServer() as redis:
        (_, one), (_, other) = make_app(SSE_BROKER_URL=redis.url), make_app(SSE_BROKER_URL=redis.url)
        emitter = one.channel("a").subscribe()
        found = until(other.processes, "it") or []
        assert [(each["channels"], each.get("pid")) for each in found] == [({"a": 1}, None)]
        emitter.complete()
        for sse in (one, other):
            sse._channels().broker.close()


def make_app(**config: Any) -> tuple[Flask, SSE]:
    app = Flask(__name__)
    app.config.update(config)
    sse = SSE(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    for name in ("a", "b"):
        sse.channel(name, public=True)
    made: list[SseEmitter] = []
    app.extensions["made"] = made

    @app.get("/list")
    def stream() -> SseEmitter:
        made.append(SseEmitter())
        return made[-1]

    return app, sse


def emitters_of(app: Flask) -> list[SseEmitter]:
    made: list[SseEmitter] = app.extensions["made"]
    return made


@contextmanager
def listening(app: Flask, told: list[tuple[str, dict[str, Any]]]) -> Iterator[None]:
    """Note every signal of the app."""
    with ExitStack() as stack:
        for name in signals.__all__:
            signal = getattr(signals, name)

            def note(_: Flask, called: str = signal.name, **said: Any) -> None:
                told.append((called, said))

            stack.enter_context(signal.connected_to(note, app))
        yield


def read_until(client: Client, end: bytes) -> int:
    """How many bytes come up to this end."""
    read = b""
    while not read.endswith(end):
        read += client.read_some()
    return len(read)


def replayed(server: Server) -> int:
    count: int = get(server, "/stats")["replayed"]
    return count
