"""The monitor without a browser: access, figures, samples, and that nothing runs without a monitor."""

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
from flask_sse_emitters.tools.monitor.audience import MonitorClients
from flask_sse_emitters.tools.monitor.feeder import MonitorFeeder
from flask_sse_emitters.tools.monitor.remote import FETCH_SECONDS, RemoteProcesses
from flask_sse_emitters.tools.monitor.report import CHANNELS_SHOWN, Rates, make_report
from flask_sse_emitters.tools.monitor.sample import BYTES_SHOWN, EVENTS_SHOWN, ChannelSample
from flask_sse_emitters.wire.frame import Frame, make_frame
from tests.support.client import Client, connected, new_name, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler

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
    """Make an app whose monitor is public."""
    app, sse = make_app(**config)
    sse.monitor_access(lambda: True)
    return app, sse


def publisher_of(app: Flask) -> MonitorFeeder:
    publisher: MonitorFeeder = app.extensions["sse_emitters.monitor"]
    return publisher


def statuses(client: FlaskClient, headers: dict[str, str] | None = None) -> set[int]:
    """Return the status codes of all endpoints."""
    found = set()
    for method, path in REQUESTS:
        body = TEST_EVENT if method == "POST" else None
        with client.open(f"{MONITOR}{path}", method=method, json=body, headers=headers) as response:
            found.add(response.status_code)
    return found


def await_event(stream: OpenStream, name: str, wanted: Callable[[Any], bool] = lambda _data: True) -> Any:
    """Return the data of the first event with this name that satisfies ``wanted``."""
    found: list[Any] = []

    def look() -> bool:
        events = [json.loads(event.data) for event in stream.ready() if event.event == name]
        found.extend(data for data in events if wanted(data))
        return bool(found)

    until(look, f"an event {name!r}")
    return found[0]


# Access


def test_every_endpoint_is_denied_by_default(caplog: pytest.LogCaptureFixture) -> None:
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
def test_debug_mode_allows_local_host_names(host: str) -> None:
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
def test_debug_mode_denies_host_names_open_to_dns_rebinding(host: str) -> None:
    app, sse = make_app()
    app.debug = True
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}  # as a page from there sends
    with published(sse, "orders") as events:
        assert statuses(app.test_client(), headers) == {403}
    assert events == []
    with app.test_client().get(f"{MONITOR}/", headers=headers) as response:
        assert "@sse.monitor_access" in response.get_data(as_text=True)
    sse.monitor_access(lambda: True)
    assert statuses(app.test_client(), headers) == {200, 201, 308}, "if there is a rule, it decides"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_debug_mode_allows_loopback_addresses(address: str) -> None:
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
def test_debug_mode_denies_remote_addresses_and_proxies(address: str, headers: dict[str, str]) -> None:
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
    assert statuses(client, headers) == {200, 201, 308}, "if there is a rule, it decides"


def test_debug_mode_denies_http_1_0_proxy_without_headers() -> None:
    """As nginx's ``proxy_pass http://localhost:5000;`` sends by default."""
    app, sse = make_app()
    app.debug = True
    serve: Any = app.wsgi_app
    as_proxy: Any = lambda environ, start: serve({**environ, "SERVER_PROTOCOL": "HTTP/1.0"}, start)  # noqa: E731
    app.wsgi_app = as_proxy  # type: ignore[method-assign]
    assert statuses(app.test_client()) == {403}
    sse.monitor_access(lambda: True)
    assert statuses(app.test_client()) == {200, 201, 308}, "if there is a rule, it decides"


def test_access_rule_decides_for_every_endpoint() -> None:
    app, sse = make_app()
    answers = [True]
    sse.monitor_access(lambda: answers[0])
    assert statuses(app.test_client()) == {200, 201, 308}
    answers[0] = False
    assert statuses(app.test_client()) == {403}
    app.debug = True
    assert statuses(app.test_client()) == {403}, "if there is a rule, it decides"


def fail() -> bool:
    raise ZeroDivisionError("the database is away")


def deny() -> bool:
    raise AccessDenied("please log in", challenge="Basic")


def not_found() -> bool:
    abort(404)


@pytest.mark.parametrize(
    ("rule", "status", "reason"),
    [
        (fail, 403, "ZeroDivisionError('the database is away')"),
        (not_found, 403, "404 Not Found"),
        (deny, 401, "please log in"),
        (lambda: None, 403, "returned None"),
        (lambda: "yes", 403, "returned 'yes'"),
        (lambda: 1, 403, "returned 1"),
    ],
)
def test_access_rule_without_true_denies_with_reason_in_debug_mode_only(
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


def test_invalid_or_second_access_rule_raises() -> None:
    _, sse = make_app()

    async def rule() -> bool:
        return True

    with pytest.raises(TypeError, match="monitor_access"):
        sse.monitor_access(rule)  # type: ignore[type-var]
    sse.monitor_access(fail)
    with pytest.raises(RuntimeError, match="already"):
        sse.monitor_access(deny)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "https://listed.example", "null"])
def test_cross_origin_requests_are_denied_even_if_cors_allows_channels(origin: str) -> None:
    app, sse = open_app(SSE_CORS_ORIGINS=["https://listed.example"])
    with published(sse, "orders") as events:
        assert statuses(app.test_client(), {"Origin": origin}) == {403}
    assert events == []
    assert statuses(app.test_client(), {"Origin": "http://localhost"}) == {200, 201, 308}


def test_cross_site_link_opens_page_but_no_other_endpoint() -> None:
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
def test_publish_with_form_content_type_is_refused(kind: str) -> None:
    app, sse = open_app()
    with published(sse, "orders") as events:
        response = app.test_client().post(f"{MONITOR}/publish", data=json.dumps(TEST_EVENT), content_type=kind)
    assert response.status_code == 415
    assert events == []


def test_cors_preflight_is_denied() -> None:
    app, _ = open_app(SSE_CORS_ORIGINS=["https://listed.example"])
    headers = {"Origin": "https://listed.example", "Access-Control-Request-Method": "POST"}
    response = app.test_client().options(f"{MONITOR}/publish", headers=headers)
    assert response.status_code == 403


def test_page_policy_forbids_foreign_content_and_framing() -> None:
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


def test_page_without_slash_redirects_relatively_behind_prefix() -> None:
    app, _ = open_app()
    response = app.test_client().get(MONITOR, base_url="http://localhost/some/prefix")
    assert (response.status_code, response.headers["Location"]) == (308, "sse-monitor/")


# Figures and samples


def test_figures_show_clients_and_events_but_not_monitors() -> None:
    app, sse = open_app()
    with ExitStack() as stack:
        first = stack.enter_context(open_stream(app.test_client(), "/events?channel=orders&identity=ann"))
        stack.enter_context(open_stream(app.test_client(), "/events?channel=orders&channel=news"))
        for number in range(3):
            sse.publish("orders", number)
        assert len(first.ready()) == 3
        monitor = stack.enter_context(open_stream(app.test_client(), f"{MONITOR}/stream"))
        other = stack.enter_context(open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders"))
        until(lambda: other.ready(), "the other monitor to get events")
        received = await_event(monitor, "figures", lambda figures: figures["monitors"] == 2)
    assert received["point"]["clients"] == 2
    assert received["totals"]["opened"] == 2
    assert received["totals"]["published"] == received["totals"]["confirmed"] == 3
    assert [(each["name"], each["clients"], each["events"]) for each in received["channels"]] == [
        ("orders", 2, 3),
        ("news", 1, 0),
    ]
    assert received["broker"] == {"scheme": "memory", "state": "ok"}
    assert (received["is_shared"], received["sees_all"]) == (False, True)
    assert [process["clients"] for process in received["processes"]] == [2]
    until(lambda: not sse.stats()["clients"], "the clients to have left")
    assert sum(sse.stats()["closed"].values()) == 2, "ends of monitors are not counted"


def test_figures_show_every_close_reason() -> None:
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
            received = await_event(monitor, "figures", lambda figures: figures["totals"]["refused"] == 1)
    assert set(received["ends"]) == {reason.name for reason in CloseReason}
    assert received["ends"]["COMPLETED"] == 1
    assert received["point"]["clients"] == 1, "no limit counts the monitor"


def test_later_monitor_gets_earlier_points() -> None:
    app, _ = open_app()
    with open_stream(app.test_client(), f"{MONITOR}/stream") as first:
        point = await_event(first, "figures")["point"]
        with open_stream(app.test_client(), f"{MONITOR}/stream") as second:
            assert await_event(second, "points")[0] == point


def test_channel_shows_kept_and_new_events() -> None:
    app, sse = open_app()
    before = sse.publish("orders", {"id": 7}, event="created")
    with open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders") as monitor:
        [kept] = await_event(monitor, "kept")["events"]
        after = sse.publish("orders", "two\nlines")
        [come] = await_event(monitor, "events")["events"]
        assert sse.stats()["channels"] == {}, "a monitor is no client of the channel"
    assert (kept["id"], kept["event"], json.loads(kept["data"])) == (before, "created", {"id": 7})
    assert (come["id"], come["event"], come["data"]) == (after, "message", "two\nlines")


def test_invalid_channel_name_is_a_400() -> None:
    app, _ = open_app()
    with app.test_client().get(f"{MONITOR}/stream?channel=two%20words") as response:
        assert response.status_code == 400


def test_event_and_pending_limits_of_app_do_not_limit_monitor() -> None:
    app, sse = open_app(SSE_MAX_EVENT_BYTES=100, SSE_MAX_PENDING=1, SSE_MAX_PENDING_BYTES=100)
    sse.publish("orders", "x")
    with open_stream(app.test_client(), f"{MONITOR}/stream?channel=orders") as monitor:
        events = until(lambda: [each for each in monitor.ready() if each.event == "figures"], "figures")
    assert len(events[0].data) > 100


def test_shutdown_of_app_ends_monitor_streams() -> None:
    app, sse = open_app(SSE_DRAIN_SECONDS=1)
    with open_stream(app.test_client(), f"{MONITOR}/stream") as monitor:
        await_event(monitor, "figures")
        sse.shutdown()
        until(lambda: not publisher_of(app).monitors, "the end of the monitor")
        monitor.ready()
    assert publisher_of(app).streams.closed == {CloseReason.SHUTDOWN.value: 1}


# Nothing runs without a monitor


@contextmanager
def watching(publisher: MonitorFeeder, channel: str | None = None) -> Iterator[Response]:
    with publisher._state.app.test_request_context():
        response = publisher.open_stream(channel)
    body = response.iter_encoded()
    next(body)
    yield response
    response.close()


def test_one_timer_serves_all_monitors_and_stops_after_the_last(scheduler: ManualScheduler) -> None:
    _, sse = open_app()
    publisher = MonitorFeeder(sse.find_state(), scheduler)
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
        assert len(scheduler.jobs) == 1, "the next monitor starts it again"


def test_failed_tick_is_followed_by_the_next(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    publisher = MonitorFeeder(sse.find_state(), scheduler)
    with watching(publisher):
        with monkeypatch.context() as patched:
            patched.setattr(publisher._state, "stats", fail)
            with pytest.raises(ZeroDivisionError):
                scheduler.run_jobs()
        scheduler.pass_time(1)
        scheduler.run_jobs()
        assert len(publisher._points) == 1


def test_remote_processes_are_fetched_at_interval_and_age_between(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    asked: list[float] = []

    def processes() -> list[dict[str, Any]]:
        asked.append(scheduler.now)
        return [process("there", 2, age=0.5)]

    monkeypatch.setattr(sse._channels().broker, "processes", processes)
    publisher = MonitorFeeder(sse.find_state(), scheduler)
    ages = []
    with watching(publisher):
        for _ in range(2 * int(FETCH_SECONDS)):
            scheduler.run_jobs()
            ages.append([each["age"] for each in publisher._report()["processes"]])
            scheduler.pass_time(1)
    assert asked == [1000.0, 1000.0 + FETCH_SECONDS]
    assert ages == [[0.0, 0.5], [0.0, 1.5], [0.0, 2.5], [0.0, 3.5]] * 2


def test_remote_processes_are_fetched_as_soon_as_broker_is_up(scheduler: ManualScheduler) -> None:
    _, sse = open_app()
    others = RemoteProcesses(sse._channels().broker, scheduler.clock)
    assert others.fetch(is_broker_up=True) == []
    assert others.fetch(is_broker_up=False) is None
    others._broker.processes = lambda: [process("there", 2)]  # type: ignore[method-assign]
    assert [each["id"] for each in others.fetch(is_broker_up=True) or ()] == ["there"]


def test_failed_fetch_shows_this_process_alone_and_is_logged_once(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, sse = open_app()
    monkeypatch.setattr(sse._channels().broker, "processes", fail)
    publisher = MonitorFeeder(sse.find_state(), scheduler)
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
def test_malformed_figures_of_remote_process_are_ignored(
    wrong: Any, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    there = {**dict.fromkeys([*sse.stats(), *process("", 0)], wrong), "id": "there", "channels": {"orders": 2}}
    found = [there, {"id": 7}, wrong, {"pid": 5}, process("beyond", 3, closed={"timeout": 1, "error": wrong})]
    monkeypatch.setattr(sse._channels().broker, "processes", lambda: found)
    report = MonitorFeeder(sse.find_state(), scheduler)._report()
    assert [each["id"] for each in report["processes"]] == ["here", "there", "beyond"]
    assert report["sees_all"]
    assert report["point"]["clients"] == 3
    assert (report["ends"]["TIMEOUT"], report["ends"]["ERROR"]) == (1, 0)
    assert [(each["name"], each["clients"]) for each in report["channels"]] == [("orders", 2)]
    json.dumps(report, allow_nan=False)


def test_clock_set_back_loses_no_point(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    publisher = MonitorFeeder(sse.find_state(), scheduler)
    drift = 0.0
    clock = SimpleNamespace(time=lambda: 1e9 + scheduler.now + drift)
    monkeypatch.setattr("flask_sse_emitters.tools.monitor.feeder.time", clock)
    with watching(publisher):
        for second in range(6):
            drift = -3600.0 if second > 2 else 0.0
            scheduler.run_jobs()
            for _ in range(second):
                sse.publish("orders", "x")
            scheduler.pass_time(1)
    assert [point["published"] for point in publisher._points] == [0, 0, 1, 2, 3, 4]


def test_failed_subscribe_of_monitor_leaves_no_sample_or_stream(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    publisher = MonitorFeeder(sse.find_state(), scheduler)
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


def test_tick_that_waits_for_broker_delays_no_access_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    waits, goes_on = Flag(), Flag()

    def processes() -> list[dict[str, Any]]:
        waits.set()
        goes_on.wait()
        return []

    monkeypatch.setattr(sse._channels().broker, "processes", processes)
    both = Barrier(3)
    with watching(MonitorFeeder(sse.find_state())):
        try:
            assert waits.wait(PATIENCE)
            for _ in range(2):
                SCHEDULER.run(lambda: both.wait(PATIENCE), RULES)
            both.wait(PATIENCE)  # breaks if one of the two rules waits
        finally:
            goes_on.set()


def test_slow_first_sample_keeps_events_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    sample = ChannelSample("orders", sse._channels().broker)
    received: list[str] = []
    shows, goes_on = Flag(), Flag()

    def show(_list: MonitorClients, name: str, data: Any) -> None:
        if name == "events" and not shows.is_set():
            shows.set()
            goes_on.wait(PATIENCE)
        received.extend(event["data"] for event in data["events"])

    monkeypatch.setattr(MonitorClients, "send_json", show)
    sample.open()
    try:
        sse.publish("orders", "first")
        assert shows.wait(PATIENCE)
        sse.publish("orders", "second")
        until(lambda: received or SCHEDULER._pools[FIGURES]._jobs, "the second to be sent, or to wait")
    finally:
        goes_on.set()
    until(lambda: len(received) == 2, "both")
    sample.close()
    assert received == ["first", "second"]


def test_processes_are_not_fetched_from_degraded_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sse = open_app()
    publisher = MonitorFeeder(sse.find_state())
    broker = sse._channels().broker
    monkeypatch.setattr(broker, "status", lambda: {"state": "degraded", "error": "away"})
    monkeypatch.setattr(broker, "processes", fail)
    assert not publisher._report()["sees_all"]


def test_channel_has_one_listener_until_its_last_monitor_leaves() -> None:
    app, sse = open_app()
    listeners = sse._channels().broker._records  # type: ignore[attr-defined]
    path = f"{MONITOR}/stream?channel=orders"
    with open_stream(app.test_client(), path) as first:
        await_event(first, "kept")
        with open_stream(app.test_client(), path) as second:
            await_event(second, "kept")
            assert len(listeners["orders"]._listeners) == 1, "one listener for all monitors"
            assert publisher_of(app).samples["orders"].users == 2
        until(lambda: publisher_of(app).samples["orders"].users == 1, "one monitor to have left")
        assert len(listeners["orders"]._listeners) == 1
    until(lambda: not publisher_of(app).samples, "the sample to be closed")
    until(lambda: "orders" not in listeners, "the broker to have forgotten it")


def test_event_flood_is_batched_and_large_event_truncated(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sse = open_app()
    sample = ChannelSample("orders", sse._channels().broker, scheduler)
    received: list[Event] = []
    monkeypatch.setattr(MonitorClients, "send_json", lambda _list, name, data: received.append(Event(data, event=name)))
    sample.open()
    ids = [sse.publish("orders", number) for number in range(EVENTS_SHOWN + 150)]
    sse.publish("orders", "€" * 10_000)
    assert len(scheduler.live_timers()) == 1
    scheduler.pass_time(1)
    scheduler.run_jobs()
    sample.close()
    kept, events = [event.data for event in received]
    assert kept == {"channel": "orders", "events": []}
    assert events["skipped"] == 151
    assert [event["id"] for event in events["events"][:-1]] == ids[-EVENTS_SHOWN + 1 :]
    large = events["events"][-1]
    assert large["is_cut"]
    assert large["size"] > 30_000
    assert BYTES_SHOWN / 4 < len(large["data"]) < BYTES_SHOWN
    assert scheduler.live_timers() == []


def shown(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch, *payloads: bytes | Event) -> list[Any]:
    """Return what a sample shows of these payloads, written to the broker as they are."""
    _, sse = open_app()
    received: list[Any] = []
    monkeypatch.setattr(
        MonitorClients, "send_json", lambda _list, name, data: received.append(data) if name == "events" else None
    )
    sample = ChannelSample("orders", sse._channels().broker, scheduler)
    sample.open()
    for offset, each in enumerate(payloads, 1):
        frame = Frame(each, "message") if isinstance(each, bytes) else make_frame(each, json.dumps, 100_000)
        sample.arrived([with_id(frame, Position("epoch", offset), 0.0)])
    scheduler.pass_time(1)
    scheduler.run_jobs()
    sample.close()
    [only] = received
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
def test_foreign_payload_in_broker_hides_no_other_event(
    foreign: bytes, text: str, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = shown(scheduler, monkeypatch, Event("before"), foreign, Event("after"))
    assert [event["data"] for event in events] == ["before", text, "after"]


@pytest.mark.parametrize("more", range(4))
@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_large_event_is_truncated_between_characters(
    character: str, more: int, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = shown(scheduler, monkeypatch, Event("x" * more + character * 5000))
    assert event["is_cut"]
    assert set(event["data"]) <= {"x", character}
    assert BYTES_SHOWN - 30 < len(event["data"].encode()) <= BYTES_SHOWN


def test_event_with_data_beyond_limit_is_shown_truncated(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = shown(scheduler, monkeypatch, Event("hello", event="greeting", comment="c" * BYTES_SHOWN))
    assert (event["event"], event["data"], event["is_cut"]) == ("greeting", "", True)


# Publishing


def test_test_event_is_published_as_text_or_json() -> None:
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


def test_response_to_test_event_counts_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_invalid_test_event_is_refused_with_reason(changed: dict[str, Any], status: int, error: str) -> None:
    app, sse = open_app(SSE_MAX_EVENT_BYTES=2000 if "x" in str(changed.get("text")) else 1_000_000)
    with published(sse, "orders") as events:
        response = app.test_client().post(f"{MONITOR}/publish", json={**TEST_EVENT, **changed})
    assert response.status_code == status
    assert response.json is not None
    assert error in response.json["error"]
    assert events == []


def test_broker_error_on_publish_is_not_reported_as_bad_json(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_publish_body_that_is_no_json_object_is_a_400(body: bytes) -> None:
    app, _ = open_app()
    response = app.test_client().post(f"{MONITOR}/publish", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json == {"error": "Send channel, event and text, each a text."}


# Figures


def test_rate_compares_last_two_reports() -> None:
    rates = Rates()
    assert rates.add("here", 10.0, {"deliveries": 5}) == {}
    assert rates.add("here", 14.0, {"deliveries": 45}) == {"deliveries": 10}
    assert rates.add("here", 14.05, {"deliveries": 45}) == {"deliveries": 10}, "no new report"
    assert rates.add("here", 15.0, {"deliveries": 3}) == {"deliveries": 3}, "the counter was reset"
    rates.keep_only([])
    assert rates.add("here", 16.0, {"deliveries": 9}) == {}


def test_smoothed_rate_covers_its_window() -> None:
    rates = Rates(10)
    found = [rates.add("here", float(second), {"deliveries": second // 5 * 20}) for second in range(31)]
    assert {each["deliveries"] for each in found[10:]} == {4.0}


def test_rate_of_new_counter_starts_with_its_second_report() -> None:
    rates = Rates(10)
    assert rates.add("here", 10.0, {"a": 5}) == {}
    assert rates.add("here", 11.0, {"a": 6, "b": 1000}) == {"a": 1}, "b may have been counted for a long time"
    assert rates.add("here", 12.0, {"a": 7, "b": 1003}) == {"a": 1, "b": 3}


def process(name: str, clients: int, **more: Any) -> dict[str, Any]:
    figures = {"clients": clients, "deliveries": 0, "published": 0, "broker": {"state": "ok"}, "channels": {}}
    return {"id": name, "age": 0.0, "events": {}, "slow": [], "closed": {}, **figures, **more}


def test_report_adds_figures_of_processes() -> None:
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


def test_report_of_many_channels_shows_those_with_most_clients() -> None:
    few = {f"few-{number}": 1 for number in range(5 * CHANNELS_SHOWN)}
    many = {f"many-{number}": 2 + number for number in range(CHANNELS_SHOWN - 1)}
    here = process("a", 3, channels={**few, **many}, events=dict.fromkeys([*few, *many], 7))
    there = process("b", 3, channels={"few-400": 1})
    report = make_report([here, there], Rates(), Rates(), 1000.0, 10.0)
    names = [each["name"] for each in report["channels"]]
    assert names[:-2] == list(reversed(many))[:-1]
    assert names[-2:] == ["few-400", "many-0"], "equal counts are sorted by name"
    assert report["channels_in_all"] == 6 * CHANNELS_SHOWN - 1


# On real servers


def figures(client: Client, wanted: Callable[[Any], bool], what: str) -> Any:
    """Return the first figures that satisfy ``wanted``."""
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
    with Server(kind, "tests.apps.monitor:app", env=env) as server:
        yield server
        server.kill()  # a clean shutdown takes seconds


def has_come(monitor: Client, name: str) -> bool:
    return name in monitor.events(1)[0].data


def test_monitor_sees_processes_sharing_redis_and_its_outage() -> None:
    with RedisServer() as redis, ExitStack() as stack:
        servers = [stack.enter_context(served(kind, SSE_BROKER_URL=redis.url)) for kind in ("gevent", "gthread")]
        for server in servers:
            for _ in range(2):
                stack.enter_context(connected(server, "/events?channel=orders"))
        monitors = [stack.enter_context(connected(server, "/sse-monitor/stream?channel=orders")) for server in servers]

        def sees_all(received: Any) -> bool:
            clients = {channel["name"]: channel["clients"] for channel in received["channels"]}
            return clients == {"orders": 4} and received["point"]["clients"] == 4 and len(received["processes"]) == 2

        for monitor in monitors:
            received = figures(monitor, sees_all, "both processes, without the other's monitor")
            assert received["channels"][0]["name"] == "orders"
            assert received["channels"][0]["clients"] == 4
            assert (received["is_shared"], received["sees_all"], received["monitors"]) == (True, True, 1)
        for monitor, other in zip(monitors, reversed(servers), strict=True):
            name = new_name()
            post(other, "/events-of/orders", name)
            until(partial(has_come, monitor, name), "the event of the other process")
        redis.kill()
        for monitor in monitors:
            received = figures(
                monitor, lambda received: received["broker"]["state"] == "degraded", "the broker's outage"
            )
            assert received["broker"]["error"]
            assert not received["sees_all"]
            assert [each["clients"] for each in received["processes"]] == [2]
        redis.start()
        for monitor in monitors:
            figures(
                monitor,
                lambda received: received["broker"]["state"] == "ok" and received["sees_all"],
                "the broker's recovery",
            )


def assert_figures_arrive(server: Server, monitor: Client) -> None:
    assert monitor.response.headers["Content-Type"].startswith("text/event-stream")
    with connected(server, "/events?channel=orders"):
        figures(monitor, lambda received: received["point"]["clients"] == 1, "the client")
    figures(monitor, lambda received: received["ends"]["DISCONNECTED"] == 1, "the end of the client")


def test_monitor_on_threaded_server_gets_figures() -> None:
    with served("werkzeug") as server, connected(server, "/sse-monitor/stream") as monitor:
        assert_figures_arrive(server, monitor)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_monitor_on_worker_gets_figures_and_ends_at_shutdown(kind: str) -> None:
    with (
        Server(kind, "tests.apps.monitor:app", arguments=["--graceful-timeout", "60"]) as server,
        connected(server, "/sse-monitor/stream") as monitor,
    ):
        assert_figures_arrive(server, monitor)
        server.signal(signal.SIGTERM)
        assert re.search(rb"retry: \d+\n\n\Z", monitor.rest())
        server.kill()
