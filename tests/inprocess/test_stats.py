"""``stats()``, ``processes()`` and the signals."""

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
from tests.support.client import Client, connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until

KINDS = ["gevent", "gevent_off", "gthread"]


@contextmanager
def serving(kind: str, **config: Any) -> Iterator[Server]:
    with Server(kind, "tests.apps.channels:app", env={"CONFIG": json.dumps({"SSE_HEARTBEAT": 0, **config})}) as server:
        yield server
        server.kill()  # an orderly stop takes seconds


@pytest.mark.parametrize("kind", KINDS)
def test_stats_count_every_delivered_event_and_byte_once(kind: str) -> None:
    with serving(kind) as server, ExitStack() as stack:
        channel = [stack.enter_context(connected(server, "/events?channel=a")) for _ in range(3)]
        several = stack.enter_context(connected(server, "/events?channel=a&channel=b"))
        listed = [stack.enter_context(connected(server, "/connect")) for _ in range(2)]
        until(lambda: get(server, "/stats")["clients"] == 6, "all clients")
        for number in range(5):
            post(server, "/publish/a", f"a {number}")
        post(server, "/publish/b", "b")
        post(server, "/publish/unread", "unread")
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
def test_stats_count_replayed_events_and_gaps(kind: str) -> None:
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


def test_stats_do_not_count_a_gap_that_no_client_received() -> None:
    """The client asked for the head alone."""
    app, sse = make_app()
    app.test_client().head("/events?channel=a", headers={"Last-Event-ID": "never-7"})
    assert sse.stats()["gaps"] == 0
    with open_stream(app.test_client(), "/events?channel=a", headers={"Last-Event-ID": "never-7"}) as stream:
        assert [event.event for event in stream.ready()] == ["gap"]
    assert sse.stats()["gaps"] == 1


def test_stats_do_not_count_comments_as_events() -> None:
    app, sse = make_app()
    with open_stream(app.test_client(), "/list") as stream:
        [emitter] = emitters_of(app)
        for event in (Event(comment="hello"), Event("text"), Event(retry=5)):
            emitter.send(event)
        assert [event.data for event in stream.ready()] == ["text"]
    assert sse.stats()["deliveries"] == 1


def test_stats_count_list_events_that_an_emitter_takes_during_a_pass() -> None:
    app, sse = make_app()
    listed = SseEmitters()
    with open_stream(app.test_client(), "/list") as stream:
        stream.ready()
        [emitter] = emitters_of(app)
        listed.add(emitter)
        listed._delivery._is_passing = True  # as if another thread were delivering, and had not reached this client
        listed.send("first")
        listed.send("second")
        emitter.send("own")
        assert [event.data for event in stream.ready()] == ["first", "second", "own"]
    assert sse.stats()["deliveries"] == 3


def test_stats_of_a_list_with_clients_of_two_apps_count_for_each() -> None:
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


def test_stats_show_pending_and_dropped_events_with_their_stream() -> None:
    app, sse = make_app(SSE_OVERFLOW="drop_oldest", SSE_MAX_PENDING=5)
    sse.authorizer(lambda _: "ann")
    with open_stream(app.test_client(), "/events?channel=closed") as stream:
        stream.ready()
        for number in range(9):
            sse.publish("closed", number)
        stats = sse.stats()
        assert (stats["pending"], stats["dropped"]) == (5, 3), "the first one was on its way"
        [slow] = stats["slow"]
        assert slow["pending"] == stats["pending"]
        assert slow["dropped"] == stats["dropped"] > 0
        assert (slow["channels"], slow["identity"], slow["outlet"]) == (["closed"], "ann", "server")
        assert 0 <= slow["seconds"] < 600
    stats = sse.stats()
    assert (stats["pending"], stats["slow"]) == (0, [])
    assert stats["dropped"] == slow["dropped"], "also of streams that are over"


def test_stats_list_the_slowest_streams_worst_first() -> None:
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


def test_signals_are_sent_once_each_with_the_app_as_sender() -> None:
    app, sse = make_app()
    sent: list[tuple[str, dict[str, Any]]] = []
    with listening(app, sent):
        event_id = sse.publish("a", "x", event="created")
        assert [name for name, _ in sent] == ["event-published"]
        values = sent[0][1]
        assert (values["channel"], values["id"], values["event"]) == ("a", event_id, "created")
        assert (values["size"], values["seconds"] > 0) == (len(b"event: created\ndata: x\n\n"), True)
        with open_stream(app.test_client(), "/events?channel=a", headers={"Last-Event-ID": "old"}) as stream:
            stream.ready()
            until(lambda: len(sent) == 3, "the gap")
            assert [name for name, _ in sent[1:]] == ["emitter-opened", "gap-sent"]
            assert sent[1][1]["emitter"] is sent[2][1]["emitter"]
            assert sent[2][1]["requested"] == "old"
        until(lambda: len(sent) == 4, "the end")
        name, values = sent[3]
        assert (name, values["emitter"] is sent[1][1]["emitter"]) == ("emitter-closed", True)
        assert values["reason"] is CloseReason.DISCONNECTED
        assert isinstance(values["error"], ConnectionAbortedError)


def test_signal_gap_sent_names_the_emitter_of_a_refused_stream_too() -> None:
    app, _ = make_app(SSE_MAX_CLIENTS=1)
    sent: list[tuple[str, dict[str, Any]]] = []
    with open_stream(app.test_client(), "/events?channel=a"), listening(app, sent):
        with open_stream(app.test_client(), "/events?channel=a", headers={"Last-Event-ID": "old"}) as refused:
            assert [event.event for event in refused.ready()] == ["gap"]
        until(lambda: sent, "the signal")
    name, values = sent[0]
    assert (name, values["requested"], values["emitter"].close_reason) == ("gap-sent", "old", CloseReason.ERROR)
    assert not app.extensions["sse_emitters"].streams._refused


def test_signal_event_published_is_not_sent_for_a_repeated_key() -> None:
    app, sse = make_app()
    sent: list[tuple[str, dict[str, Any]]] = []
    with listening(app, sent):
        assert sse.publish("a", "x", key="k") == sse.publish("a", "x", key="k")
    assert [name for name, _ in sent] == ["event-published"]
    assert (sse.stats()["published"], sse.stats()["publish"]["count"]) == (1, 2)


def test_signal_emitter_closed_is_sent_in_the_background_and_may_block() -> None:
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


def test_signal_receiver_that_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    app, sse = make_app()
    sent: list[str] = []

    def fail(_: Flask, **values: Any) -> None:
        raise ValueError("broken")

    def note(_: Flask, id: str, **values: Any) -> None:
        sent.append(id)

    with signals.event_published.connected_to(fail, app), signals.event_published.connected_to(note, app):
        published = sse.publish("a", "x")
    assert sent == [published]
    assert "broken" in caplog.text
    assert "event-published" in caplog.text


def test_signal_that_is_muted_is_not_sent() -> None:
    app, sse = make_app()
    sent: list[tuple[str, dict[str, Any]]] = []
    with listening(app, sent), signals.event_published.muted():
        sse.publish("a", "x")
    assert sent == []


def test_signals_of_one_app_do_not_reach_receivers_of_another() -> None:
    (one, _), (_, others) = make_app(), make_app()
    sent: list[tuple[str, dict[str, Any]]] = []
    with listening(one, sent):
        others.publish("a", "x")
    assert sent == []


def test_signal_broker_changed_is_sent_for_an_outage_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    with RedisServer() as server:
        app, sse = make_app(SSE_BROKER_URL=server.url, SSE_PUBLISH_SECONDS=30)
        sent: list[tuple[str, dict[str, Any]]] = []
        with listening(app, sent), open_stream(app.test_client(), "/events?channel=a"):
            until(lambda: sse.processes()[0]["channels"] == {"a": 1}, "the client")
            sent.clear()
            server.kill()
            until(lambda: sent, "the end of Redis")
            name, values = sent[0]
            assert (name, values["state"]) == ("broker-changed", "degraded")
            assert values["error"] in sse.stats()["broker"]["error"]
            server.start()
            until(lambda: len(sent) == 2, "Redis")
            assert sent[1] == ("broker-changed", {"state": "ok", "error": None})
        app.extensions["sse_emitters"].channels.broker.close()


def test_signal_broker_changed_reports_the_last_state_last_to_a_slow_receiver() -> None:
    app, _ = make_app()
    broker = app.extensions["sse_emitters"].channels.broker
    health = Health("somewhere", lambda: broker.changed())
    broker.status = health.status
    sent: list[str] = []
    begun, blocked = threading.Event(), threading.Event()

    def note(_: Flask, state: str, **values: Any) -> None:
        begun.set()
        blocked.wait(60)
        sent.append(state)

    with signals.broker_changed.connected_to(note, app):
        health.failed("publishing", OSError("gone"))
        until(begun.is_set, "the first")
        health.worked("publishing")
        health.failed("publishing", OSError("gone again"))
        health.worked("publishing")
        blocked.set()
        until(lambda: sent[-1:] == ["ok"], "the last")
        health.failed("publishing", OSError("gone again"))
        until(lambda: sent == ["degraded", "ok", "degraded"], "the next")


@pytest.mark.parametrize("about", [b"[]", b"7", b"no json", b"\xff"])
def test_process_report_of_any_bytes_is_parsed(about: bytes) -> None:
    found = read_process(
        b"id", b"11000", [b"a", b"2", b"!about", about, b"b", b"many", b"!revoked", b"1", b"\xff", b"1"]
    )
    assert found == {"id": "id", "age": 1.0, "channels": {"a": 2, "\ufffd": 1}}


def test_stats_count_a_publish_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    with RedisServer() as server:
        url = server.url
    _, sse = make_app(SSE_BROKER_URL=url)
    with pytest.raises(BrokerUnavailable):
        sse.publish("a", "x")
    stats = sse.stats()
    assert (stats["published"], stats["publish"]["count"], stats["publish"]["failed"]) == (0, 0, 1)


def test_processes_with_the_memory_broker_show_this_process_alone() -> None:
    app, sse = make_app()
    assert sse.processes() == [], "it has no client yet"
    with open_stream(app.test_client(), "/events?channel=a"):
        [own] = sse.processes()
    assert (own["pid"], own["channels"], own["age"], own["opened"]) == (os.getpid(), {"a": 1}, 0.0, 1)


def test_processes_show_each_others_figures() -> None:
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
            until(lambda: all(each["deliveries"] == 1 for each in sse.processes()), "their reports")
            found = {each["pid"]: each for each in sse.processes()}
            assert {pids[pid]: each["channels"] for pid, each in found.items()} == {
                one: {"a": 1, "b": 1},
                other: {"a": 1},
            }
            for pid, each in found.items():
                own = get(pids[pid], "/stats")
                changing = {"broker", "pending", "since"}  # the app shows other values of these, or rounds them
                assert {name: each[name] for name in own.keys() & each.keys() - changing} == {
                    name: own[name] for name in own.keys() & each.keys() - changing
                }
                assert {"clients", "opened", "closed", "bytes", "draining", "warnings"} <= each.keys()
                assert each["broker"]["state"] == "ok"
                assert 0 <= each["age"] < 12
            assert len({each["id"] for each in found.values()}) == 2
            killed = next(iter(pids))
            pids[killed].kill()
            until(lambda: {each["pid"] for each in sse.processes()} == set(pids) - {killed}, "one to be forgotten")
            sse._channels().broker.close()


def test_processes_report_while_clients_connect_and_disconnect_all_the_time() -> None:
    with RedisServer() as redis:
        (app, serving), (_, other) = make_app(SSE_BROKER_URL=redis.url), make_app(SSE_BROKER_URL=redis.url)

        def has_reported() -> bool:
            with open_stream(app.test_client(), "/events?channel=a"):
                until(lambda: any(each["channels"] for each in other.processes()), "the client")
            until(lambda: not any(each["channels"] for each in other.processes()), "its end")
            return any(each.get("opened", 0) >= 3 for each in other.processes())

        until(has_reported, "a report of three streams")
        for sse in (serving, other):
            sse._channels().broker.close()


def test_processes_show_a_listener_that_serves_no_requests_without_figures() -> None:
    """``flask sse listen``, for example: its own clients count."""
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
def listening(app: Flask, sent: list[tuple[str, dict[str, Any]]]) -> Iterator[None]:
    """Record every signal of the app."""
    with ExitStack() as stack:
        for name in signals.__all__:
            signal = getattr(signals, name)

            def note(_: Flask, called: str = signal.name, **values: Any) -> None:
                sent.append((called, values))

            stack.enter_context(signal.connected_to(note, app))
        yield


def read_until(client: Client, end: bytes) -> int:
    """Return the number of bytes up to this end."""
    read = b""
    while not read.endswith(end):
        read += client.read_some()
    return len(read)


def replayed(server: Server) -> int:
    count: int = get(server, "/stats")["replayed"]
    return count
