"""Access to channels: rules, grants, private channels, limits, origins, and publishing over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, g, request, session
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_emitters import (
    SSE,
    AccessDenied,
    BrokerUnavailable,
    CloseReason,
    Event,
    InvalidChannel,
    NotInitialized,
    Publisher,
    SseEmitter,
    TooManyClients,
)
from flask_sse_emitters.access import Grant, Rule
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.testing import open_stream, published
from tests.support.board import texts
from tests.support.site import Site, by_header, emitter_of, levels
from tests.support.waiting import until

# closed, public, or open if the rule allows it


@pytest.mark.parametrize(
    "path", ["/events/a", "/events?channel=a", "/events?channel=news&channel=a", "/events?channel=~"]
)
def test_channel_without_rule_or_public_is_denied_and_logged_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.sse.channel("news", public=True)
    for _ in range(3):
        answer = site.get(path)
        assert (answer.status_code, answer.text, answer.content_type) == (
            403,
            "Forbidden\n",
            "text/plain; charset=utf-8",
        )
        assert (answer.headers["Cache-Control"], "WWW-Authenticate" in answer.headers) == ("no-store", False)
    assert levels(caplog) == ["WARNING"], "the call to add is logged once"
    assert "public=True" in caplog.text
    assert "@sse.authorizer" in caplog.text
    assert site.sse.stats()["denied"] == 3
    assert (site.counts(), site.sse.stats()["opened"], site.sse.stats()["channels"]) == ((0, 0, 0), 0, {})


def test_denial_in_debug_mode_names_the_call_to_add() -> None:
    answer = Site(debug=True).get("/events/orders/7")
    assert answer.status_code == 403
    assert "sse.channel('orders/7', public=True)" in answer.text
    assert "@sse.authorizer" in answer.text


def test_private_channel_without_a_rule_is_denied_and_asks_for_an_authorizer(caplog: pytest.LogCaptureFixture) -> None:
    answer = Site(debug=True).get("/events/~")
    assert (answer.status_code, "sse.channel(" in answer.text) == (403, False)
    assert "say who reads, with @sse.authorizer" in answer.text
    assert "say who reads, with @sse.authorizer; this is logged once" in caplog.text


def test_public_channel_is_readable_without_a_call_of_the_rule() -> None:
    calls: list[str] = []
    site = Site()
    site.sse.authorizer(calls.append)
    site.sse.channel("news", public=True)
    with site.open("news") as stream:
        site.sse.publish("news", "x")
        assert texts(stream.ready()) == ["x"]
        assert stream_of(emitter_of(stream)).reader is None, "nothing of its request is kept"
    assert calls == []


def test_authorizer_is_called_once_per_channel_before_anything_is_registered() -> None:
    calls: list[tuple[str, tuple[int, int, int], dict[str, int]]] = []
    site = Site()
    site.sse.channel("b", public=True)

    @site.sse.authorizer
    def may_read(channel: str) -> bool:
        calls.append((channel, site.counts(), site.sse.stats()["channels"]))
        return channel != "c"

    nothing: tuple[Any, ...] = ((0, 0, 0), {})
    assert site.get("/events?channel=a&channel=b&channel=a&channel=c&channel=d").status_code == 403
    assert calls == [("a", *nothing), ("c", *nothing)]


@pytest.mark.parametrize(
    "result", [True, "ann", Grant(), Grant("ann"), Grant(seconds=60), Grant(seconds=timedelta(days=1))]
)
def test_authorizer_result_that_allows_opens_the_stream(result: Any) -> None:
    site = Site(lambda _: result)
    with site.open("a") as stream:
        site.sse.publish("a", "x")
        assert texts(stream.ready()) == ["x"]


@pytest.mark.parametrize("result", [False, None, "", Grant(seconds=0), Grant("ann", seconds=-5)])
def test_authorizer_result_that_denies_is_a_403_without_a_log(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(lambda _: result)
    assert site.get("/events/a").status_code == 403
    assert levels(caplog) == []


@pytest.mark.parametrize("result", [7, 1, [], ["ann"], b"ann", "x" * 501, "\ud800", object()])
def test_authorizer_result_that_is_invalid_denies_and_is_logged(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(lambda _: result)
    assert (site.get("/events/a").status_code, levels(caplog)) == (403, ["ERROR"])
    assert "the authorizer failed for channel 'a': access denied" in caplog.text
    assert site.counts() == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "level"),
    [(RuntimeError("boom"), "ERROR"), (KeyError("user"), "ERROR"), (TypeError(), "ERROR")],
    ids=["RuntimeError", "KeyError", "TypeError"],
)
def test_authorizer_that_raises_denies_and_is_logged(
    error: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(debug=False)

    @site.sse.authorizer
    def may_read(_channel: str) -> bool:
        raise error

    answer = site.get("/events/a")
    assert (answer.status_code, answer.text, levels(caplog)) == (403, "Forbidden\n", [level])
    assert caplog.records[0].exc_info


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_authorizer_that_aborts_denies(status: int, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(lambda _: abort(status))
    assert (site.get("/events/a").status_code, site.get("/events/a").text) == (403, "Forbidden\n")
    assert levels(caplog) == []


def test_authorizer_challenge_is_a_401_with_www_authenticate() -> None:
    def may_read(_channel: str) -> bool:
        raise AccessDenied("no seal", challenge='Seal realm="a"')

    answer = Site(may_read).get("/events/a")
    assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
    assert answer.headers["WWW-Authenticate"] == 'Seal realm="a"'
    assert "no seal" in Site(may_read, debug=True).get("/events/a").text


def test_authorizer_can_read_the_request_the_session_and_g() -> None:
    site = Site()

    @site.app.before_request
    def note() -> None:
        g.tenant = request.headers.get("Tenant")

    @site.app.post("/login")
    def login() -> str:
        session["user"] = "ann"
        return ""

    @site.sse.authorizer
    def may_read(channel: str) -> bool:
        return channel == f"{g.tenant}/{session.get('user')}"

    assert site.get("/events/acme/ann", Tenant="acme").status_code == 403
    site.client.post("/login")
    with open_stream(site.client, "/events/acme/ann", headers={"Tenant": "acme"}):
        pass
    assert site.get("/events/acme/ann", Tenant="other").status_code == 403


def test_authorizer_and_publisher_take_one_function_each() -> None:
    sse = SSE()
    assert sse.authorizer(by_header) is by_header
    assert sse.authorizer(by_header) is by_header, "registering it twice is harmless"
    with pytest.raises(RuntimeError, match="has an authorizer already"):
        sse.authorizer(lambda _: True)
    with pytest.raises(TypeError, match="takes a function"):
        SSE().authorizer("news")  # type: ignore[type-var]

    async def waits(_channel: str) -> bool:
        return True

    with pytest.raises(TypeError, match="none that is async"):
        SSE().publisher(waits)  # type: ignore[type-var]
    assert sse.publisher(by_header) is by_header
    with pytest.raises(RuntimeError, match="has a publisher already"):
        sse.publisher(cookies=True)(lambda _: True)


@pytest.mark.parametrize(("handled", "status"), [(Exception, 403), (403, 403), (AccessDenied, 418)])
def test_denial_answer_is_replaced_by_a_handler_of_access_denied_alone(handled: Any, status: int) -> None:
    site = Site()

    def teapot(_error: Exception) -> tuple[str, int]:
        return "teapot", 418

    site.app.register_error_handler(handled, teapot)
    assert site.get("/events/a").status_code == status


def test_denial_handler_of_the_app_wins_over_a_blueprints_exception_handler() -> None:
    app, outer = Flask(__name__), Blueprint("outer", __name__)
    app.register_error_handler(AccessDenied, lambda _: ("teapot", 418))
    outer.register_error_handler(Exception, lambda _: ("not for this", 500))
    sse = SSE(app)
    outer.register_blueprint(sse.blueprint)
    app.register_blueprint(outer, url_prefix="/outer")
    assert app.test_client().get("/outer/events/a").status_code == 418


@pytest.mark.parametrize("comes_first", [True, False])
def test_denial_handler_can_be_for_a_subclass_of_access_denied(comes_first: bool) -> None:
    class Expired(AccessDenied):
        pass

    def expired(_channel: str) -> bool:
        raise Expired("yesterday")

    app = Flask(__name__)
    sse = SSE()
    if comes_first:
        app.register_error_handler(Expired, lambda _: ("expired", 410))
    sse.init_app(app)
    if not comes_first:
        app.register_error_handler(Expired, lambda _: ("expired", 410))
    app.register_blueprint(sse.blueprint)
    app.get("/mine")(lambda: str(expired("mine")))
    client = app.test_client()
    assert client.get("/events/a").status_code == 403, "without a rule it is another denial"
    sse.authorizer(expired)
    assert [client.get(path).status_code for path in ("/events/a", "/mine")] == [410, 410]


@pytest.mark.parametrize("public", ["false", 1, None, "yes"])
def test_channel_public_that_is_no_bool_is_rejected(public: Any) -> None:
    with pytest.raises(TypeError, match="public is True or False"):
        Site().sse.channel("news", public=public)


@pytest.mark.parametrize("public", [True, False])
def test_channel_public_that_contradicts_the_earlier_value_is_rejected(public: bool) -> None:
    site = Site(by_header)
    for _ in range(2):
        site.sse.channel("news", public=public)
        site.sse.channel("news")
    with pytest.raises(ValueError, match=rf"public={not public} contradicts sse.channel\('news', public={public}\)"):
        site.sse.channel("news", public=not public)
    answer = site.get("/events/news")
    assert answer.status_code == (200 if public else 403)
    answer.close()


def test_authorizer_can_disconnect_the_readers_other_streams() -> None:
    site = Site()

    @site.sse.authorizer
    def may_read(_channel: str) -> str:
        site.sse.disconnect("ann")
        return "ann"

    with site.open("a") as one, site.open("a") as two:
        assert (emitter_of(one).is_open, emitter_of(two).is_open) == (False, True)


def test_view_that_subscribes_decides_on_access_and_can_deny() -> None:
    site = Site()

    @site.app.get("/mine")
    def mine() -> SseEmitter:
        if "User" not in request.headers:
            raise AccessDenied("who are you?", challenge="Seal")
        return site.sse.channel("a").subscribe(identity=request.headers["User"])

    assert site.get("/mine").status_code == 401
    with open_stream(site.client, "/mine", headers={"User": "ann"}) as stream:
        site.sse.publish("a", "x")
        assert texts(stream.ready()) == ["x"]
        site.sse.disconnect("ann")
        assert emitter_of(stream).close_reason is CloseReason.COMPLETED


def test_subscribe_identity_that_is_invalid_is_rejected() -> None:
    """For a user who is not logged in, Flask-Login's get_id() is None: that must open nothing. It can be left out."""
    site = Site()
    for given in ({"identity": None}, {"identity": ""}, {"identity": 7}):
        with site.app.test_request_context(), pytest.raises((TypeError, ValueError), match="an identity"):
            site.sse.channel("a").subscribe(**given)
    with site.app.test_request_context():
        assert stream_of(site.sse.channel("a").subscribe()).reader is None


def test_denial_reason_is_logged_at_debug_without_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    Site(lambda _: False).get("/events/a?token=secret")
    assert "GET '/events/a' is denied: the authorizer returned False for channel 'a'" in caplog.messages
    assert "secret" not in caplog.text


# grants: access for a limited time


def test_grant_expiry_ends_the_stream_as_a_timeout() -> None:
    site = Site(lambda channel: Grant("ann", seconds=0.05 if channel == "b" else 3600))
    with site.open("a", "b") as stream:
        emitter = emitter_of(stream)
        until(lambda: not emitter.is_open, "its end")
        assert emitter.close_reason is CloseReason.TIMEOUT
        site.sse.publish("a", "late")
        assert stream.ready() == []


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("60", TypeError), (True, TypeError), (float("inf"), ValueError), (float("nan"), ValueError)],
)
def test_grant_seconds_must_be_finite(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seconds"):
        Grant(seconds=seconds)


# private channels


def test_publish_to_reaches_all_streams_of_one_reader_and_no_others() -> None:
    site = Site(by_header)
    with (
        site.open("~", user="ann") as one,
        site.open("~", "news", user="ann") as two,
        site.open("~", user="bob") as bob,
    ):
        event_id = site.sse.publish_to("ann", {"n": 1}, event="hello")
        assert one.ready() == [Event('{"n": 1}', event="hello", id=event_id)]
        assert texts(two.ready()) == ['{"n": 1}']
        assert bob.ready() == []
        assert site.sse.private("ann").subscribers() == 2
    with open_stream(site.client, "/events/~", headers={"User": "bob", "Last-Event-ID": event_id}) as bob:
        [gap] = bob.ready()
        assert (gap.event, "hello" in gap.data) == ("gap", False), "another reader's id shows none of their events"


def test_private_channel_replays_missed_events_at_a_reconnect() -> None:
    site = Site(by_header)
    first, *_ = [site.sse.publish_to("ann", number) for number in range(3)]
    with open_stream(site.client, "/events/~", headers={"User": "ann", "Last-Event-ID": first}) as stream:
        assert texts(stream.ready()) == ["1", "2"]


@pytest.mark.parametrize(
    "identity", ["ann", "~", "!revoked", "a b", "안녕", "{x}", "a/../b", "x" * 500, "é" * 500, "a\nb"]
)
def test_private_channel_of_any_identity_is_its_own(identity: str) -> None:
    site = Site(lambda _: identity)
    with site.open("~") as stream:
        for other in ("ann", "~", "!revoked", "a b", "x" * 499, identity + "x" if len(identity) < 500 else "y" * 500):
            if other != identity:
                site.sse.publish_to(other, "not this")
        site.sse.publish_to(identity, "this")
        assert texts(stream.ready()) == ["this"]
        [name] = site.sse.stats()["channels"]
        assert name.isascii()
        assert name.isprintable()
        assert len(name) <= 200


@pytest.mark.parametrize("identity", ["", "x" * 501, "\ud800"])
def test_identity_that_is_invalid_is_rejected(identity: str) -> None:
    sse = Site().sse
    for call in (sse.private, sse.disconnect, sse.recheck, lambda user: sse.publish_to(user, "x")):
        with pytest.raises(ValueError, match="identity"):
            call(identity)
    for number in (7, None):
        with pytest.raises(TypeError, match="identity"):
            sse.publish_to(number, "x")  # type: ignore[arg-type]


def test_private_channel_without_an_identity_is_denied() -> None:
    site = Site(lambda _: True, debug=True)
    answer = site.get("/events/~")
    assert answer.status_code == 403
    assert "have the authorizer return who that is" in answer.text


@pytest.mark.parametrize("name", ["~", "~ann", "~bob", "!revoked", "~~"])
def test_private_channel_names_are_rejected_as_channel_names(name: str) -> None:
    site = Site(by_header)
    for call in (site.sse.channel, lambda channel: site.sse.publish(channel, "x")):
        with pytest.raises(InvalidChannel, match="publish_to" if name.startswith("~") else "ASCII"):
            call(name)
    if name != "~":
        assert site.get(f"/events?channel={name}", User="bob").status_code == 400
    assert site.client.post(f"/events/{name}", json=1).status_code == 405


def test_published_records_events_of_a_private_channel() -> None:
    site = Site()
    with published(site.sse, "~ann", "news") as events:
        site.sse.publish_to("ann", 1)
        site.sse.publish_to("bob", 2)
        site.sse.publish("news", 3)
    assert texts(events) == ["1", "3"]


def test_publisher_with_memory_broker_is_rejected() -> None:
    with pytest.raises(ValueError, match="reaches this process alone"):
        Publisher("memory://")


# limits


def test_max_clients_per_identity_refuses_further_streams_of_one_reader(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(by_header, SSE_MAX_CLIENTS_PER_IDENTITY=2)
    site.sse.channel("news", public=True)
    ends: list[Stream] = []
    with site.open("a", user="ann"), site.open("b", user="ann"), site.open("a", user="bob"):
        for _ in range(3):
            with site.open("a", user="ann") as stream:
                assert stream._body._stream is not None
                ends.append(stream._body._stream)
                assert stream.response.status_code == 200, "an error would stop an EventSource for good"
                assert ends[-1].close_reason is CloseReason.ERROR
                assert isinstance(ends[-1].error, TooManyClients)
        with site.open("news", user="ann") as stream:
            assert emitter_of(stream).is_open, "a public channel knows no identity"
        assert (site.sse.stats()["refused"], site.counts()) == (3, (3, 2, 2))
    assert "of the identity 'ann'" in str(ends[0].error)
    assert levels(caplog) == ["WARNING"]
    assert "SSE_MAX_CLIENTS_PER_IDENTITY=2" in caplog.text
    assert site.counts() == (0, 0, 0)
    with site.open("a", user="ann") as stream:
        assert emitter_of(stream).is_open


def test_max_clients_per_address_leaves_room_for_other_addresses() -> None:
    site = Site(lambda _: True, SSE_MAX_CLIENTS=10, SSE_MAX_CLIENTS_PER_ADDRESS=4)

    def connect(address: str) -> bool:
        response = site.client.get("/events/a", environ_overrides={"REMOTE_ADDR": address})
        responses.append(response)
        return b": stream open" in next(response.iter_encoded())

    responses: list[Any] = []
    assert [connect("192.0.2.1") for _ in range(50)].count(True) == 4
    assert connect("192.0.2.2")
    assert not connect("::ffff:192.0.2.1"), "the same address, as an IPv6 socket shows it"
    assert [connect(f"2001:db8::{number:x}") for number in range(10)].count(True) == 4, "one customer has all of a /64"
    assert connect("2001:db8:0:1::1")
    assert site.counts() == (10, 0, 4)
    for response in responses:
        response.close()
    assert site.counts() == (0, 0, 0)


def test_max_clients_per_address_counts_the_address_from_proxy_fix() -> None:
    site = Site(lambda _: True, SSE_MAX_CLIENTS_PER_ADDRESS=1)

    def refused(forwarded: str) -> bool:
        response = site.get("/events/a", **{"X-Forwarded-For": forwarded})
        responses.append(response)
        return b"stream open" not in next(response.iter_encoded())

    responses: list[Any] = []
    assert [refused("192.0.2.1"), refused("192.0.2.2")] == [False, True], "any client can send that header"
    site.app.wsgi_app = ProxyFix(site.app.wsgi_app)  # type: ignore[method-assign]
    assert [refused("192.0.2.3"), refused("192.0.2.4"), refused("192.0.2.4")] == [False, False, True]
    assert [refused("192.0.2.9, 192.0.2.3")] == [True], "only what the proxy has added counts"
    for response in responses:
        response.close()


def test_max_clients_per_address_without_an_address_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(lambda _: True, SSE_MAX_CLIENTS_PER_ADDRESS=1)
    for _ in range(2):
        with site.open("a", environ_overrides={"REMOTE_ADDR": ""}):
            pass
    assert levels(caplog) == ["WARNING"]
    assert "ProxyFix" in caplog.text
    assert site.sse.stats()["warnings"] == caplog.messages


def test_limits_forget_an_ended_stream_with_a_response_never_closed() -> None:
    site = Site(SSE_MAX_CLIENTS_PER_IDENTITY=5, SSE_MAX_CLIENTS_PER_ADDRESS=5, SSE_ATTACH_SECONDS=0.05)

    @site.app.get("/mine")
    def mine() -> SseEmitter:
        emitter = site.sse.channel("a").subscribe(identity="ann")
        emitter.complete()
        return emitter

    @site.app.after_request
    def fail(_response: Response) -> Response:
        raise RuntimeError("after_request failed")

    for _ in range(3):
        assert site.get("/mine").status_code == 500
    until(lambda: site.counts() == (0, 0, 0), "no client to be counted")


@pytest.mark.parametrize("ends", ["HEAD", "a view that fails", "after_request", "never returned"])
def test_limits_do_not_count_clients_that_never_got_a_stream(ends: str) -> None:
    site = Site(by_header, SSE_MAX_CLIENTS_PER_IDENTITY=5, SSE_MAX_CLIENTS_PER_ADDRESS=5, SSE_ATTACH_SECONDS=0.05)

    @site.app.get("/mine")
    def mine() -> Any:
        emitter = site.sse.channel("a").subscribe(identity="ann")
        if ends == "a view that fails":
            raise RuntimeError("the view failed")
        return "" if ends == "never returned" else emitter

    @site.app.after_request
    def fail(response: Response) -> Response:
        if ends == "after_request":
            raise RuntimeError("after_request failed")
        return response

    for path in ("/mine", "/events/a"):
        response = site.client.open(path, method="HEAD" if ends == "HEAD" else "GET", headers={"User": "ann"})
        response.close()
    until(lambda: site.counts() == (0, 0, 0), "no client to be counted")


# pages of other origins

OWN, LISTED, FOREIGN = "http://localhost", "https://app.example", "https://evil.example"


@pytest.mark.parametrize(
    ("origins", "headers", "status", "allowed", "credentials"),
    [
        ((), {}, 200, None, None),
        ((), {"Origin": OWN}, 200, None, None),
        ((), {"Origin": "https://localhost"}, 200, None, None),
        ((), {"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"}, 200, None, None),
        ((), {"Origin": FOREIGN}, 403, None, None),
        ((), {"Origin": FOREIGN, "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Origin": "http://localhost:81"}, 403, None, None),
        ((), {"Origin": "null"}, 403, None, None),
        ((), {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-site", "Cookie": "a=b"}, 403, None, None),
        ((), {"Origin": OWN, "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Origin": OWN, "Sec-Fetch-Site": "none"}, 200, None, None),
        ((LISTED,), {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}, 200, LISTED, "true"),
        ((LISTED,), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ("*", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 200, "*", None),
        ("*", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site", "Cookie": "a=b"}, 403, "*", None),
        ((), {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"}, 200, None, None),
        ((), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}, 200, None, None),
        ((LISTED,), {}, 200, None, None),
        ((LISTED,), {"Origin": LISTED}, 200, LISTED, "true"),
        ((LISTED,), {"Origin": LISTED, "Cookie": "a=b"}, 200, LISTED, "true"),
        ((LISTED,), {"Origin": FOREIGN}, 403, None, None),
        ((LISTED,), {"Origin": "http://app.example"}, 403, None, None),
        ((LISTED,), {"Origin": LISTED + ".evil.example"}, 403, None, None),
        (LISTED, {"Origin": LISTED}, 200, LISTED, "true"),
        (["HTTPS://App.Example:443"], {"Origin": LISTED}, 200, LISTED, "true"),
        ("*", {}, 200, "*", None),
        ("*", {"Origin": FOREIGN}, 200, "*", None),
        ("*", {"Origin": "null"}, 200, "*", None),
        ("*", {"Origin": FOREIGN, "Cookie": "a=b"}, 403, "*", None),
        ("*", {"Origin": OWN, "Cookie": "a=b"}, 200, "*", None),
    ],
)
def test_cors_origins_decide_which_pages_may_read(
    origins: Any, headers: dict[str, str], status: int, allowed: str | None, credentials: str | None
) -> None:
    site = Site(lambda _: True, SSE_CORS_ORIGINS=origins)
    with site.app.test_client(use_cookies=False).get("/events/a", headers=headers) as response:
        assert response.status_code == status
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert response.headers.get("Access-Control-Allow-Credentials") == credentials
        assert response.headers.getlist("Vary").count("Origin") == (origins not in ((), "*"))
    assert site.sse.stats()["opened"] == (status == 200)


@pytest.mark.parametrize(
    ("origins", "origin", "status"), [((LISTED,), LISTED, 204), ("*", FOREIGN, 204), ((), FOREIGN, 403)]
)
def test_cors_preflight_lists_allowed_methods_and_headers(origins: Any, origin: str, status: int) -> None:
    site = Site(SSE_CORS_ORIGINS=origins)
    asks = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    for publishes in (False, True):
        response = site.client.options("/events/a", headers=asks)
        assert response.status_code == status
        if status == 204:
            names = response.headers["Access-Control-Allow-Headers"].split(", ")
            assert {"Authorization", "Last-Event-ID"} <= set(names)
            assert ("POST" in response.headers["Access-Control-Allow-Methods"]) is publishes
        site.sse.publisher(by_header)
    response = site.client.options("/events/a")
    assert (response.status_code, response.headers["Allow"]) == (200, "GET, HEAD, OPTIONS, POST")


def test_cors_headers_of_a_views_stream_can_be_replaced_by_the_view() -> None:
    site = Site(SSE_CORS_ORIGINS=[LISTED])
    custom: dict[str, str] = {}

    @site.app.get("/mine")
    def mine() -> Response:
        return SseEmitter().response(headers=custom)

    with site.get("/mine", Origin=LISTED) as response:
        assert response.headers["Access-Control-Allow-Origin"] == LISTED
    custom["Access-Control-Allow-Origin"] = "https://other.example"
    with site.get("/mine", Origin=LISTED) as response:
        assert response.headers.getlist("Access-Control-Allow-Origin") == ["https://other.example"]
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    "origins",
    [["*", LISTED], ["app.example"], ["https://app.example/"], ["https://a b"], [7], 7, "", ["null"], ["https://*"]],
)
def test_cors_origins_setting_that_is_invalid_is_rejected(origins: Any) -> None:
    with pytest.raises(ValueError, match="SSE_CORS_ORIGINS must be"):
        Site(SSE_CORS_ORIGINS=origins)


def test_cors_treats_http_and_https_as_different_origins() -> None:
    client = Site(lambda _: True).app.test_client()
    for origin, status in (("http://localhost", 403), ("https://localhost", 200)):
        with client.get("/events/a", base_url="https://localhost", headers={"Origin": origin}) as response:
            assert response.status_code == status


# publishing over HTTP


@pytest.fixture
def press() -> Site:
    """A site where a client with the token may publish to channels that begin with "open"."""
    site = Site(lambda _: True)

    @site.sse.publisher
    def may_publish(channel: str) -> bool:
        return channel.startswith("open") and request.headers.get("Authorization") == "Bearer t"

    return site


def send(site: Site, path: str = "/events/open", headers: dict[str, str] | None = None, **options: Any) -> Any:
    return site.client.post(path, headers={"Authorization": "Bearer t", **(headers or {})}, **options)


@pytest.mark.parametrize(
    ("options", "event"),
    [
        ({"json": {"a": 1}}, Event('{"a": 1}')),
        ({"json": "text"}, Event("text")),
        ({"json": 0}, Event("0")),
        ({"data": b"null", "content_type": "application/json"}, Event("null")),
        ({"data": "안녕\nworld".encode(), "content_type": "text/plain"}, Event("안녕\nworld")),
        ({"data": b"", "content_type": "text/plain; charset=UTF-8"}, Event("")),
        ({"json": 1, "query_string": {"event": "created"}}, Event("1", event="created")),
    ],
)
def test_publish_endpoint_publishes_json_and_text(press: Site, options: dict[str, Any], event: Event) -> None:
    with published(press.sse, "open") as events:
        answer = send(press, **options)
    assert answer.status_code == 201
    assert [(each.data, each.event) for each in events] == [(event.data, event.event)]
    assert answer.json == {"id": events[0].id}


def test_publish_endpoint_retry_with_the_same_key_is_published_once(press: Site) -> None:
    with published(press.sse, "open") as events:
        answers = [send(press, json=1, query_string={"key": "k"}).json for _ in range(3)]
    assert (len(events), len({answer["id"] for answer in answers})) == (1, 1)


def test_publish_endpoint_key_is_apart_from_the_apps_keys(press: Site) -> None:
    with published(press.sse, "open") as events:
        theirs = send(press, json="theirs", query_string={"key": "paid-8"}).json["id"]
        assert press.sse.publish("open", "the app's", key="paid-8") != theirs
        assert send(press, json="theirs", query_string={"key": "paid-8"}).json["id"] == theirs
        assert send(press, json="other", query_string={"key": "paid-9"}).json["id"] != theirs
    assert [event.data for event in events] == ["theirs", "the app's", "other"]


@pytest.mark.parametrize("rule", [by_header, lambda _: Grant(request.headers["User"])], ids=["str", "Grant"])
def test_publish_endpoint_key_belongs_to_the_publishing_identity(rule: Rule) -> None:
    site = Site(lambda _: True)
    site.sse.publisher(rule)
    with published(site.sse, "a") as events:
        for user in ("one", "two", "one", "two"):
            answer = site.client.post("/events/a?key=1", json=user, headers={"User": user})
            assert answer.status_code == 201
    assert [event.data for event in events] == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": 1, "path": "/events/closed"}, 403),
        ({"json": 1, "headers": {"Authorization": "Bearer x"}}, 403),
        ({"json": 1, "headers": {"Origin": FOREIGN}}, 403),
        ({"json": 1, "path": "/events/a b"}, 400),
        ({"json": 1, "path": "/events/~"}, 400),
        ({"json": 1, "path": "/events/~ann"}, 400),
        ({"json": 1, "path": "/events"}, 405),
        ({"data": b"x"}, 415),
        ({"data": {"a": "b"}}, 415),
        ({"data": "é".encode("latin-1"), "content_type": "text/plain; charset=latin-1"}, 415),
        ({"data": b"\xff", "content_type": "text/plain"}, 400),
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b"NaN", "content_type": "application/json"}, 400),
        ({"data": b"", "content_type": "application/json"}, 400),
        ({"data": b"[1e999]", "content_type": "application/json"}, 400),
        ({"data": b"[" * 100_000, "content_type": "application/json"}, 400),
        ({"data": b"1" * 5000, "content_type": "application/json"}, 400),
        ({"json": 1, "query_string": {"event": "a\nb"}}, 400),
        ({"json": 1, "query_string": {"event": "gap"}}, 400),
        ({"json": 1, "query_string": {"event": "open"}}, 400),
        ({"json": 1, "query_string": {"event": "error"}}, 400),
        ({"json": 1, "query_string": {"retry": "0"}}, 400),
        ({"json": 1, "query_string": {"retry": "3000"}}, 400),
        ({"json": 1, "query_string": {"retry": ""}}, 400),
        ({"json": 1, "query_string": {"key": ""}}, 400),
        ({"json": 1, "headers": {"Transfer-Encoding": "chunked"}}, 411),
        ({"data": b"x" * 1_048_577, "content_type": "text/plain"}, 413),
        ({"data": b"\n" * 1_000_000, "content_type": "text/plain"}, 400),
    ],
    ids=str,
)
def test_publish_endpoint_rejects_invalid_requests_without_publishing(
    press: Site, options: dict[str, Any], status: int
) -> None:
    with published(press.sse, "open", "closed") as events:
        answer = send(press, **options)
    assert (answer.status_code, events) == (status, [])
    assert "Traceback" not in answer.text


def test_publish_endpoint_broker_error_is_not_blamed_on_the_body(press: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise errors.pop()

    errors: list[Exception] = [BrokerUnavailable("away"), ValueError("the broker is odd")]
    monkeypatch.setattr(press.sse._channels().broker, "publish", fail)
    odd = send(press, json=1)
    assert (odd.status_code, "Content-Type" in odd.text, "JSON" in odd.text) == (500, False, False)
    away = send(press, json=1)
    assert (away.status_code, away.headers["Retry-After"], "with a key" in away.text) == (503, "1", True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"{", "no JSON: Expecting"), (b"NaN", "NaN is no JSON"), (b"\xff", "not UTF-8: invalid start")],
)
def test_publish_endpoint_body_that_cannot_be_parsed_is_a_400_with_the_reason(
    press: Site, body: bytes, expected: str
) -> None:
    answer = send(press, data=body, content_type="application/json")
    assert (answer.status_code, expected in answer.text) == (400, True)


def test_publish_endpoint_with_a_cookie_alone_is_denied_unless_enabled() -> None:
    def by_session(_channel: str) -> bool:
        return "user" in session

    def site_with(register: Callable[[Site], object]) -> Site:
        site = Site(lambda _: True)
        register(site)

        @site.app.post("/login")
        def login() -> str:
            session["user"] = "ann"
            return ""

        site.client.post("/login")
        return site

    site = site_with(lambda site: site.sse.publisher(by_session))
    assert site.client.post("/events/a", json=1).status_code == 403
    assert site.client.post("/events/a", json=1, headers={"Authorization": "Bearer x"}).status_code == 201
    site = site_with(lambda site: site.sse.publisher(cookies=True)(by_session))
    assert site.client.post("/events/a", json=1).status_code == 201
    assert site.client.post("/events/a", json=1, headers={"Origin": FOREIGN}).status_code == 403
    for value, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 201), ("none", 201)):
        assert site.client.post("/events/a", json=1, headers={"Sec-Fetch-Site": value}).status_code == status


def test_denial_log_names_no_origin_that_was_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    Site(lambda _: True).get("/events/a", **{"Sec-Fetch-Site": "cross-site"})
    assert "a page of another site has opened this" in caplog.text


def test_publish_endpoint_denies_foreign_pages_though_every_page_may_read() -> None:
    site = Site(lambda _: True, SSE_CORS_ORIGINS="*")
    site.sse.publisher(lambda _: True)
    headers = {"Authorization": "Basic YTpi", "Origin": FOREIGN}
    options: dict[str, Any] = {"data": "x", "content_type": "text/plain", "headers": headers}
    assert site.client.post("/events/a", **options).status_code == 403
    headers["Origin"] = "http://localhost"
    assert site.client.post("/events/a", **options).status_code == 201


def test_publisher_rule_can_read_the_body() -> None:
    site = Site()
    site.sse.publisher(lambda _: request.get_json()["from"] == "ann")
    assert [site.client.post("/events/a", json={"from": user}).status_code for user in ("ann", "bob")] == [201, 403]


def test_publish_endpoint_respects_max_content_length() -> None:
    site = Site(MAX_CONTENT_LENGTH=10)
    site.sse.publisher(lambda _: True)
    assert site.client.post("/events/a", json="x" * 50).status_code == 413


def test_publish_endpoint_without_a_rule_is_a_405() -> None:
    site = Site(lambda _: True)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert site.client.open("/events/a", method=method, json=1).status_code == 405
    assert "POST" not in site.client.post("/events/a").headers["Allow"]


def test_disconnect_without_an_app_or_arguments_is_an_error() -> None:
    with pytest.raises(NotInitialized):
        SSE().disconnect("ann")
    with pytest.raises(TypeError, match="an identity, a channel, or both"):
        Site().sse.disconnect()
