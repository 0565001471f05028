"""The monitor, without a browser: who may see it, what it is told, and that nothing runs while nobody watches."""

from __future__ import annotations

import json
import logging
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Barrier
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, abort
from flask.testing import FlaskClient

from flask_sse_emitters import SSE, AccessDenied, BrokerUnavailable, CloseReason, Event
from flask_sse_emitters.brokers.event_ids import Position
from flask_sse_emitters.brokers.event_log import with_id
from flask_sse_emitters.runtime.scheduler import FIGURES, RULES, SCHEDULER
from flask_sse_emitters.testing import OpenStream, open_stream, published
from flask_sse_emitters.tools.monitor.clients import MonitorClients
from flask_sse_emitters.tools.monitor.publisher import MonitorPublisher
from flask_sse_emitters.tools.monitor.remote import FETCH_SECONDS, RemoteProcesses
from flask_sse_emitters.tools.monitor.report import CHANNELS_SHOWN, Rates, make_report
from flask_sse_emitters.tools.monitor.sample import BYTES_SHOWN, EVENTS_SHOWN, ChannelSample
from flask_sse_emitters.wire.frame import Frame, make_frame

from .client import Client, connected, new_name, post
from .clock import ManualScheduler
from .redis_server import RedisServer
from .servers import Server
from .waiting import PATIENCE, until

MONITOR = "/sse-monitor"
TEST_EVENT = {"channel": "orders", "event": "created", "text": "hello", "is_json": False}

#: Every endpoint.
REQUESTS = [("GET", "/"), ("GET", ""), ("GET", "/stream"), ("GET", "/static/monitor.js"), ("POST", "/publish")]


def make_app(**config: Any) -> tuple[Flask, SSE]:
    app = Flask(__name__)
    app.config.update(config)
    sse = SSE(app)
    sse.authorizer(lambda _channel: True)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    app.register_blueprint(sse.monitor)
    return app, sse


def open_app(**config: Any) -> tuple[Flask, SSE]:
    """Whose monitor anybody may see."""
    app, sse = make_app(**config)
    sse.monitor_access(lambda: True)
    return app, sse


def publisher_of(app: Flask) -> MonitorPublisher:
    publisher: MonitorPublisher = app.extensions["sse_emitters.monitor"]
    return publisher


def statuses(client: FlaskClient, headers: dict[str, str] | None = None) -> set[int]:
    """Of the answers of every endpoint."""
    found = set()
    for method, path in REQUESTS:
        body = TEST_EVENT if method == "POST" else None
        with client.open(f"{MONITOR}{path}", method=method, json=body, headers=headers) as response:
            found.add(response.status_code)
    return found


def await_event(stream: OpenStream, name: str, wanted: Callable[[Any], bool] = lambda _data: True) -> Any:
    """The data of the first event of this name that is as wanted."""
    found: list[Any] = []

    def look() -> bool:
        events = [json.loads(event.data) for event in stream.ready() if event.event == name]
        found.extend(data for data in events if wanted(data))
        return bool(found)

    until(look, f"an event {name!r}")
    return found[0]


# Who may see it


def test_every_endpoint_is_closed_while_nobody_has_opened_it(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app()
    with caplog.at_level(logging.DEBUG, "flask_sse_emitters"):
        assert statuses(app.test_client()) == {403}
        with app.test_client().get(f"{MONITOR}/") as response:
            assert response.get_data(as_text=True) == "Forbidden\n"
    said = [record.levelname for record in caplog.records if "@sse.monitor_access" in record.getMessage()]
    assert said.count("WARNING") == 1
    assert said.count("DEBUG") == len(REQUESTS) + 1


def test_debug_mode_opens_every_endpoint() -> None:
    app, _ = make_app()
    app.debug = True
    assert statuses(app.test_client()) == {200, 201, 308}


@pytest.mark.parametrize(
    "host", ["localhost:5000", "LOCALHOST", "shop.localhost", "127.0.0.1", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"]
)
def test_debug_mode_opens_it_under_every_name_of_this_machine(host: str) -> None:
    app, _ = make_app()
    app.debug = True
    assert statuses(app.test_client(), {"Host": host, "Origin": f"http://{host}"}) == {200, 201, 308}


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "rebound.example:5000",
        "localhost.rebound.example",
        "notlocalhost",
        "127.0.0.1.rebound.example",
        "128.0.0.1",
        "192.168.1.7:5000",
        "[::2]",
        "",
    ],
)
def test_debug_mode_opens_it_under_no_name_that_another_site_could_point_here(host: str) -> None:
    app, sse = make_app()
    app.debug = True
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}  # as a page from there sends
    with published(sse, "orders") as events:
        assert statuses(app.test_client(), headers) == {403}
    assert events == []
    with app.test_client().get(f"{MONITOR}/", headers=headers) as response:
        assert "@sse.monitor_access" in response.get_data(as_text=True)
    sse.monitor_access(lambda: True)
    assert statuses(app.test_client(), headers) == {200, 201, 308}, "where there is a rule, it decides"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_debug_mode_opens_it_to_loopback_addresses(address: str) -> None:
    app, _ = make_app()
    app.debug = True
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = address
    assert statuses(client) == {200, 201, 308}


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("192.168.1.7", {}),
        ("172.17.0.1", {}),
        ("::ffff:192.168.1.7", {}),
        ("fe80::1%eth0", {}),
        ("", {}),
        ("unix:", {}),
        ("127.0.0.1", {"X-Forwarded-For": "192.168.1.7"}),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", {"Forwarded": "for=192.168.1.7"}),
        ("127.0.0.1", {"X-Forwarded-Host": "localhost"}),
        ("127.0.0.1", {"X-Real-IP": "192.168.1.7"}),
        ("127.0.0.1", {"Via": "1.1 proxy"}),
        ("127.0.0.1", {"X-Forwarded-Proto": "https"}),
    ],
)
def test_debug_mode_opens_it_to_nobody_on_another_machine(address: str, headers: dict[str, str]) -> None:
    app, sse = make_app()
    app.debug = True
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = address
    with published(sse, "orders", "~bob") as events:
        assert statuses(client, {"Host": "localhost", **headers}) == {403}
    assert events == []
    with client.get(f"{MONITOR}/", headers=headers) as response:
        assert "@sse.monitor_access" in response.get_data(as_text=True)
    sse.monitor_access(lambda: True)
    assert statuses(client, headers) == {200, 201, 308}, "where there is a rule, it decides"


def test_debug_mode_opens_it_to_no_proxy_that_says_nothing_in_http_1_0() -> None:
    """As nginx's ``proxy_pass http://localhost:5000;`` does, if nothing else is said."""
    app, sse = make_app()
    app.debug = True
    serve: Any = app.wsgi_app
    as_proxy: Any = lambda environ, start: serve({**environ, "SERVER_PROTOCOL": "HTTP/1.0"}, start)  # noqa: E731
    app.wsgi_app = as_proxy  # type: ignore[method-assign]
    assert statuses(app.test_client()) == {403}
    sse.monitor_access(lambda: True)
    assert statuses(app.test_client()) == {200, 201, 308}, "where there is a rule, it decides"


def test_a_rule_opens_every_endpoint_and_closes_it_again() -> None:
    app, sse = make_app()
    answers = [True]
    sse.monitor_access(lambda: answers[0])
    assert statuses(app.test_client()) == {200, 201, 308}
    answers[0] = False
    assert statuses(app.test_client()) == {403}
    app.debug = True
    assert statuses(app.test_client()) == {403}, "where there is a rule, it decides"


def fail() -> bool:
    raise ZeroDivisionError("the database is away")


def deny() -> bool:
    raise AccessDenied("who are you?", challenge="Basic")


def not_found() -> bool:
    abort(404)


@pytest.mark.parametrize(
    ("rule", "status", "reason"),
    [
        (fail, 403, "ZeroDivisionError('the database is away')"),
        (not_found, 403, "404 Not Found"),
        (deny, 401, "who are you?"),
        (lambda: None, 403, "returned None"),
        (lambda: "yes", 403, "returned 'yes'"),
        (lambda: 1, 403, "returned 1"),
    ],
)
def test_a_rule_that_does_not_say_true_denies_and_says_why_in_debug_mode_alone(
    rule: Callable[[], Any], status: int, reason: str
) -> None:
    app, sse = make_app()
    sse.monitor_access(rule)
    for debug in (False, True):
        app.debug = debug
        with app.test_client().get(f"{MONITOR}/") as response:
            assert response.status_code == status
            assert response.content_type.startswith("text/plain")
            assert (reason in response.get_data(as_text=True)) is debug
            assert response.headers.get("WWW-Authenticate") == ("Basic" if status == 401 else None)


def test_what_cannot_be_a_rule_is_refused() -> None:
    _, sse = make_app()

    async def rule() -> bool:
        return True

    with pytest.raises(TypeError, match="monitor_access"):
        sse.monitor_access(rule)  # type: ignore[type-var]
    sse.monitor_access(fail)
    with pytest.raises(RuntimeError, match="already"):
        sse.monitor_access(deny)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "https://listed.example", "null"])
def test_pages_of_other_sites_get_nothing_also_those_that_may_read_channels(origin: str) -> None:
    app, sse = open_app(SSE_CORS_ORIGINS=["https://listed.example"])
    with published(sse, "orders") as events:
        assert statuses(app.test_client(), {"Origin": origin}) == {403}
    assert events == []
    assert statuses(app.test_client(), {"Origin": "http://localhost"}) == {200, 201, 308}


def test_a_link_of_another_site_leads_to_the_page_and_to_nothing_else() -> None:
    app, _ = open_app()
    client = app.test_client()
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    def status(method: str, path: str, **changed: str) -> int:
        headers = {**link, **changed}
        with client.open(f"{MONITOR}{path}", method=method, json=TEST_EVENT, headers=headers) as response:
            return response.status_code

    assert [status(*request) for request in REQUESTS] == [200, 308, 403, 403, 403]
    assert status("GET", "/", **{"Sec-Fetch-Dest": "iframe"}) == 403
    assert status("GET", "/", **{"Sec-Fetch-Mode": "no-cors"}) == 403
    assert status("GET", "/", Origin="null") == 403
    assert status("GET", "/stream", **{"Sec-Fetch-Site": "none"}) == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""])
def test_what_a_form_of_another_site_could_send_is_not_published(kind: str) -> None:
    app, sse = open_app()
    with published(sse, "orders") as events:
        response = app.test_client().post(f"{MONITOR}/publish", data=json.dumps(TEST_EVENT), content_type=kind)
    assert response.status_code == 415
    assert events == []


def test_a_preflight_allows_other_sites_nothing() -> None:
    app, _ = open_app(SSE_CORS_ORIGINS=["https://listed.example"])
    headers = {"Origin": "https://listed.example", "Access-Control-Request-Method": "POST"}
    response = app.test_client().options(f"{MONITOR}/publish", headers=headers)
    assert response.status_code == 403


def test_the_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody() -> None:
    app, _ = open_app()
    with app.test_client().get(f"{MONITOR}/") as response:
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store"
        assert "<style" not in response.get_data(as_text=True)
        assert " style=" not in response.get_data(as_text=True)


def test_the_page_without_its_slash_sends_to_it_behind_any_prefix() -> None:
    app, _ = open_app()
    response = app.test_client().get(MONITOR, base_url="http://localhost/some/prefix")
    assert (response.status_code, response.headers["Location"]) == (308, "sse-monitor/")


# What it is told


def test_it_tells_of_clients_and_what_they_got_and_leaves_itself_out() -> None:
    app, sse = open_app()
    with ExitStack() as stack:
        first = stack.enter_context(open_stream(app.test_client(), "/events?channel=orders&identity=ann"))
        stack.enter_context(open_stream(app.test_client(), "/events?channel=orders&channel=news"))
        for number in range(3):
            sse.publish("orders", number)
        assert len(first.ready()) == 3
        monitor = stack.enter_context(open_stream(app.test_client(), f"{MONITOR}/stream"))
        other = stack.enter_context(open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders"))
        until(lambda: other.ready(), "the other monitor to be served")
        told = await_event(monitor, "figures", lambda figures: figures["monitors"] == 2)
    assert told["point"]["clients"] == 2
    assert told["totals"]["opened"] == 2
    assert told["totals"]["published"] == told["totals"]["confirmed"] == 3
    assert [(each["name"], each["clients"], each["events"]) for each in told["channels"]] == [
        ("orders", 2, 3),
        ("news", 1, 0),
    ]
    assert told["broker"] == {"scheme": "memory", "state": "ok"}
    assert (told["is_shared"], told["sees_all"]) == (False, True)
    assert [process["clients"] for process in told["processes"]] == [2]
    until(lambda: not sse.stats()["clients"], "the clients to have left")
    assert sum(sse.stats()["closed"].values()) == 2, "monitors' own ends are no news"


def test_it_tells_of_every_kind_of_end() -> None:
    app, sse = open_app(SSE_MAX_CLIENTS=1)
    channel = sse.channel("orders")
    with app.test_request_context():
        ended = channel.subscribe()
        ended.complete()
        with ended.response() as response:
            b"".join(response.iter_encoded())
    with open_stream(app.test_client(), "/events?channel=orders"):
        app.test_client().get("/events?channel=orders").close()  # one too many
        with open_stream(app.test_client(), f"{MONITOR}/stream") as monitor:
            told = await_event(monitor, "figures", lambda figures: figures["totals"]["refused"] == 1)
    assert set(told["ends"]) == {reason.name for reason in CloseReason}
    assert told["ends"]["COMPLETED"] == 1
    assert told["point"]["clients"] == 1, "the monitor counts for no limit"


def test_whoever_comes_later_gets_what_was_before() -> None:
    app, _ = open_app()
    with open_stream(app.test_client(), f"{MONITOR}/stream") as first:
        point = await_event(first, "figures")["point"]
        with open_stream(app.test_client(), f"{MONITOR}/stream") as second:
            assert await_event(second, "points")[0] == point


def test_a_channels_events_are_shown_with_what_is_kept_of_it() -> None:
    app, sse = open_app()
    before = sse.publish("orders", {"id": 7}, event="created")
    with open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders") as monitor:
        [kept] = await_event(monitor, "kept")["events"]
        after = sse.publish("orders", "two\nlines")
        [come] = await_event(monitor, "events")["events"]
        assert sse.stats()["channels"] == {}, "a monitor is no client of the channel"
    assert (kept["id"], kept["event"], json.loads(kept["data"])) == (before, "created", {"id": 7})
    assert (come["id"], come["event"], come["data"]) == (after, "message", "two\nlines")


def test_no_name_of_a_channel_is_a_400() -> None:
    app, _ = open_app()
    with app.test_client().get(f"{MONITOR}/stream?channel=two%20words") as response:
        assert response.status_code == 400


def test_the_limits_of_the_apps_own_events_do_not_hold_for_the_monitor() -> None:
    app, sse = open_app(SSE_MAX_EVENT_BYTES=100, SSE_MAX_PENDING=1, SSE_MAX_PENDING_BYTES=100)
    sse.publish("orders", "x")
    with open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders") as monitor:
        events = until(lambda: [each for each in monitor.ready() if each.event == "figures"], "figures")
    assert len(events[0].data) > 100


def test_the_end_of_the_apps_streams_ends_those_of_monitors() -> None:
    app, sse = open_app(SSE_DRAIN_SECONDS=1)
    with open_stream(app.test_client(), f"{MONITOR}/stream") as monitor:
        await_event(monitor, "figures")
        sse.shutdown()
        until(lambda: not publisher_of(app).monitors, "the end of the monitor")
        monitor.ready()
    assert publisher_of(app).streams.closed == {CloseReason.SHUTDOWN.value: 1}


# Nothing runs while nobody watches


@contextmanager
def watching(publisher: MonitorPublisher, channel: str | None = None) -> Iterator[Response]:
    with publisher._state.app.test_request_context():
        response = publisher.open_stream(channel)
    body = response.iter_encoded()
    next(body)
    yield response
    response.close()


def test_one_timer_feeds_any_number_of_monitors_and_none_runs_when_they_have_left(scheduler: ManualScheduler) -> None:
    _, sse = open_app()
    publisher = MonitorPublisher(sse.find_state(), scheduler)
    assert (scheduler.live_timers(), scheduler.jobs) == ([], [])
    with watching(publisher), watching(publisher), watching(publisher):
        for _ in range(3):
            assert len(scheduler.jobs) == 1
            scheduler.run_jobs()
            assert len(scheduler.live_timers()) == 1
            scheduler.pass_time(1)
        assert publisher.is_ticking
        scheduler.run_jobs()
    scheduler.pass_time(1)
    assert not publisher.is_ticking
    assert (scheduler.live_timers(), scheduler.jobs) == ([], [])
    with watching(publisher):
        assert len(scheduler.jobs) == 1, "it begins again with who comes next"


def test_a_beat_that_fails_is_not_the_last(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    publisher = MonitorPublisher(sse.find_state(), scheduler)
    with watching(publisher):
        with monkeypatch.context() as patched:
            patched.setattr(publisher._state, "stats", fail)
            with pytest.raises(ZeroDivisionError):
                scheduler.run_jobs()
        scheduler.pass_time(1)
        scheduler.run_jobs()
        assert len(publisher._points) == 1


def test_other_processes_are_asked_now_and_then_and_grow_older_in_between(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    asked: list[float] = []

    def processes() -> list[dict[str, Any]]:
        asked.append(scheduler.now)
        return [process("there", 2, age=0.5)]

    monkeypatch.setattr(sse._channels().broker, "processes", processes)
    publisher = MonitorPublisher(sse.find_state(), scheduler)
    ages = []
    with watching(publisher):
        for _ in range(2 * int(FETCH_SECONDS)):
            scheduler.run_jobs()
            ages.append([each["age"] for each in publisher._report()["processes"]])
            scheduler.pass_time(1)
    assert asked == [1000.0, 1000.0 + FETCH_SECONDS]
    assert ages == [[0.0, 0.5], [0.0, 1.5], [0.0, 2.5], [0.0, 3.5]] * 2


def test_others_are_asked_again_as_soon_as_the_broker_is_back(scheduler: ManualScheduler) -> None:
    _, sse = open_app()
    others = RemoteProcesses(sse._channels().broker, scheduler.clock)
    assert others.fetch(is_broker_up=True) == []
    assert others.fetch(is_broker_up=False) is None
    others._broker.processes = lambda: [process("there", 2)]  # type: ignore[method-assign]
    assert [each["id"] for each in others.fetch(is_broker_up=True) or ()] == ["there"]


def test_a_broker_that_fails_to_tell_of_others_leaves_this_process_and_is_logged_once(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, sse = open_app()
    monkeypatch.setattr(sse._channels().broker, "processes", fail)
    publisher = MonitorPublisher(sse.find_state(), scheduler)
    with watching(publisher):
        for _ in range(10):
            scheduler.run_jobs()
            scheduler.pass_time(1)
    assert len(publisher._points) == 10
    report = publisher._report()
    assert not report["sees_all"]
    assert [each["id"] for each in report["processes"]] == ["here"]
    assert [record.levelname for record in caplog.records if "sees this process alone" in record.message] == ["ERROR"]


@pytest.mark.parametrize(
    "wrong", [None, "many", -1, float("nan"), pytest.param(10**400, id="huge"), [1], {"a": None, "b": "c"}, [{}]]
)
def test_what_another_version_says_otherwise_is_left_out(
    wrong: Any, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    there = {**dict.fromkeys([*sse.stats(), *process("", 0)], wrong), "id": "there", "channels": {"orders": 2}}
    found = [there, {"id": 7}, wrong, {"pid": 5}, process("beyond", 3, closed={"timeout": 1, "error": wrong})]
    monkeypatch.setattr(sse._channels().broker, "processes", lambda: found)
    report = MonitorPublisher(sse.find_state(), scheduler)._report()
    assert [each["id"] for each in report["processes"]] == ["here", "there", "beyond"]
    assert report["sees_all"]
    assert report["point"]["clients"] == 3
    assert (report["ends"]["TIMEOUT"], report["ends"]["ERROR"]) == (1, 0)
    assert [(each["name"], each["clients"]) for each in report["channels"]] == [("orders", 2)]
    json.dumps(report, allow_nan=False)


def test_a_clock_that_is_set_back_stops_no_figure(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    publisher = MonitorPublisher(sse.find_state(), scheduler)
    drift = 0.0
    clock = SimpleNamespace(time=lambda: 1e9 + scheduler.now + drift)
    monkeypatch.setattr("flask_sse_emitters.tools.monitor.publisher.time", clock)
    with watching(publisher):
        for second in range(6):
            drift = -3600.0 if second > 2 else 0.0
            scheduler.run_jobs()
            for _ in range(second):
                sse.publish("orders", "x")
            scheduler.pass_time(1)
    assert [point["published"] for point in publisher._points] == [0, 0, 1, 2, 3, 4]


def test_a_monitor_whose_channel_cannot_be_listened_to_leaves_nothing_behind(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    publisher = MonitorPublisher(sse.find_state(), scheduler)
    with monkeypatch.context() as patched:
        patched.setattr(sse._channels().broker, "subscribe", lambda *_: fail())
        with pytest.raises(ZeroDivisionError), watching(publisher, "orders"):
            pass
    assert (publisher.samples, len(publisher.streams), len(publisher.monitors), publisher.is_ticking) == (
        {},
        0,
        0,
        False,
    )
    with watching(publisher, "orders"):
        assert publisher.samples["orders"].users == 1


def test_a_beat_that_waits_for_the_broker_holds_up_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    waits, goes_on = Flag(), Flag()

    def processes() -> list[dict[str, Any]]:
        waits.set()
        goes_on.wait()
        return []

    monkeypatch.setattr(sse._channels().broker, "processes", processes)
    both = Barrier(3)
    with watching(MonitorPublisher(sse.find_state())):
        try:
            assert waits.wait(PATIENCE)
            for _ in range(2):
                SCHEDULER.run(lambda: both.wait(PATIENCE), RULES)
            both.wait(PATIENCE)  # which breaks where one of the two rules waits, too
        finally:
            goes_on.set()


def test_events_come_in_order_however_long_it_takes_to_show_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    sample = ChannelSample("orders", sse._channels().broker)
    told: list[str] = []
    shows, goes_on = Flag(), Flag()

    def show(_list: MonitorClients, name: str, data: Any) -> None:
        if name == "events" and not shows.is_set():
            shows.set()
            goes_on.wait(PATIENCE)
        told.extend(event["data"] for event in data["events"])

    monkeypatch.setattr(MonitorClients, "send_json", show)
    sample.open()
    try:
        sse.publish("orders", "first")
        assert shows.wait(PATIENCE)
        sse.publish("orders", "second")
        until(lambda: told or SCHEDULER._pools[FIGURES]._jobs, "the second to be told, or to wait")
    finally:
        goes_on.set()
    until(lambda: len(told) == 2, "both")
    sample.close()
    assert told == ["first", "second"]


def test_a_broker_that_is_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    publisher = MonitorPublisher(sse.find_state())
    broker = sse._channels().broker
    monkeypatch.setattr(broker, "status", lambda: {"state": "degraded", "error": "away"})
    monkeypatch.setattr(broker, "processes", fail)
    assert not publisher._report()["sees_all"]


def test_nobody_listens_to_a_channel_when_its_last_monitor_has_left() -> None:
    app, sse = open_app()
    listeners = sse._channels().broker._records  # type: ignore[attr-defined]
    path = f"{MONITOR}/stream?channel=orders"
    with open_stream(app.test_client(), path) as first:
        await_event(first, "kept")
        with open_stream(app.test_client(), path) as second:
            await_event(second, "kept")
            assert len(listeners["orders"]._listeners) == 1, "one for all of them"
            assert publisher_of(app).samples["orders"].users == 2
        until(lambda: publisher_of(app).samples["orders"].users == 1, "one monitor to have left")
        assert len(listeners["orders"]._listeners) == 1
    until(lambda: not publisher_of(app).samples, "the sample to be closed")
    until(lambda: "orders" not in listeners, "the broker to have forgotten it")


def test_a_flood_is_gathered_and_a_large_event_cut(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    sample = ChannelSample("orders", sse._channels().broker, scheduler)
    told: list[Event] = []
    monkeypatch.setattr(MonitorClients, "send_json", lambda _list, name, data: told.append(Event(data, event=name)))
    sample.open()
    ids = [sse.publish("orders", number) for number in range(EVENTS_SHOWN + 150)]
    sse.publish("orders", "€" * 10_000)
    assert len(scheduler.live_timers()) == 1
    scheduler.pass_time(1)
    scheduler.run_jobs()
    sample.close()
    kept, events = [event.data for event in told]
    assert kept == {"channel": "orders", "events": []}
    assert events["skipped"] == 151
    assert [event["id"] for event in events["events"][:-1]] == ids[-EVENTS_SHOWN + 1 :]
    large = events["events"][-1]
    assert large["is_cut"]
    assert large["size"] > 30_000
    assert BYTES_SHOWN / 4 < len(large["data"]) < BYTES_SHOWN
    assert scheduler.live_timers() == []


def shown(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch, *payloads: bytes | Event) -> list[Any]:
    """What a sample makes of these, written to the broker as they are."""
    _, sse = open_app()
    told: list[Any] = []
    monkeypatch.setattr(
        MonitorClients, "send_json", lambda _list, name, data: told.append(data) if name == "events" else None
    )
    sample = ChannelSample("orders", sse._channels().broker, scheduler)
    sample.open()
    for offset, each in enumerate(payloads, 1):
        frame = Frame(each, "message") if isinstance(each, bytes) else make_frame(each, json.dumps, 100_000)
        sample.arrived([with_id(frame, Position("epoch", offset), 0.0)])
    scheduler.pass_time(1)
    scheduler.run_jobs()
    sample.close()
    [only] = told
    assert only["skipped"] == 0
    events: list[Any] = only["events"]
    assert [event["id"] for event in events] == [f"epoch-{offset}" for offset in range(1, len(payloads) + 1)]
    return events


@pytest.mark.parametrize(
    ("foreign", "text"),
    [
        (b"data: one\n\ndata: two\n\n", "one"),
        (b"data: one\n\n\n\nevent: x\ndata\n\n", "one"),
        (b"nothing: of this\n\n", ""),
        (b"\xff\0\r\n", ""),
        (b"data: cut", "cut"),
        (b"", ""),
    ],
)
def test_what_somebody_else_has_written_into_the_broker_costs_no_event_of_ours(
    foreign: bytes, text: str, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = shown(scheduler, monkeypatch, Event("before"), foreign, Event("after"))
    assert [event["data"] for event in events] == ["before", text, "after"]


@pytest.mark.parametrize("more", range(4))
@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_a_large_event_is_cut_between_characters(
    character: str, more: int, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = shown(scheduler, monkeypatch, Event("x" * more + character * 5000))
    assert event["is_cut"]
    assert set(event["data"]) <= {"x", character}
    assert BYTES_SHOWN - 30 < len(event["data"].encode()) <= BYTES_SHOWN


def test_an_event_whose_data_come_after_all_that_is_shown_is_cut_and_not_lost(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = shown(scheduler, monkeypatch, Event("hello", event="greeting", comment="c" * BYTES_SHOWN))
    assert (event["event"], event["data"], event["is_cut"]) == ("greeting", "", True)


# Publishing


def test_a_test_event_is_published_as_text_or_as_json() -> None:
    app, sse = open_app()
    client = app.test_client()
    with published(sse, "orders", "~ann") as events:
        answers = [
            client.post(f"{MONITOR}/publish", json=TEST_EVENT),
            client.post(f"{MONITOR}/publish", json={**TEST_EVENT, "event": "", "text": "[1, 2]", "is_json": True}),
            client.post(f"{MONITOR}/publish", json={**TEST_EVENT, "channel": "~ann", "text": "null", "is_json": True}),
        ]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert [event.id for event in events] == [answer.json["id"] for answer in answers if answer.json]
    assert [(event.event, event.data) for event in events] == [
        ("created", "hello"),
        (None, "[1, 2]"),
        ("created", "null"),
    ]


def test_the_answer_to_a_test_event_says_how_many_clients_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sse = open_app()
    client = app.test_client()
    found = []
    with open_stream(app.test_client(), "/events?channel=orders"):
        found.append(client.post(f"{MONITOR}/publish", json=TEST_EVENT).json)
    found.append(client.post(f"{MONITOR}/publish", json={**TEST_EVENT, "channel": "unread"}).json)

    def away(_channel: str) -> int:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(sse._channels().broker, "clients_elsewhere", away)
    found.append(client.post(f"{MONITOR}/publish", json=TEST_EVENT).json)
    assert [answer and answer["clients"] for answer in found] == [1, 0, None]


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"channel": "two words"}, 400, "ASCII letters"),
        ({"channel": ""}, 400, "ASCII letters"),
        ({"channel": 7}, 400, "each a text"),
        ({"text": None}, 400, "each a text"),
        ({"event": "two\nlines"}, 400, "event"),
        ({"event": "gap"}, 400, "take another one"),
        ({"event": "open"}, 400, "must not be named 'open'"),
        ({"event": "error"}, 400, "must not be named 'error'"),
        ({"text": "{", "is_json": True}, 400, "no JSON"),
        ({"text": "[" * 100_000, "is_json": True}, 400, "no JSON"),
        ({"text": "x" * 3000}, 400, "SSE_MAX_EVENT_BYTES"),
        ({"text": "x" * 300_000}, 413, "SSE_MAX_EVENT_BYTES"),
    ],
)
def test_what_cannot_be_published_is_refused_with_what_is_wrong(
    changed: dict[str, Any], status: int, error: str
) -> None:
    app, sse = open_app(SSE_MAX_EVENT_BYTES=2000 if "x" in str(changed.get("text")) else 1_000_000)
    with published(sse, "orders") as events:
        response = app.test_client().post(f"{MONITOR}/publish", json={**TEST_EVENT, **changed})
    assert response.status_code == status
    assert response.json is not None
    assert error in response.json["error"]
    assert events == []


def test_a_brokers_error_is_not_blamed_on_the_text_of_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sse = open_app()
    errors: list[Exception] = [BrokerUnavailable("no answer"), ValueError("the broker is odd")]

    def fail(*_args: object) -> None:
        raise errors.pop()

    monkeypatch.setattr(sse._channels().broker, "publish", fail)
    form = {**TEST_EVENT, "text": "1", "is_json": True}
    odd = app.test_client().post(f"{MONITOR}/publish", json=form)
    assert (odd.status_code, "JSON" in odd.text) == (500, False)
    away = app.test_client().post(f"{MONITOR}/publish", json=form)
    assert (away.status_code, away.json) == (503, {"error": "It may have been published or not: no answer"})


@pytest.mark.parametrize("body", [b"[" * 200_000, b"{", b"\xff", b"NaN", b"null", b"[]", b""])
def test_a_body_that_is_no_object_of_json_is_refused(body: bytes) -> None:
    app, _ = open_app()
    response = app.test_client().post(f"{MONITOR}/publish", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json == {"error": "Send channel, event and text, each a text."}


# Figures


def test_rates_are_of_what_was_said_last_and_before() -> None:
    rates = Rates()
    assert rates.add("here", 10.0, {"deliveries": 5}) == {}
    assert rates.add("here", 14.0, {"deliveries": 45}) == {"deliveries": 10}
    assert rates.add("here", 14.05, {"deliveries": 45}) == {"deliveries": 10}, "nothing new was said"
    assert rates.add("here", 15.0, {"deliveries": 3}) == {"deliveries": 3}, "it began anew"
    rates.keep_only([])
    assert rates.add("here", 16.0, {"deliveries": 9}) == {}


def test_calm_rates_go_back_as_far_as_said() -> None:
    rates = Rates(10)
    found = [rates.add("here", float(second), {"told": second // 5 * 20}) for second in range(31)]
    assert {each["told"] for each in found[10:]} == {4.0}


def test_a_rate_is_of_the_time_in_which_it_was_counted() -> None:
    rates = Rates(10)
    assert rates.add("here", 10.0, {"a": 5}) == {}
    assert rates.add("here", 11.0, {"a": 6, "b": 1000}) == {"a": 1}, "b may have been counted for long"
    assert rates.add("here", 12.0, {"a": 7, "b": 1003}) == {"a": 1, "b": 3}


def process(name: str, clients: int, **more: Any) -> dict[str, Any]:
    figures = {"clients": clients, "deliveries": 0, "published": 0, "broker": {"state": "ok"}, "channels": {}}
    return {"id": name, "age": 0.0, "events": {}, "slow": [], "closed": {}, **figures, **more}


def test_figures_of_processes_are_added_up() -> None:
    here = process("a", 3, channels={"orders": 2, "news": 1}, events={"orders": 9}, closed={"timeout": 2})
    there = process("b", 4, channels={"orders": 1, "jobs": 5}, closed={"timeout": 1, "error": 1}, warnings=["beware"])
    unread = {"id": "c", "age": 2.0, "channels": {"jobs": 1}}
    report = make_report([here, there, unread], Rates(), Rates(), 1000.0, 10.0)
    assert report["point"]["clients"] == 7
    assert report["ends"]["TIMEOUT"] == 3
    assert report["ends"]["ERROR"] == 1
    assert report["warnings"] == ["beware"]
    assert [(each["name"], each["clients"], each["events"]) for each in report["channels"]] == [
        ("jobs", 6, None),
        ("orders", 3, 9),
        ("news", 1, None),
    ]
    assert [each["id"] for each in report["processes"]] == ["a", "b", "c"]


def test_of_very_many_channels_those_with_most_clients_are_shown() -> None:
    few = {f"few-{number}": 1 for number in range(5 * CHANNELS_SHOWN)}
    many = {f"many-{number}": 2 + number for number in range(CHANNELS_SHOWN - 1)}
    here = process("a", 3, channels={**few, **many}, events=dict.fromkeys([*few, *many], 7))
    there = process("b", 3, channels={"few-400": 1})
    report = make_report([here, there], Rates(), Rates(), 1000.0, 10.0)
    names = [each["name"] for each in report["channels"]]
    assert names[:-2] == list(reversed(many))[:-1]
    assert names[-2:] == ["few-400", "many-0"], "of as many clients, by name"
    assert report["channels_in_all"] == 6 * CHANNELS_SHOWN - 1


# On real servers


def figures(client: Client, wanted: Callable[[Any], bool], what: str) -> Any:
    """The first figures that are as wanted."""
    said: list[Any] = []

    def look() -> bool:
        [event] = client.events(1)
        if event.event == "figures":
            said[:] = [json.loads(event.data)]
        return bool(said) and wanted(said[0])

    until(look, what)
    return said[0]


@contextmanager
def served(kind: str, **env: str) -> Iterator[Server]:
    with Server(kind, "tests.monitor_app:app", env=env) as server:
        yield server
        server.kill()  # an orderly stop takes seconds


def has_come(monitor: Client, name: str) -> bool:
    return name in monitor.events(1)[0].data


def test_processes_that_share_redis_are_seen_and_its_absence_is_told() -> None:
    with RedisServer() as redis, ExitStack() as stack:
        servers = [stack.enter_context(served(kind, SSE_BROKER_URL=redis.url)) for kind in ("gevent", "gthread")]
        for server in servers:
            for _ in range(2):
                stack.enter_context(connected(server, "/events?channel=orders"))
        monitors = [stack.enter_context(connected(server, "/sse-monitor/stream?channel=orders")) for server in servers]

        def sees_all(told: Any) -> bool:
            clients = {channel["name"]: channel["clients"] for channel in told["channels"]}
            return clients == {"orders": 4} and told["point"]["clients"] == 4 and len(told["processes"]) == 2

        for monitor in monitors:
            told = figures(monitor, sees_all, "both processes, without the other's monitor")
            assert told["channels"][0]["name"] == "orders"
            assert told["channels"][0]["clients"] == 4
            assert (told["is_shared"], told["sees_all"], told["monitors"]) == (True, True, 1)
        for monitor, other in zip(monitors, reversed(servers), strict=True):
            name = new_name()
            post(other, "/events-of/orders", name)
            until(partial(has_come, monitor, name), "the event of the other process")
        redis.kill()
        for monitor in monitors:
            told = figures(monitor, lambda told: told["broker"]["state"] == "degraded", "the broker's absence")
            assert told["broker"]["error"]
            assert not told["sees_all"]
            assert [each["clients"] for each in told["processes"]] == [2]
        redis.start()
        for monitor in monitors:
            figures(monitor, lambda told: told["broker"]["state"] == "ok" and told["sees_all"], "the broker's return")


def is_fed(server: Server, monitor: Client) -> None:
    assert monitor.response.headers["Content-Type"].startswith("text/event-stream")
    with connected(server, "/events?channel=orders"):
        figures(monitor, lambda told: told["point"]["clients"] == 1, "the client")
    figures(monitor, lambda told: told["ends"]["DISCONNECTED"] == 1, "the end of the client")


def test_a_monitor_is_fed_by_a_server_of_threads() -> None:
    with served("werkzeug") as server, connected(server, "/sse-monitor/stream") as monitor:
        is_fed(server, monitor)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_a_worker_feeds_monitors_and_ends_their_streams_in_order_when_it_stops(kind: str) -> None:
    with (
        Server(kind, "tests.monitor_app:app", arguments=["--graceful-timeout", "60"]) as server,
        connected(server, "/sse-monitor/stream") as monitor,
    ):
        is_fed(server, monitor)
        server.signal(signal.SIGTERM)
        assert re.search(rb"retry: \d+\n\n\Z", monitor.rest())
        server.kill()
