"""Revocation ends a reader's streams in every process, and no later event reaches them, even during an outage."""

from __future__ import annotations

import enum
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

import pytest
from flask import Response, abort, current_app, g, request, session
from werkzeug.local import LocalProxy

from flask_sse_emitters import BrokerUnavailable, CloseReason, SseEmitter, SseEmitters
from flask_sse_emitters.access import Grant, revocation
from flask_sse_emitters.access.request_copy import MAX_COPY_BYTES
from flask_sse_emitters.brokers.event_log import Bounds
from flask_sse_emitters.brokers.redis.client import Client
from flask_sse_emitters.brokers.redis.scripts import LOOK_UP
from flask_sse_emitters.runtime.scheduler import MAX_HELPERS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry.draining import drain
from flask_sse_emitters.testing import OpenStream, decode, open_stream
from flask_sse_emitters.wire.frame import BATCH_BYTES
from tests.support.broker_calls import frame
from tests.support.redis_clients import client_of
from tests.support.redis_server import RedisServer
from tests.support.site import Site, by_header, emitter_of, levels
from tests.support.waiting import PATIENCE, until
from tests.support.wire import Wire


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@contextmanager
def site_at(url: str, rule: Any = by_header, **config: Any) -> Iterator[Site]:
    site = Site(rule, SSE_BROKER_URL=url, **config)
    yield site
    site.sse._channels().broker.close()


@pytest.fixture(params=["memory", "Redis"])
def sites(request: pytest.FixtureRequest) -> Iterator[tuple[Site, Site]]:
    """The site that revokes, and the site with the streams: one process, or two."""
    if request.param == "memory":
        site = Site(by_header)
        yield site, site
        return
    server: RedisServer = request.getfixturevalue("server")
    with site_at(server.url) as one, site_at(server.url) as other:
        yield one, other


class Watched:
    """A stream that is read up to its end, and no further."""

    def __init__(self, stream: OpenStream) -> None:
        self.stream = stream
        self.emitter = emitter_of(stream)
        self.texts: list[str] = []

    def read(self) -> list[str]:
        self.texts += [event.data for event in self.stream.ready()]
        return self.texts

    def await_end(self) -> list[str]:
        until(lambda: not self.emitter.is_open, "its end")
        assert self.emitter.close_reason is CloseReason.COMPLETED
        return self.read()

    def await_text(self, text: str) -> None:
        until(lambda: text in self.read(), text)


@contextmanager
def watching(site: Site, *channels: str, user: str = "") -> Iterator[Watched]:
    with site.open(*channels, user=user) as stream:
        yield Watched(stream)


def settle(publisher: Site, *streams: Watched, channel: str = "a") -> None:
    """Wait until what is published reaches all of them."""
    publisher.sse.publish(channel, "begin")
    for watched in streams:
        watched.await_text("begin")


class Role(str, enum.Enum):  # noqa: UP042 - its format is not its text
    ADMIN = "admin"


class Shouting(str):
    """A str whose ``str()`` differs from its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


#: Each of them equals "admin".
ADMINS = [Role.ADMIN, Shouting("admin"), LocalProxy(lambda: "admin"), LocalProxy(lambda: Role.ADMIN)]


# Which streams end.


@pytest.mark.parametrize("admin", ADMINS, ids=lambda each: type(each).__name__)
def test_disconnect_with_equal_identity_ends_streams(admin: Any, sites: tuple[Site, Site]) -> None:
    here, there = sites
    with watching(there, "a", user="admin") as one, watching(there, "b", user="admin") as other:
        settle(here, one)
        settle(here, other, channel="b")
        here.sse.disconnect(admin, channel=LocalProxy(lambda: "a"))  # type: ignore[arg-type]
        one.await_end()
        here.sse.publish("b", "between")
        other.await_text("between")
        here.sse.disconnect(admin)
        other.await_end()


@pytest.mark.parametrize("admin", ADMINS, ids=lambda each: type(each).__name__)
def test_identity_of_any_str_type_is_compared_as_text(admin: Any) -> None:
    allowed = [True]
    site = Site(lambda _: admin if allowed else False)
    with site.open("~") as stream:
        emitter = emitter_of(stream)
        reader = stream_of(emitter).reader
        assert reader is not None
        assert type(reader.identities[0]) is str
        site.sse.publish_to("admin", "by text")
        site.sse.publish_to(admin, "by itself")
        assert [event.data for event in stream.ready()] == ["by text", "by itself"]
        assert site.sse.private(admin).subscribers() == 1
        allowed.clear()
        site.sse.recheck(admin)
        until(lambda: not emitter.is_open, "its end")
    with site.app.test_request_context():
        mine = site.sse.channel("a").subscribe(identity=admin)
        site.sse.disconnect("admin")
        assert not mine.is_open


def test_view_stream_of_private_channel_has_identity_of_reader() -> None:
    site = Site(by_header)
    with site.app.test_request_context():
        own = site.sse.private("ann").subscribe()
        watched = site.sse.private("ann").subscribe(identity="auditor")
        site.sse.disconnect("ann")
        assert (own.is_open, watched.is_open) == (False, True)
        site.sse.disconnect("auditor")
        assert not watched.is_open


@pytest.mark.parametrize(
    "revocation_text",
    [[["ann"], None, False], [None, {"a": 1}, False], [None, None, True], [7, None, False], ["ann", None], 7, "x"],
)
def test_malformed_revocation_is_ignored_and_next_one_applies(
    revocation_text: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with site_at(server.url) as site:
        site.sse.channel("open", public=True)
        broker = site.sse._channels().broker
        with watching(site, "a", user="ann") as ann, watching(site, "open") as anybody:
            settle(site, ann)
            settle(site, anybody, channel="open")
            for one in (
                ["other", *revocation_text] if isinstance(revocation_text, list) else revocation_text,
                ["other", "ann", None, False],
            ):
                broker.publish(revocation.CHANNEL, frame(json.dumps(one)), Bounds(10, 60))
            ann.await_end()
            assert anybody.emitter.is_open
    assert [record.levelname for record in caplog.records if "did not publish" in record.message] == ["WARNING"]
    assert "ERROR" not in levels(caplog)


@pytest.mark.parametrize("number", [7, True, 0.5, UUID(int=7), b"7", LocalProxy(lambda: None)], ids=repr)
def test_identity_that_is_no_str_raises(number: Any) -> None:
    site = Site(by_header)
    for call in (site.sse.disconnect, site.sse.recheck, site.sse.private, Grant):
        with pytest.raises(TypeError, match="an identity is a str"):
            call(number)


def test_disconnect_by_identity_ends_only_its_streams(sites: tuple[Site, Site]) -> None:
    here, there = sites
    with (
        watching(there, "a", user="ann") as one,
        watching(there, "b", "a", user="ann") as two,
        watching(there, "a", user="bob") as bob,
    ):
        settle(here, one, two, bob)
        here.sse.disconnect("ann")
        here.sse.publish("a", "late")
        assert (one.await_end(), two.await_end()) == (["begin"], ["begin"])
        bob.await_text("late")
        assert bob.emitter.is_open
    assert there.counts() == (0, 0, 0)


def test_disconnect_by_channel_ends_only_its_streams(sites: tuple[Site, Site]) -> None:
    here, there = sites
    there.sse.channel("a", public=True)
    with (
        watching(there, "a") as one,
        watching(there, "b", "a", user="bob") as two,
        watching(there, "b", user="ann") as other,
    ):
        settle(here, one, two)
        here.sse.disconnect(channel="a")
        for channel in "ab":
            here.sse.publish(channel, "late")
        assert (one.await_end(), two.await_end()) == (["begin"], ["begin"])
        other.await_text("late")


def test_disconnect_by_identity_and_channel_ends_only_their_streams(sites: tuple[Site, Site]) -> None:
    here, there = sites
    with (
        watching(there, "a", "b", user="ann") as one,
        watching(there, "b", user="ann") as other,
        watching(there, "a", user="bob") as bob,
    ):
        settle(here, one, bob)
        here.sse.disconnect("ann", channel="a")
        for channel in "ab":
            here.sse.publish(channel, "late")
        assert one.await_end() == ["begin"]
        other.await_text("late")
        bob.await_text("late")


def test_event_published_right_after_revocation_is_not_delivered(sites: tuple[Site, Site]) -> None:
    here, there = sites
    for number in range(30):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            here.sse.disconnect("ann")
            for _ in range(3):
                here.sse.publish("a", f"late {number}")
            assert f"late {number}" not in ann.await_end()
            bob.await_text(f"late {number}")


def test_revoked_client_reconnects_and_is_authorized_again(sites: tuple[Site, Site]) -> None:
    here, there = sites
    with watching(there, "a", user="ann") as ann:
        settle(here, ann)
        here.sse.disconnect("ann")
        ann.await_end()
        rest = b"".join(ann.stream.response.iter_encoded())
    assert rest == b"" or rest.startswith(b"retry: ")
    with watching(there, "a", user="ann") as again:
        settle(here, again)
        assert again.emitter.is_open


def test_revocation_discards_pending_and_replayed_events() -> None:
    site = Site(by_header, SSE_MAX_PENDING_BYTES=10**8)
    first = site.sse.publish("a", "x")
    for _ in range(50):
        site.sse.publish("a", "x" * 10_000)
    headers = {"User": "ann", "Last-Event-ID": first}
    with open_stream(site.client, "/events/a", headers=headers) as replayed, site.open("a", user="ann") as behind:
        pieces = replayed.response.iter_encoded()
        next(pieces)
        next(behind.response.iter_encoded())
        site.sse.publish("a", "pending")
        site.sse.disconnect("ann")
        rest = b"".join(pieces)
        assert len(rest) <= BATCH_BYTES + 100
        assert b"pending" not in rest
        assert b"pending" not in b"".join(behind.response.iter_encoded())


@contextmanager
def partly_read_event() -> Iterator[tuple[Site, SseEmitter, Callable[[], bytes]]]:
    """Open ann's stream and read part of a large event; yield a function that reads the rest and returns all."""
    site = Site(by_header, SSE_MAX_PENDING_BYTES=10**8)
    with site.open("a", user="ann") as stream:
        pieces = stream.response.iter_encoded()
        read = next(pieces)
        site.sse.publish("a", "x" * 500_000)
        while b"data: x" not in read:
            read += next(pieces)
        yield site, emitter_of(stream), lambda: read + b"".join(pieces)


def test_event_cut_by_revocation_is_not_decoded_as_complete() -> None:
    with partly_read_event() as (site, _, read_all):
        site.sse.disconnect("ann")
        read = read_all()
    assert len(read) < 500_000
    assert decode(read) == []


def test_event_cut_by_revocation_during_drain_is_not_decoded() -> None:
    with partly_read_event() as (site, emitter, read_all):
        drain(site.sse.find_state().streams)
        until(lambda: not emitter.is_open, "its end")
        site.sse.disconnect("ann")
        read = read_all()
    assert len(read) < 500_000
    assert decode(read) == []


@pytest.mark.parametrize("channel", [None, "a"])
def test_revocation_of_completed_stream_discards_pending_events(channel: str | None) -> None:
    site = Site()

    @site.app.get("/mine")
    def mine() -> SseEmitter:
        emitter = site.sse.channel("a").subscribe(identity="ann")
        emitter.send("secret")
        emitter.complete()
        return emitter

    with site.get("/mine") as response:
        site.sse.disconnect("ann", channel=channel)
        assert b"secret" not in response.data


# Between the rule and the stream.


class SlowRule:
    """A rule that has read the request before the test lets it return."""

    def __init__(self) -> None:
        self.asked, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, _channel: str) -> str:
        user = by_header(_channel)
        if user == "ann":
            self.asked.set()
            assert self.goes_on.wait(PATIENCE)
        return user


@pytest.mark.parametrize("url", ["memory", "Redis"])
@pytest.mark.parametrize(
    "revoke",
    [
        lambda sse: sse.disconnect("ann"),
        lambda sse: sse.disconnect(channel="a"),
    ],
    ids=["by identity", "by channel"],
)
def test_revocation_while_rule_runs_denies_stream(
    url: str, revoke: Callable[[Any], None], request: pytest.FixtureRequest
) -> None:
    rule = SlowRule()
    with ExitStack() as stack:
        address = "memory://" if url == "memory" else request.getfixturevalue("server").url
        there = stack.enter_context(site_at(address, rule))
        here = there if url == "memory" else stack.enter_context(site_at(address))
        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(there.get("/events/a", User="ann").data))
        thread.start()
        assert rule.asked.wait(PATIENCE)
        revoke(here.sse)
        with watching(there, "b", user="bob") as bob:  # another reader, to see when everything has arrived
            settle(here, bob, channel="b")
            rule.goes_on.set()
            thread.join(PATIENCE)
            here.sse.publish("a", "secret")
        [answer] = answers
        assert b"secret" not in answer
        assert there.counts() == (0, 0, 0)


# Redis between the processes.


@contextmanager
def cut_off(server: RedisServer, **config: Any) -> Iterator[tuple[Site, Site, Wire]]:
    """Make the site that revokes, and the site with the streams on a connection that a test cuts."""
    with (
        Wire(server.port) as wire,
        site_at(server.url) as here,
        site_at(f"redis://127.0.0.1:{wire.port}", **config) as there,
    ):
        yield here, there, wire


def away(site: Site, wire: Wire) -> None:
    wire.is_closed = True
    wire.cut()
    until(lambda: site.sse.stats()["broker"]["state"] == "degraded", "the outage to be noticed")


def test_missed_revocation_applies_before_missed_events_after_outage(server: RedisServer) -> None:
    """However many there are: revocations are looked up in pages, and so are the events of other channels."""
    with cut_off(server) as (here, there, wire), ExitStack() as stack:
        channels = [f"a{number}" for number in range(30)]
        streams = [stack.enter_context(watching(there, channel, user="ann")) for channel in channels]
        bob = stack.enter_context(watching(there, "a0", user="bob"))
        for channel, watched in zip(channels, streams, strict=True):
            settle(here, watched, channel=channel)
        away(there, wire)
        for number in range(50):
            here.sse.disconnect(f"other {number}")
        here.sse.disconnect("ann")
        for channel in channels:
            here.sse.publish(channel, "late")
        wire.is_closed = False
        bob.await_text("late")
        assert [watched.await_end() for watched in streams] == [["begin"]] * len(streams)
        assert bob.emitter.is_open


def test_lookup_delivers_no_event_published_after_revocation(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup reads the current state of Redis, while the announcement of the revocation may still be on its way."""
    with site_at(server.url) as here, site_at(server.url) as there:
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            broker: Any = there.sse._channels().broker
            has_looked_up, run_all = threading.Event(), Client.run_all

            def slow(client: Client, script: Any, steps: Any) -> Any:
                if client is broker._clients.get() and script is LOOK_UP and not has_looked_up.is_set():
                    has_looked_up.set()
                    here.sse.disconnect("ann")
                    here.sse.publish("a", "late")
                return run_all(client, script, steps)

            monkeypatch.setattr(Client, "run_all", slow)
            broker.look_again("a", lambda: None)
            assert has_looked_up.wait(PATIENCE)
            bob.await_text("late")
            assert ann.await_end() == ["begin"]


def test_no_event_is_delivered_while_revocations_lag(server: RedisServer) -> None:
    """As if Redis had evicted them: it then numbers them from 1 again, which only the next one shows."""
    with site_at(server.url) as here, site_at(server.url) as there:
        for number in range(20):
            with watching(there, "a", user="ann") as ann:
                settle(here, ann)
                client_of(server).delete("sse:{!revoked}:at", "sse:{!revoked}:log")
                here.sse.disconnect("ann")
                here.sse.publish("a", f"late {number}")
                assert f"late {number}" not in ann.await_end()


def test_no_event_is_delivered_while_revocations_cannot_be_read(server: RedisServer) -> None:
    with site_at(server.url) as here, cut_off(server) as (_, there, wire):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            away(there, wire)
            here.sse.disconnect("ann")
            client_of(server).xadd("sse:{!revoked}:log", {"junk": "x"}, id="2-0")
            here.sse.publish("a", "late")
            wire.is_closed = False
            until(lambda: there.sse.stats()["broker"].get("error", "").startswith("reading:"), "it to fail")
            assert (ann.read(), bob.read()) == (["begin"], ["begin"])
            client_of(server).xdel("sse:{!revoked}:log", "2-0")
            bob.await_text("late")
            assert ann.await_end() == ["begin"]


def test_late_process_does_not_trust_redis_without_revocations(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation, "LATE_SECONDS", 0.0)
    with cut_off(server) as (here, there, wire):
        wire.is_closed = True
        with watching(there, "a", user="ann") as ann:
            here.sse.disconnect("ann")
            client_of(server).flushall()
            wire.is_closed = False
            here.sse.publish("a", "late")
            assert "late" not in ann.await_end()


def test_dropped_revocations_make_all_clients_reconnect(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "HISTORY_BOUNDS", Bounds(3, 300.0))
    with cut_off(server) as (here, there, wire):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            away(there, wire)
            here.sse.disconnect("ann")
            for number in range(5):
                here.sse.disconnect(f"other {number}")
            here.sse.publish("a", "late")
            wire.is_closed = False
            assert ann.await_end() == ["begin"]
            assert bob.await_end() == ["begin"], "which revocation was dropped is unknown"


def test_redis_flush_of_revocations_makes_clients_reconnect(server: RedisServer) -> None:
    with site_at(server.url) as here, site_at(server.url) as there:
        with watching(there, "a", user="ann") as ann:
            settle(here, ann)
            here.sse.disconnect("other")
            client_of(server).flushall()
            here.sse.disconnect("another")
            ann.await_end()


def test_older_revocations_do_not_end_new_streams_of_new_listener(server: RedisServer) -> None:
    with site_at(server.url) as here, site_at(server.url) as there:
        for number in range(5):
            here.sse.disconnect(f"other {number}")
        with watching(there, "a", user="ann") as ann:
            settle(here, ann)
            assert ann.emitter.is_open


def test_revocation_without_redis_applies_here_and_raises(server: RedisServer) -> None:
    with site_at(server.url, SSE_PUBLISH_SECONDS=0.5) as site, watching(site, "a", user="ann") as ann:
        settle(site, ann)
        server.kill()
        for revoke in (site.sse.disconnect, site.sse.recheck):
            with pytest.raises(BrokerUnavailable, match=r"this process has done it.*call it again"):
                revoke("ann")
        assert not ann.emitter.is_open, "this process has applied it"


def test_foreign_messages_on_revocation_channel_are_logged_and_ignored(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with site_at(server.url) as here, site_at(server.url) as there:
        with watching(there, "a", user="ann") as ann:
            settle(here, ann)
            broker = here.sse._channels().broker
            for text in ("junk", "[1]", '["p", null, null]', "{}", "null"):
                broker.publish(revocation.CHANNEL, frame(text), None)
            until(lambda: len(caplog.messages) == 5, "the warnings")
            assert set(levels(caplog)) == {"WARNING"}
            assert ann.emitter.is_open


def test_process_without_streams_does_not_subscribe_to_revocations(server: RedisServer) -> None:
    with site_at(server.url) as site:
        site.sse.publish("a", "x")
        site.sse.disconnect("ann")
        site.sse.channel("a").subscribers()
        assert client_of(server).pubsub_channels("*revoked*") == []
        assert site.sse.find_state().revocations._listener is None


def test_revocation_of_thousands_of_streams_ends_them_all() -> None:
    site = Site(SSE_MAX_CLIENTS=20_000)
    emitters = [site.sse.channel("a").subscribe(identity=f"user {number}") for number in range(2000)]
    site.sse.disconnect(channel="a")
    assert {emitter.close_reason for emitter in emitters} == {CloseReason.COMPLETED}
    assert site.counts() == (0, 0, 0)


# Recheck.


def test_recheck_ends_only_streams_that_rule_now_denies(server: RedisServer) -> None:
    allowed = {("ann", "a"), ("ann", "b"), ("bob", "a")}

    def rule(channel: str) -> str:
        user = by_header(channel)
        return user if (user, channel) in allowed else ""

    with site_at(server.url) as here, site_at(server.url, rule) as there:
        with (
            watching(there, "a", user="ann") as one,
            watching(there, "b", user="ann") as two,
            watching(there, "a", user="bob") as bob,
        ):
            settle(here, one, bob)
            allowed -= {("ann", "a"), ("bob", "a")}
            here.sse.recheck("ann")
            assert one.await_end() == ["begin"]
            settle(here, two, channel="b")
            here.sse.publish("a", "more")
            bob.await_text("more")
            assert (two.emitter.is_open, bob.emitter.is_open) == (True, True)


def test_recheck_runs_rule_with_request_of_the_stream() -> None:
    site = Site()
    asked: list[tuple[Any, ...]] = []

    @site.app.before_request
    def load() -> None:
        g.user = session.get("user")

    @site.app.post("/login/<user>")
    def login(user: str) -> str:
        session["user"] = user
        return ""

    @site.app.post("/recheck")
    def recheck() -> str:
        site.sse.recheck("ann")
        return ""

    @site.sse.authorizer
    def may_read(channel: str) -> str:
        asked.append(
            (g.user, session["user"], request.path, request.args["x"], request.headers["Tenant"], request.remote_addr)
        )
        assert current_app.name == site.app.name
        return str(g.user)

    site.client.post("/login/ann")
    admin = site.app.test_client()
    admin.post("/login/admin")
    headers = {"Tenant": "acmé".encode().decode("latin-1")}
    overrides = {"REMOTE_ADDR": "192.0.2.7"}
    with open_stream(site.client, "/events/a?x=1", headers=headers, environ_overrides=overrides) as stream:
        emitter = emitter_of(stream)
        admin.post("/recheck")
        until(lambda: len(asked) == 2, "the rule to run again")
        assert asked[0] == asked[1]
        assert emitter.is_open


@pytest.mark.parametrize(
    "change",
    [
        "the rule raises",
        "the rule aborts",
        "another identity",
        "no identity",
        "before_request answers",
        "before_request aborts",
    ],
)
def test_recheck_denial_ends_stream(change: str, caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    changed = threading.Event()

    @site.app.before_request
    def before() -> Any:
        if not changed.is_set() or "request" not in change:
            return None
        return abort(401) if "aborts" in change else Response("log in first", 302)

    @site.sse.authorizer
    def may_read(channel: str) -> bool | str:
        if changed.is_set() and "rule" in change:
            raise RuntimeError if "raises" in change else abort(403)
        if changed.is_set() and change == "another identity":
            return "bob"
        return True if changed.is_set() else "ann"

    with watching(site, "a", user="ann") as ann:
        changed.set()
        site.sse.recheck("ann")
        ann.await_end()
    assert levels(caplog) == (["ERROR"] if "raises" in change else [])


def test_recheck_with_shorter_grant_ends_stream_sooner() -> None:
    seconds = [3600.0]
    site = Site(lambda _: Grant("ann", seconds=seconds[0]))
    with watching(site, "a") as ann:
        seconds[0] = 0.05
        site.sse.recheck("ann")
        until(lambda: not ann.emitter.is_open, "its end")
        assert ann.emitter.close_reason is CloseReason.TIMEOUT


def test_recheck_ends_streams_without_a_kept_request() -> None:
    site = Site(by_header)

    @site.app.get("/mine")
    def mine() -> SseEmitter:
        return site.sse.channel("a").subscribe(identity="ann")

    huge = {"User": "ann", "Huge": secrets.token_urlsafe(MAX_COPY_BYTES)}
    with (
        open_stream(site.client, "/mine") as one,
        open_stream(site.client, "/events/a", headers=huge) as two,
        watching(site, "a", user="ann") as three,
    ):
        found = [Watched(one), Watched(two)]
        site.sse.recheck("ann")
        for watched in found:
            watched.await_end()
        assert three.emitter.is_open


@pytest.mark.parametrize(("user", "is_kept"), [("ann", True), ("", False)])
def test_request_is_kept_only_for_stream_with_identity(user: str, is_kept: bool) -> None:
    site = Site(lambda _: Grant(user or None))
    with site.open("a", user=user) as stream:
        reader = stream_of(emitter_of(stream)).reader
        assert reader is not None
        assert (reader.request is not None) is is_kept
        site.sse.disconnect(channel="a")
        assert not emitter_of(stream).is_open


def test_blocked_recheck_delays_no_event_disconnect_or_callback() -> None:
    goes_on = threading.Event()
    blocks = threading.Event()

    def rule(channel: str) -> str:
        if blocks.is_set():
            assert goes_on.wait(PATIENCE)
        return by_header(channel)

    site = Site(rule)
    with ExitStack() as stack:
        streams = [stack.enter_context(watching(site, "a", user="ann")) for _ in range(20)]
        bob = stack.enter_context(watching(site, "a", user="bob"))
        ended = threading.Event()
        bob.emitter.on_completion(ended.set)
        blocks.set()
        for _ in range(sum(MAX_HELPERS.values())):
            site.sse.recheck("ann")
        site.sse.publish("a", "x")
        bob.await_text("x")
        site.sse.disconnect("bob")
        assert ended.wait(PATIENCE), "callbacks have a pool of their own"
        goes_on.set()
        blocks.clear()
        assert all(watched.emitter.is_open for watched in streams)


def test_disconnect_leaves_streams_of_own_lists_open() -> None:
    site = Site()
    emitters = SseEmitters()

    @site.app.get("/mine")
    def mine() -> SseEmitter:
        return emitters.add(SseEmitter())

    with open_stream(site.client, "/mine") as stream:
        site.sse.disconnect("ann")
        site.sse.disconnect(channel="a")
        assert emitter_of(stream).is_open
