"""Who has lost the right to a stream gets nothing more of it, in any process, whatever happens on the way there."""

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

from .redis_server import RedisServer
from .test_access import Site, by_header, emitter_of, levels
from .test_brokers import frame
from .test_outages import client_of
from .waiting import PATIENCE, until
from .wire import Wire


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
    """Where it is revoked, and where the streams are: the same process, or two."""
    if request.param == "memory":
        site = Site(by_header)
        yield site, site
        return
    server: RedisServer = request.getfixturevalue("server")
    with site_at(server.url) as one, site_at(server.url) as other:
        yield one, other


class Watched:
    """A stream that is read to its end, and no further."""

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


class Role(str, enum.Enum):  # noqa: UP042 - formats otherwise than its text
    ADMIN = "admin"


class Shouting(str):
    """A str that says something else of itself than its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


#: Each of them equals "admin".
ADMINS = [Role.ADMIN, Shouting("admin"), LocalProxy(lambda: "admin"), LocalProxy(lambda: Role.ADMIN)]


# who is ended, and who is not


@pytest.mark.parametrize("admin", ADMINS, ids=lambda each: type(each).__name__)
def test_an_identity_that_equals_the_readers_ends_its_streams(admin: Any, sites: tuple[Site, Site]) -> None:
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
def test_an_identity_is_its_text_wherever_it_is_named(admin: Any) -> None:
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


def test_a_views_stream_of_a_private_channel_is_its_readers() -> None:
    site = Site(by_header)
    with site.app.test_request_context():
        own = site.sse.private("ann").subscribe()
        watched = site.sse.private("ann").subscribe(identity="auditor")
        site.sse.disconnect("ann")
        assert (own.is_open, watched.is_open) == (False, True)
        site.sse.disconnect("auditor")
        assert not watched.is_open


@pytest.mark.parametrize(
    "said",
    [[["ann"], None, False], [None, {"a": 1}, False], [None, None, True], [7, None, False], ["ann", None], 7, "x"],
)
def test_what_is_no_revocation_is_passed_over_and_the_next_one_holds(
    said: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with site_at(server.url) as site:
        site.sse.channel("open", public=True)
        broker = site.sse._channels().broker
        with watching(site, "a", user="ann") as ann, watching(site, "open") as anybody:
            settle(site, ann)
            settle(site, anybody, channel="open")
            for one in (["other", *said] if isinstance(said, list) else said, ["other", "ann", None, False]):
                broker.publish(revocation.CHANNEL, frame(json.dumps(one)), Bounds(10, 60))
            ann.await_end()
            assert anybody.emitter.is_open
    assert [record.levelname for record in caplog.records if "something else" in record.message] == ["WARNING"]
    assert "ERROR" not in levels(caplog)


@pytest.mark.parametrize("number", [7, True, 0.5, UUID(int=7), b"7", LocalProxy(lambda: None)], ids=repr)
def test_what_is_no_text_ends_nothing_and_says_so(number: Any) -> None:
    site = Site(by_header)
    for call in (site.sse.disconnect, site.sse.recheck, site.sse.private, Grant):
        with pytest.raises(TypeError, match="an identity is a str"):
            call(number)


def test_the_streams_of_one_reader_end_and_no_others(sites: tuple[Site, Site]) -> None:
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


def test_the_streams_of_one_channel_end_and_no_others(sites: tuple[Site, Site]) -> None:
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


def test_the_streams_of_one_reader_that_have_one_channel_end(sites: tuple[Site, Site]) -> None:
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


def test_nothing_published_afterwards_is_read_however_close_it_follows(sites: tuple[Site, Site]) -> None:
    here, there = sites
    for number in range(30):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            here.sse.disconnect("ann")
            for _ in range(3):
                here.sse.publish("a", f"late {number}")
            assert f"late {number}" not in ann.await_end()
            bob.await_text(f"late {number}")


def test_a_client_that_comes_again_is_asked_and_soon(sites: tuple[Site, Site]) -> None:
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


def test_what_is_pending_and_what_is_missed_is_not_written_any_more() -> None:
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
def amid_an_event() -> Iterator[tuple[Site, SseEmitter, Callable[[], bytes]]]:
    """A stream of ann's of which a part of a large event has been read; and what reads it to its end, and gives all."""
    site = Site(by_header, SSE_MAX_PENDING_BYTES=10**8)
    with site.open("a", user="ann") as stream:
        pieces = stream.response.iter_encoded()
        read = next(pieces)
        site.sse.publish("a", "x" * 500_000)
        while b"data: x" not in read:
            read += next(pieces)
        yield site, emitter_of(stream), lambda: read + b"".join(pieces)


def test_an_event_of_which_a_part_was_written_is_not_mistaken_for_a_whole_one() -> None:
    with amid_an_event() as (site, _, read_all):
        site.sse.disconnect("ann")
        read = read_all()
    assert len(read) < 500_000
    assert decode(read) == []


def test_a_part_of_an_event_is_none_though_the_stream_was_to_end_anyway() -> None:
    with amid_an_event() as (site, emitter, read_all):
        drain(site.sse.find_state().streams)
        until(lambda: not emitter.is_open, "its end")
        site.sse.disconnect("ann")
        read = read_all()
    assert len(read) < 500_000
    assert decode(read) == []


@pytest.mark.parametrize("channel", [None, "a"])
def test_a_stream_that_has_ended_and_still_has_something_to_write_writes_no_more(channel: str | None) -> None:
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


# between the rule and the stream


class Slow:
    """A rule that takes its time: it has said yes before the test lets it go on."""

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
def test_who_is_revoked_while_the_rule_says_yes_gets_nothing(
    url: str, revoke: Callable[[Any], None], request: pytest.FixtureRequest
) -> None:
    rule = Slow()
    with ExitStack() as stack:
        address = "memory://" if url == "memory" else request.getfixturevalue("server").url
        there = stack.enter_context(site_at(address, rule))
        here = there if url == "memory" else stack.enter_context(site_at(address))
        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(there.get("/events/a", User="ann").data))
        thread.start()
        assert rule.asked.wait(PATIENCE)
        revoke(here.sse)
        with watching(there, "b", user="bob") as bob:  # of another reader, so that it shows that all was heard
            settle(here, bob, channel="b")
            rule.goes_on.set()
            thread.join(PATIENCE)
            here.sse.publish("a", "secret")
        [answer] = answers
        assert b"secret" not in answer
        assert there.counts() == (0, 0, 0)


# Redis on the way


@contextmanager
def cut_off(server: RedisServer, **config: Any) -> Iterator[tuple[Site, Site, Wire]]:
    """Where it is revoked, and where the streams are: on a line that a test cuts."""
    with (
        Wire(server.port) as wire,
        site_at(server.url) as here,
        site_at(f"redis://127.0.0.1:{wire.port}", **config) as there,
    ):
        yield here, there, wire


def away(site: Site, wire: Wire) -> None:
    wire.is_closed = True
    wire.cut()
    until(lambda: site.sse.stats()["broker"]["state"] == "degraded", "it to be noticed")


def test_what_was_revoked_while_a_process_was_away_comes_before_what_was_published(server: RedisServer) -> None:
    """However much that was: it is looked up in pages, and so are the events of other channels."""
    with cut_off(server) as (here, there, wire), ExitStack() as stack:
        channels = [f"a{number}" for number in range(30)]
        streams = [stack.enter_context(watching(there, channel, user="ann")) for channel in channels]
        bob = stack.enter_context(watching(there, "a0", user="bob"))
        for channel, watched in zip(channels, streams, strict=True):
            settle(here, watched, channel=channel)
        away(there, wire)
        for number in range(50):
            here.sse.disconnect(f"nobody {number}")
        here.sse.disconnect("ann")
        for channel in channels:
            here.sse.publish(channel, "late")
        wire.is_closed = False
        bob.await_text("late")
        assert [watched.await_end() for watched in streams] == [["begin"]] * len(streams)
        assert bob.emitter.is_open


def test_what_is_looked_up_brings_nothing_that_came_after_a_revocation(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from Redis as it is then, while the announcement of the revocation may still be on its way."""
    with site_at(server.url) as here, site_at(server.url) as there:
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            broker: Any = there.sse._channels().broker
            looks, run_all = threading.Event(), Client.run_all

            def slow(client: Client, script: Any, steps: Any) -> Any:
                if client is broker._clients.get() and script is LOOK_UP and not looks.is_set():
                    looks.set()
                    here.sse.disconnect("ann")
                    here.sse.publish("a", "late")
                return run_all(client, script, steps)

            monkeypatch.setattr(Client, "run_all", slow)
            broker.look_again("a", lambda: None)
            assert looks.wait(PATIENCE)
            bob.await_text("late")
            assert ann.await_end() == ["begin"]


def test_while_revocations_are_behind_nothing_else_is_told(server: RedisServer) -> None:
    """As where Redis has evicted them: it numbers them anew, which shows with the next one only."""
    with site_at(server.url) as here, site_at(server.url) as there:
        for number in range(20):
            with watching(there, "a", user="ann") as ann:
                settle(here, ann)
                client_of(server).delete("sse:{!revoked}:at", "sse:{!revoked}:log")
                here.sse.disconnect("ann")
                here.sse.publish("a", f"late {number}")
                assert f"late {number}" not in ann.await_end()


def test_where_revocations_cannot_be_read_nothing_is(server: RedisServer) -> None:
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


def test_a_process_that_reaches_redis_late_does_not_trust_one_that_knows_nothing(
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


def test_where_it_cannot_be_known_any_more_all_come_again(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "HISTORY_BOUNDS", Bounds(3, 300.0))
    with cut_off(server) as (here, there, wire):
        with watching(there, "a", user="ann") as ann, watching(there, "a", user="bob") as bob:
            settle(here, ann, bob)
            away(there, wire)
            here.sse.disconnect("ann")
            for number in range(5):
                here.sse.disconnect(f"nobody {number}")
            here.sse.publish("a", "late")
            wire.is_closed = False
            assert ann.await_end() == ["begin"]
            assert bob.await_end() == ["begin"], "nobody knows that this one was not meant"


def test_where_redis_has_lost_all_of_it_all_come_again(server: RedisServer) -> None:
    with site_at(server.url) as here, site_at(server.url) as there:
        with watching(there, "a", user="ann") as ann:
            settle(here, ann)
            here.sse.disconnect("nobody")
            client_of(server).flushall()
            here.sse.disconnect("somebody")
            ann.await_end()


def test_a_process_that_listens_only_now_has_no_streams_that_were_revoked_before(server: RedisServer) -> None:
    with site_at(server.url) as here, site_at(server.url) as there:
        for number in range(5):
            here.sse.disconnect(f"nobody {number}")
        with watching(there, "a", user="ann") as ann:
            settle(here, ann)
            assert ann.emitter.is_open


def test_whoever_revokes_is_told_where_others_cannot_be(server: RedisServer) -> None:
    with site_at(server.url, SSE_PUBLISH_SECONDS=0.5) as site, watching(site, "a", user="ann") as ann:
        settle(site, ann)
        server.kill()
        for revoke in (site.sse.disconnect, site.sse.recheck):
            with pytest.raises(BrokerUnavailable, match=r"this process has done it.*call it again"):
                revoke("ann")
        assert not ann.emitter.is_open, "here it is done"


def test_what_others_write_there_is_said_and_ends_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with site_at(server.url) as here, site_at(server.url) as there:
        with watching(there, "a", user="ann") as ann:
            settle(here, ann)
            broker = here.sse._channels().broker
            for text in ("junk", "[1]", '["p", null, null]', "{}", "null"):
                broker.publish(revocation.CHANNEL, frame(text), None)
            until(lambda: len(caplog.messages) == 5, "it to say so")
            assert set(levels(caplog)) == {"WARNING"}
            assert ann.emitter.is_open


def test_who_has_no_streams_listens_to_nothing(server: RedisServer) -> None:
    with site_at(server.url) as site:
        site.sse.publish("a", "x")
        site.sse.disconnect("ann")
        site.sse.channel("a").subscribers()
        assert client_of(server).pubsub_channels("*revoked*") == []
        assert site.sse.find_state().revocations._listener is None


def test_ten_thousand_streams_end_and_others_have_their_turn() -> None:
    site = Site(SSE_MAX_CLIENTS=20_000)
    emitters = [site.sse.channel("a").subscribe(identity=f"user {number}") for number in range(2000)]
    site.sse.disconnect(channel="a")
    assert {emitter.close_reason for emitter in emitters} == {CloseReason.COMPLETED}
    assert site.counts() == (0, 0, 0)


# asking again


def test_recheck_ends_those_that_the_rule_denies_now_and_no_others(server: RedisServer) -> None:
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


def test_the_rule_sees_the_streams_own_request_and_nothing_of_whoever_asks() -> None:
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
        until(lambda: len(asked) == 2, "it to be asked again")
        assert asked[0] == asked[1]
        assert emitter.is_open


@pytest.mark.parametrize(
    "change",
    [
        "the rule raises",
        "the rule aborts",
        "somebody else",
        "nobody in particular",
        "before_request answers",
        "before_request aborts",
    ],
)
def test_what_denies_when_it_is_asked_again(change: str, caplog: pytest.LogCaptureFixture) -> None:
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
        if changed.is_set() and change == "somebody else":
            return "bob"
        return True if changed.is_set() else "ann"

    with watching(site, "a", user="ann") as ann:
        changed.set()
        site.sse.recheck("ann")
        ann.await_end()
    assert levels(caplog) == (["ERROR"] if "raises" in change else [])


def test_a_grant_that_is_shorter_now_ends_the_stream_sooner() -> None:
    seconds = [3600.0]
    site = Site(lambda _: Grant("ann", seconds=seconds[0]))
    with watching(site, "a") as ann:
        seconds[0] = 0.05
        site.sse.recheck("ann")
        until(lambda: not ann.emitter.is_open, "its end")
        assert ann.emitter.close_reason is CloseReason.TIMEOUT


def test_streams_that_cannot_be_asked_about_come_again() -> None:
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
def test_a_request_is_kept_only_where_recheck_can_find_its_stream(user: str, is_kept: bool) -> None:
    site = Site(lambda _: Grant(user or None))
    with site.open("a", user=user) as stream:
        reader = stream_of(emitter_of(stream)).reader
        assert reader is not None
        assert (reader.request is not None) is is_kept
        site.sse.disconnect(channel="a")
        assert not emitter_of(stream).is_open


def test_a_rule_that_blocks_while_it_is_asked_again_holds_up_nobody() -> None:
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
        assert ended.wait(PATIENCE), "callbacks have other helpers"
        goes_on.set()
        blocks.clear()
        assert all(watched.emitter.is_open for watched in streams)


def test_lists_of_your_own_are_not_touched() -> None:
    site = Site()
    emitters = SseEmitters()

    @site.app.get("/mine")
    def mine() -> SseEmitter:
        return emitters.add(SseEmitter())

    with open_stream(site.client, "/mine") as stream:
        site.sse.disconnect("ann")
        site.sse.disconnect(channel="a")
        assert emitter_of(stream).is_open
