"""Metrics of one process, and of several apps in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from prometheus_client import CollectorRegistry, generate_latest

from flask_sse_emitters import SSE, NotInitialized, SseEmitter
from flask_sse_emitters.access import Rule
from flask_sse_emitters.metrics import SseMetrics
from flask_sse_emitters.signals import event_published
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board
from tests.support.samples import Samples, closed, read
from tests.support.servers import ROOT
from tests.support.waiting import until


def scrape(registry: CollectorRegistry) -> Samples:
    return read(generate_latest(registry).decode())


class Measured(Board):
    """A board whose metrics are in a registry of its own."""

    def __init__(self, *rule: Rule, **config: Any) -> None:
        super().__init__(*rule, **config)
        self.registry = CollectorRegistry()
        SseMetrics(self.sse, registry=self.registry)

    def scrape(self) -> Samples:
        return scrape(self.registry)


PAGE = (ROOT / "docs" / "monitoring.rst").read_text()

#: The page with the alerts.
OPERATING = (ROOT / "docs" / "operating.rst").read_text()

#: The metrics in the page's list.
LISTED = re.findall(r"^``(sse_\w+)``  ", PAGE, re.MULTILINE)


def test_metrics_of_the_first_scrape_are_those_documented_at_zero() -> None:
    samples = Measured().scrape()
    families = {re.sub(r"(_bucket|_count|_sum)?(\{.*)?$", "", name) for name in samples}
    assert families == set(LISTED)
    asked_for = {name.removesuffix("_bucket") for name in re.findall(r"\bsse_\w+", OPERATING)}
    assert asked_for <= families
    assert len(asked_for) >= 10
    assert set(closed(samples)) == {"completed", "timeout", "disconnected", "error", "overflow", "shutdown"}
    assert samples.pop("sse_broker_up") == 1
    assert samples.pop("sse_max_clients") == 10_000
    assert samples.pop(f'sse_build_info{{version="{version("flask-sse-emitters")}"}}') == 1
    samples.pop("sse_warnings")  # depends on the file limit of this process
    assert set(samples.values()) == {0}


def test_metrics_count_closed_streams_by_close_reason() -> None:
    board = Measured(SSE_DRAIN_SECONDS=0.01)
    board.app.add_url_rule("/", view_func=lambda: SseEmitter(0.05 if "timeout" in request.args else 60, max_pending=2))
    ends: dict[str, Callable[[SseEmitter], object]] = {
        "completed": SseEmitter.complete,
        "error": lambda emitter: emitter.complete_with_error(ValueError("as the test wants it")),
        "timeout": lambda emitter: until(lambda: not emitter.is_open, "its timeout"),
        "overflow": lambda emitter: [emitter.try_send("too many") for _ in range(4)],
        "disconnected": lambda _: None,
        "shutdown": lambda _: board.sse.shutdown(),
    }
    for number, (reason, end) in enumerate(ends.items(), 1):
        with ExitStack() as stack:
            for _ in range(number):
                stack.enter_context(open_stream(board.client, f"/?{reason}")).ready()
            assert board.scrape()['sse_clients{outlet="server"}'] == number
            for emitter in board.emitters[-number:]:
                end(emitter)
    samples = board.scrape()
    assert closed(samples) == {reason: number for number, reason in enumerate(ends, 1)}
    assert samples["sse_streams_opened_total"] == 21
    assert samples['sse_clients{outlet="server"}'] == samples["sse_pending"] == 0


def test_metrics_count_publishes_deliveries_replays_and_gaps() -> None:
    board = Measured(SSE_HISTORY=4)
    with board.open("a") as one, board.open("a") as two, board.open("b"):
        ids = board.publish("a", *range(6))
        board.publish("b", "unread")
        assert len(one.ready()) == len(two.ready()) == 6
        samples = board.scrape()
    assert samples["sse_events_published_total"] == samples["sse_publish_seconds_count"] == 7
    assert samples["sse_deliveries_total"] == 12
    assert samples["sse_replayed_total"] == samples["sse_gaps_total"] == 0

    assert len(board.replayed("a", last=ids[3])) == 2
    assert [event.event for event in board.replayed("a", last=ids[0])] == ["gap", None, None, None, None]
    after = board.scrape()
    assert after["sse_replayed_total"] == 6
    assert after["sse_gaps_total"] == 1
    assert after["sse_events_published_total"] == 7


def test_metrics_count_delivered_bytes_as_in_response_bodies() -> None:
    board = Measured()

    @board.app.get("/whole")
    def whole() -> Any:
        emitter = SseEmitter()
        emitter.send("a text of some length")
        emitter.complete()
        return emitter

    bodies = [board.get("/whole").data for _ in range(3)]
    assert board.scrape()["sse_delivered_bytes_total"] == sum(map(len, bodies))


def test_metrics_count_refused_denied_and_dropped() -> None:
    board = Measured(lambda channel: channel != "secret", SSE_MAX_CLIENTS=7)
    board.sse.channel("full", max_clients=1)

    @board.app.get("/slow")
    def slow() -> Any:
        emitter = SseEmitter(max_pending=2, overflow="drop_oldest")
        for number in range(5):
            emitter.send(number)
        return emitter

    assert [board.client.get("/events/secret").status_code for _ in range(2)] == [403, 403]
    with board.open("full"):
        for _ in range(3):
            assert board.client.get("/events/full").data
    with open_stream(board.client, "/slow"):
        assert board.scrape()["sse_dropped_total"] == 3
    samples = board.scrape()
    assert samples["sse_requests_denied_total"] == 2
    assert {name: value for name, value in samples.items() if "refused" in name} == {
        'sse_streams_refused_total{limit="max_clients"}': 3,
        'sse_streams_refused_total{limit="SSE_MAX_CLIENTS"}': 0,
        'sse_streams_refused_total{limit="SSE_MAX_CLIENTS_PER_IDENTITY"}': 0,
        'sse_streams_refused_total{limit="SSE_MAX_CLIENTS_PER_ADDRESS"}': 0,
        'sse_streams_refused_total{limit="RLIMIT_NOFILE"}': 0,
    }
    assert samples["sse_max_clients"] == 7
    assert samples["sse_streams_opened_total"] == 2
    assert samples["sse_dropped_total"] == 3, "drops of an ended stream still count"


def test_metrics_show_drain_pending_and_warnings_as_gauges() -> None:
    board = Measured()
    with board.open("a") as stream:
        stream.ready()
        before = board.scrape()
        board.publish("a", "taken by the writer", "pending", "pending, too")
        assert board.scrape()["sse_pending"] == 2
    assert (before["sse_draining"], before["sse_warnings"]) == (0, len(board.sse.stats()["warnings"]))
    with board.app.test_request_context():
        SseEmitter(60_000).response()  # a lifetime that is probably meant to be milliseconds
    board.sse.shutdown()
    after = board.scrape()
    assert (after["sse_draining"], after["sse_warnings"]) == (1, before["sse_warnings"] + 1)


def test_metrics_count_publish_latency_in_buckets() -> None:
    board = Measured()
    board.publish("a", *range(20))
    stats, before = board.sse.stats()["publish"], board.scrape()
    assert before["sse_publish_seconds_count"] == stats["count"] == 20
    assert before["sse_publish_seconds_sum"] == pytest.approx(stats["seconds"])

    board = Measured()
    for seconds in (40e-6, 50e-6, 51e-6, 0.003, 0.003, 7.0):
        event_published.send(board.app, channel="a", id="x-1", event=None, size=9, seconds=seconds)
    samples = board.scrape()
    found = [
        samples[f'sse_publish_seconds_bucket{{le="{bound}"}}'] for bound in ("5e-05", 1e-4, 2.5e-3, 5e-3, 5.0, "+Inf")
    ]
    assert found == [2, 3, 3, 5, 5, 6]
    assert samples["sse_publish_seconds_sum"] == pytest.approx(7.006141)


def test_metrics_of_two_apps_in_a_registry_need_prefixes() -> None:
    board, shop = Measured(), Board()
    with pytest.raises(ValueError, match=r"metrics named sse_\.\.\. already: say SseMetrics\(sse\) once for each app"):
        SseMetrics(shop.sse, registry=board.registry)
    SseMetrics(shop.sse, registry=board.registry, prefix="shop_sse")
    shop.publish("a", 1)
    samples = board.scrape()
    assert (samples["sse_events_published_total"], samples["shop_sse_events_published_total"]) == (0, 1)
    assert (samples["sse_publish_seconds_count"], samples["shop_sse_publish_seconds_count"]) == (0, 1)


def test_metrics_of_one_sse_with_two_apps_need_the_app() -> None:
    sse, apps, registries = SSE(), [Flask("one"), Flask("two")], [CollectorRegistry(), CollectorRegistry()]
    with pytest.raises(NotInitialized, match="no app"):
        SseMetrics(sse, registry=CollectorRegistry())
    for app in apps:
        sse.init_app(app)
    with pytest.raises(NotInitialized, match="2 apps"):
        SseMetrics(sse, registry=CollectorRegistry())
    with pytest.raises(NotInitialized, match=r"init_app\(app\) first"):
        SseMetrics(sse, Board().app, registry=CollectorRegistry())
    for app, registry in zip(apps, registries, strict=True):
        SseMetrics(sse, app, registry=registry)
    with apps[1].app_context():
        sse.publish("a", 1)
        assert [scrape(registry)["sse_events_published_total"] for registry in registries] == [0, 1]
        assert [scrape(registry)["sse_publish_seconds_count"] for registry in registries] == [0, 1]


def test_metrics_in_a_missing_multiprocess_folder_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    registry = CollectorRegistry()
    with pytest.raises(ValueError, match=r"PROMETHEUS_MULTIPROC_DIR=.* is not a directory: create it, empty"):
        SseMetrics(Board().sse, registry=registry)
    assert not scrape(registry)
