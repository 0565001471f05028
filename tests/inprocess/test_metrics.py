"""Metrics as Prometheus reads them: of one process, of workers that start and stop, and of several apps."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakSet

import prometheus_client
import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flask_sse_emitters import SSE, BrokerUnavailable, CloseReason, NotInitialized, SseEmitter, SseEmitters, metrics
from flask_sse_emitters.metrics import BUCKETS, INTERVAL, SseMetrics
from flask_sse_emitters.signals import event_published
from flask_sse_emitters.streams.registry.draining import drain
from flask_sse_emitters.testing import open_stream
from flask_sse_emitters.tools.metric_definitions import LIMITS
from tests.support.board import Board
from tests.support.client import Client, answer, connected, get, post
from tests.support.programs import program
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.workers_server import WorkersServer
from tests.unit.doubles.clock import ManualScheduler

#: Values of samples by name and labels, as Prometheus writes them.
Samples = dict[str, float]


def read(text: str) -> Samples:
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return samples


def scrape(registry: CollectorRegistry) -> Samples:
    return read(generate_latest(registry).decode())


def counters(samples: Samples) -> Samples:
    return {name: value for name, value in samples.items() if re.search(r"_(total|count|sum|bucket)\b", name)}


def closed(samples: Samples) -> Samples:
    found = {reason.value: f'sse_streams_closed_total{{reason="{reason.value}"}}' for reason in CloseReason}
    return {reason: samples[name] for reason, name in found.items() if name in samples}


class Measured(Board):
    """A board whose metrics are in a registry of its own."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.registry = CollectorRegistry()
        self.metrics = SseMetrics(self.sse, registry=self.registry)

    def scrape(self) -> Samples:
        return scrape(self.registry)


def test_first_scrape_has_every_metric_at_zero() -> None:
    board = Measured()
    samples = board.scrape()
    assert samples.pop("sse_broker_up") == 1
    assert samples.pop("sse_max_clients") == 10_000
    assert samples.pop(f'sse_build_info{{version="{version("flask-sse-emitters")}"}}') == 1
    samples.pop("sse_warnings")  # depends on the file limit of this process
    assert set(samples.values()) == {0}
    assert {name.partition("{")[0] for name in samples} == {
        "sse_clients",
        "sse_pending",
        "sse_draining",
        "sse_streams_opened_total",
        "sse_streams_closed_total",
        "sse_streams_refused_total",
        "sse_requests_denied_total",
        "sse_events_published_total",
        "sse_publish_failures_total",
        "sse_deliveries_total",
        "sse_delivered_bytes_total",
        "sse_replayed_total",
        "sse_gaps_total",
        "sse_dropped_total",
        "sse_publish_seconds_bucket",
        "sse_publish_seconds_count",
        "sse_publish_seconds_sum",
    }
    assert set(closed(samples)) == {"completed", "timeout", "disconnected", "error", "overflow", "shutdown"}


def test_monitoring_page_names_exactly_the_metrics() -> None:
    page = (ROOT / "docs" / "monitoring.rst").read_text()
    families = [each.name + "_total" * (each.type == "counter") for each in Measured().metrics.describe()]
    assert sorted(re.findall(r"^``(sse_\w+)``  ", page, re.MULTILINE)) == sorted(families)
    asked_for = set(re.findall(r"\bsse_\w+(?=[){\[ ])", page.partition("groups:")[2].partition("Signals")[0]))
    assert len(asked_for) >= 6
    assert {name.removesuffix("_bucket") for name in asked_for} <= set(families)


def test_closed_streams_are_counted_by_close_reason() -> None:
    board = Measured()
    emitters = SseEmitters()

    @board.app.get("/<how>")
    def end(how: str) -> Any:
        emitter = emitters.add(SseEmitter(timeout=0.01 if how == "timeout" else 60, max_pending=2))
        if how == "completed":
            emitter.complete()
        elif how == "error":
            emitter.complete_with_error(ValueError("as the test wants it"))
        return emitter

    for how in ("completed", "error", "timeout", "timeout"):
        with board.client.get(f"/{how}") as response:
            assert response.data
    for _ in range(3):
        with open_stream(board.client, "/disconnected"):
            pass
    for _ in range(4):
        with open_stream(board.client, "/overflow") as stream:
            assert stream.ready() == []  # so the writer is idle
            for text in ("taken by the writer", "pending", "pending, too"):
                emitters.send(text)
            assert board.scrape()["sse_pending"] == 2
            emitters.send("one too many")
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(open_stream(board.client, "/shutdown"))
        assert board.scrape()['sse_clients{outlet="server"}'] == 5
        drain(board.sse.find_state().streams)
        until(lambda: all(not emitter.is_open for emitter in emitters), "the ends")
    samples = board.scrape()
    assert closed(samples) == {
        "completed": 1,
        "error": 1,
        "timeout": 2,
        "disconnected": 3,
        "overflow": 4,
        "shutdown": 5,
    }
    assert samples["sse_streams_opened_total"] == 16
    assert samples['sse_clients{outlet="server"}'] == samples["sse_pending"] == 0


def test_publishes_deliveries_replays_and_gaps_are_counted() -> None:
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


def test_delivered_bytes_equal_response_bodies() -> None:
    board = Measured()

    @board.app.get("/whole")
    def whole() -> Any:
        emitter = SseEmitter()
        emitter.send("a text of some length")
        emitter.complete()
        return emitter

    bodies = [board.client.get("/whole").data for _ in range(3)]
    assert board.scrape()["sse_delivered_bytes_total"] == sum(map(len, bodies))


def test_refused_denied_and_dropped_are_counted() -> None:
    board = Measured()
    board.sse._rules.authorizer = lambda channel: channel != "secret"
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
    assert samples['sse_streams_refused_total{limit="max_clients"}'] == 3
    assert samples["sse_streams_opened_total"] == 2
    assert samples["sse_dropped_total"] == 3, "drops of an ended stream still count"


@pytest.mark.parametrize(
    ("limit", "config"),
    [
        ("SSE_MAX_CLIENTS", {"SSE_MAX_CLIENTS": 1}),
        ("SSE_MAX_CLIENTS_PER_IDENTITY", {"SSE_MAX_CLIENTS_PER_IDENTITY": 1}),
        ("SSE_MAX_CLIENTS_PER_ADDRESS", {"SSE_MAX_CLIENTS_PER_ADDRESS": 1}),
        ("max_clients", {}),
    ],
)
def test_refused_streams_are_counted_by_limit(limit: str, config: dict[str, int]) -> None:
    board = Measured(**config)
    board.sse._rules.authorizer = lambda _channel: "ann"
    board.sse.channel("few", max_clients=None if config else 1)
    with board.open("few"):
        for _ in range(2):
            assert board.client.get("/events/few").data
    samples = board.scrape()
    found = {name: value for name, value in samples.items() if "refused" in name}
    assert found.pop(f'sse_streams_refused_total{{limit="{limit}"}}') == 2
    assert set(found.values()) == {0}
    assert len(found) == len(LIMITS) - 1
    assert samples["sse_max_clients"] == config.get("SSE_MAX_CLIENTS", 10_000)
    assert (board.sse.stats()["refused"], board.sse.stats()["refused_by"]) == (2, {limit: 2})


def test_drain_and_warnings_are_gauges() -> None:
    board = Measured(SSE_BROKER_URL="memory://")
    before = board.scrape()
    assert before["sse_draining"] == 0
    board.sse.find_state().warn("too few files")
    drain(board.sse.find_state().streams)
    after = board.scrape()
    assert (after["sse_draining"], after["sse_warnings"]) == (1, before["sse_warnings"] + 1)


def test_publish_latency_is_counted_in_buckets() -> None:
    board = Measured()
    for seconds in (40e-6, 50e-6, 51e-6, 0.003, 0.003, 7.0):
        event_published.send(board.app, channel="a", id="x-1", event=None, size=9, seconds=seconds)
    samples = board.scrape()
    bounds = [50e-6, 1e-4, 2.5e-3, 5e-3, 5.0]
    assert set(bounds) <= set(BUCKETS)
    found = {float(re.findall('le="(.*)"', name)[0]): n for name, n in samples.items() if "_bucket" in name}
    assert [found[bound] for bound in bounds] == [2, 3, 3, 5, 5]
    assert found[float("inf")] == samples["sse_publish_seconds_count"] == 6
    assert samples["sse_publish_seconds_sum"] == pytest.approx(7.006141)


def test_publish_seconds_equal_stats() -> None:
    board = Measured()
    board.publish("a", *range(20))
    samples = board.scrape()
    assert samples["sse_publish_seconds_count"] == 20
    assert samples["sse_publish_seconds_sum"] == pytest.approx(board.sse.stats()["publish"]["seconds"])


def test_broker_outage_shows_broker_down_and_publish_failures() -> None:
    with RedisServer() as redis:
        board = Measured(SSE_BROKER_URL=redis.url, SSE_PUBLISH_SECONDS=0.2)
        board.publish("a", 1)
        assert board.scrape()["sse_broker_up"] == 1
        redis.kill()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                board.publish("a", 2)
        samples = board.scrape()
        assert (samples["sse_broker_up"], samples["sse_publish_failures_total"]) == (0, 2)
        assert samples["sse_events_published_total"] == samples["sse_publish_seconds_count"] == 1


def test_second_registration_raises_with_advice() -> None:
    board = Measured()
    with pytest.raises(ValueError, match=r"metrics named sse_\.\.\. already: say SseMetrics\(sse\) once for each app"):
        SseMetrics(board.sse, registry=board.registry)
    board.publish("a", 1)
    assert board.scrape()["sse_publish_seconds_count"] == 1


def test_two_apps_have_separate_metrics() -> None:
    one, other = Measured(), Measured()
    one.publish("a", 1, 2)
    with other.open("a"):
        assert [board.scrape()["sse_events_published_total"] for board in (one, other)] == [2, 0]
        assert [board.scrape()["sse_publish_seconds_count"] for board in (one, other)] == [2, 0]
        assert [board.scrape()['sse_clients{outlet="server"}'] for board in (one, other)] == [0, 1]


def test_two_apps_share_a_registry_with_prefixes() -> None:
    board, shop = Measured(), Board()
    SseMetrics(shop.sse, registry=board.registry, prefix="shop_sse")
    shop.publish("a", 1)
    samples = board.scrape()
    assert (samples["sse_events_published_total"], samples["shop_sse_events_published_total"]) == (0, 1)
    assert samples["shop_sse_publish_seconds_count"] == 1


def test_one_sse_with_two_apps_needs_the_app_for_metrics() -> None:
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


# Several processes.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A multiprocess folder. This process's prometheus_client was started without one and keeps its values itself."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(metrics, "_writers", WeakSet())
    return tmp_path


def test_missing_multiprocess_folder_raises_and_registers_nothing(folder: Path) -> None:
    folder.rmdir()
    board = Board()
    registry = CollectorRegistry()
    with pytest.raises(ValueError, match=r"PROMETHEUS_MULTIPROC_DIR=.* is not a directory: create it, empty"):
        SseMetrics(board.sse, registry=registry)
    assert not scrape(registry)


@pytest.mark.usefixtures("folder")
def test_second_app_in_multiprocess_mode_needs_a_prefix() -> None:
    board, other = Measured(), Board()
    with pytest.raises(ValueError, match=r'all registries are one: .* prefix="shop_sse"'):
        SseMetrics(other.sse, registry=CollectorRegistry())
    SseMetrics(other.sse, registry=board.registry, prefix="shop_sse")
    assert "shop_sse_pending" in board.scrape()


@pytest.mark.usefixtures("folder")
def test_timer_runs_only_while_figures_change(monkeypatch: pytest.MonkeyPatch, scheduler: ManualScheduler) -> None:
    monkeypatch.setattr(metrics, "SCHEDULER", scheduler)
    board = Measured()

    def timers() -> int:
        return len(scheduler.live_timers())

    def pass_intervals(count: int) -> None:
        for _ in range(count):
            scheduler.pass_time(INTERVAL)
            scheduler.run_jobs()

    assert timers() == 0
    assert board.client.get("/events").status_code == 400
    assert timers() == 1, "any request may be denied"
    pass_intervals(1)
    assert timers() == 0
    board.publish("a", *range(3))
    assert timers() == 1
    pass_intervals(1)
    assert timers() == 1, "figures have changed"
    pass_intervals(1)
    assert timers() == 0
    with board.open("a"):
        pass_intervals(20)
        assert timers() == 1
    assert timers() == 1
    pass_intervals(2)
    assert timers() == 0


#: The beginning of each script that runs in a process of its own.
SCRIPT = """
import atexit, gc, os, struct, sys, threading
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from flask_sse_emitters import SSE, metrics

metrics.INTERVAL = 0.01

def values():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    try:
        lines = generate_latest(registry).decode().splitlines()
    except struct.error:  # a file has just been made, and prometheus_client does not know empty ones
        return {}
    return dict(line.split() for line in lines if not line.startswith("#"))

def files():
    return sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))

def until(condition):
    while not condition():
        threading.Event().wait(0.005)

app = Flask("app")
sse = SSE(app)
own = CollectorRegistry()
made = metrics.SseMetrics(sse, registry=own)
"""


def run(script: str, folder: Path | str, *within: str, cwd: Path = ROOT) -> None:
    """Run a script in a process of its own.

    :param within: a command that runs it.
    """
    done = subprocess.run(
        # prometheus_client leaves its files open until the process ends, which may be warned of.
        [*within, sys.executable, "-W", "error", "-W", "ignore:unclosed file:ResourceWarning", "-c", SCRIPT + script],
        cwd=cwd,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        timeout=PATIENCE,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_empty_multiprocess_folder_name_means_one_process(tmp_path: Path) -> None:
    script = """
from flask_sse_emitters.gunicorn import child_exit
from types import SimpleNamespace
sse.publish("a", "x")
child_exit(None, SimpleNamespace(pid=os.getpid()))
assert "sse_events_published_total 1.0" in generate_latest(own).decode()
"""
    run(script, "", cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "prometheus_client would write its files there"


def test_no_thread_or_file_before_first_figures(tmp_path: Path) -> None:
    run("generate_latest(own); assert threading.active_count() == 1 and not files(), files()", tmp_path)
    assert not list(tmp_path.iterdir()), "nor at exit"


def test_metric_files_are_written_on_figures_thread(tmp_path: Path) -> None:
    run(
        """
threads = []
stats = sse.find_state().stats
sse.find_state().stats = lambda: threads.append(threading.current_thread().name) or stats()
sse.publish("a", 1)
until(lambda: values().get("sse_events_published_total") == "1.0")
assert set(threads) == {"sse-figures"}, threads
""",
        tmp_path,
    )


def test_forked_child_counts_from_zero_in_own_files(tmp_path: Path) -> None:
    run(
        """
for number in range(3):
    sse.publish("a", number)
until(lambda: values().get("sse_events_published_total") == "3.0")
child = os.fork()
if not child:
    try:
        sse.publish("a", "of the child")
        assert "sse_events_published_total 1.0" in generate_latest(own).decode()
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(0)
    finally:
        os._exit(1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert f"counter_{child}.db" in files(), files()
assert not any(name.startswith("gauge_live") and str(child) in name for name in files()), files()
sse.publish("a", "of the parent")
until(lambda: values()["sse_publish_seconds_count"] == "5.0")
assert values()["sse_events_published_total"] == "5.0"
assert abs(float(values()["sse_publish_seconds_sum"]) - sse.stats()["publish"]["seconds"]) < 1
""",
        tmp_path,
    )


def test_apps_of_one_process_have_separate_names_in_files(tmp_path: Path) -> None:
    run(
        """
shop = SSE(Flask("shop"))
metrics.SseMetrics(shop, registry=CollectorRegistry(), prefix="shop_sse")
gc.collect()
sse.publish("a", 1)
shop.publish("a", 1)
shop.publish("a", 2)
until(lambda: values().get("sse_events_published_total") == "1.0")
until(lambda: values().get("shop_sse_events_published_total") == "2.0")
""",
        tmp_path,
    )


#: Runs a command with a private file system of 512 kB at the folder of the metrics.
SMALL_DISK = 'mount -t tmpfs -o size=512k small "$PROMETHEUS_MULTIPROC_DIR" && exec "$@"'


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """A command that runs another one with a small file system at this folder; skip if no mount is allowed."""
    unshare = program("unshare", "util-linux")
    for way in ("-Urm", "-m"):  # as a user, as root
        command = [unshare, way, "sh", "-c", SMALL_DISK, "sh"]
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        tried = subprocess.run([*command, "true"], env=env, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return command
    pytest.skip(f"no file system can be mounted here: {tried.stderr}")


def test_full_disk_stops_metrics_but_no_stream(small_disk: list[str], tmp_path: Path) -> None:
    """prometheus_client alone would let the process die of SIGBUS."""
    run(
        """
import logging
from contextlib import suppress
from flask_sse_emitters.testing import open_stream

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage()) if record.levelname == "WARNING" else None
logging.getLogger("flask_sse_emitters.metrics").addHandler(handler)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.channel("a", public=True)
full = os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], "full")
with suppress(OSError), open(full, "wb", buffering=0) as file:
    while file.write(bytes(4096)):
        pass

with open_stream(app.test_client(), "/events?channel=a") as stream:
    for number in range(20):
        sse.publish("a", number)
        until(lambda: not made._writer._is_due)  # it tries to write
    assert len(stream.ready()) == 20
    until(lambda: files() == ["full"])  # once it has found that there is no space
    [warning] = said
    assert "No space left on device" in warning and "logged once" in warning, warning
    os.remove(full)
    sse.publish("a", "there is room again")
    until(lambda: values().get("sse_events_published_total") == "21.0")
    assert len(said) == 1
""",
        tmp_path,
        *small_disk,
    )


def test_reserved_disk_space_keeps_metrics_of_the_app(tmp_path: Path) -> None:
    run(
        """
from prometheus_client import Counter
orders = Counter("orders", "Those of the app.", ["kind"])
for number in range(720):  # the file has to grow for the next ones
    orders.labels(str(number)).inc(7)
sse.publish("a", 1)
until(lambda: values().get("sse_events_published_total") == "1.0")
assert values()['orders_total{kind="719"}'] == "7.0"
for name in files():
    path = os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], name)
    with open(path, "rb") as file:
        [used] = struct.unpack("i", file.read(4))
    is_shared = name.startswith("counter")
    assert used > 1 << 16 if is_shared else used < 3_000, (name, used)
    found = os.stat(path)
    room = found.st_blocks * 512
    assert found.st_size >= 1 << 16
    assert room >= (used if is_shared else 1 << 14), (name, used, found)
    assert room < 1 << 16 or is_shared, (name, found)
""",
        tmp_path,
    )


def test_first_request_that_is_a_scrape_has_all_gauges(tmp_path: Path) -> None:
    run(
        """
metrics.INTERVAL = 3600
app.get("/metrics")(values)
assert not files()
found = app.test_client().get("/metrics").json
assert found["sse_broker_up"] == "1.0"
assert (found['sse_clients{outlet="server"}'], found['sse_clients{outlet="handed_off"}']) == ("0.0", "0.0")
assert found['sse_streams_refused_total{limit="SSE_MAX_CLIENTS"}'] == "0.0"
""",
        tmp_path,
    )


class Scrapes:
    """Scrapes of a server: no counter ever goes down."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last: Samples = {}

    def __call__(self) -> Samples:
        samples = read(until(self._text, "an answer"))
        for name, value in counters(self._last).items():
            assert samples[name] >= value, name
        self._last = samples
        return samples

    def come_to(self, **wanted: float) -> Samples:
        """Return the first scrape with these figures, given by name without the common prefix and suffix."""

        def found() -> Samples | None:
            samples = self()
            return samples if wanted.items() <= in_short(samples).items() else None

        try:
            return until(found) or {}
        except AssertionError:
            assert wanted == {name: in_short(self._last).get(name) for name in wanted}
            raise

    def _text(self) -> str:
        """Return a scrape, empty if the worker ends or prometheus_client meets a file that was just made."""
        try:
            status, body = answer(self._server, "GET", "/metrics")
        except OSError:
            return ""
        assert status == 200 or "struct.error: unpack_from requires a buffer" in self._server.log, self._server.log
        return body.decode() if status == 200 else ""


def in_short(samples: Samples) -> dict[str, float]:
    found = {re.sub(r"^sse_|_total$", "", name): value for name, value in samples.items()}
    found["clients"] = sum(value for name, value in samples.items() if name.startswith("sse_clients{"))
    return {**found, **closed(samples)}


@contextmanager
def serving(kind: str, tmp_path: Path, *arguments: str, interval: float, hook: bool = True) -> Iterator[WorkersServer]:
    """Serve with two workers that share Redis and their metrics."""
    (tmp_path / "metrics").mkdir()
    settings = ["from tests.support.gunicorn_settings import *"]
    if hook:
        settings.append("from flask_sse_emitters.gunicorn import child_exit")
    (tmp_path / "settings.py").write_text("\n".join(settings))
    arguments = ("--graceful-timeout", "60", "--config", str(tmp_path / "settings.py"), *arguments)
    with RedisServer() as redis:
        env = {
            "CONFIG": json.dumps({"SSE_BROKER_URL": redis.url, "SSE_RETRY": 1000}),
            "INTERVAL": str(interval),
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        }
        with WorkersServer(kind, "tests.apps.metrics:app", 2, env=env, arguments=arguments) as server:
            yield server


def connect(server: Server, stack: ExitStack, count: int) -> tuple[dict[int, list[Client]], int]:
    """Open ``count`` streams on each of two workers; return them by process, and how many were opened in all."""
    held: dict[int, list[Client]] = defaultdict(list)
    for opened in itertools.count(1):
        client = Client(server, "/events?channel=a")
        clients = held[int(client.response.headers["X-Worker"])]
        if len(clients) < count:
            clients.append(stack.enter_context(closing(client)))
        else:
            client.close()
        if [len(clients) for clients in held.values()] == [count, count]:
            return held, opened
    raise AssertionError


def await_clients(server: Server, held: dict[int, list[Client]]) -> None:
    """Wait until each process has noticed which of its other clients have left."""
    expected = {process: len(clients) for process, clients in held.items()}
    found: dict[int, int] = {}

    def is_so() -> bool:
        state = get(server, "/state")
        found[state["pid"]] = state["clients"]
        return found == expected

    until(is_so, "the others to be counted out")


def await_both(server: WorkersServer, gone: Collection[int]) -> None:
    """Wait until two other workers serve and these are gone: an earlier signal to the new ones may be lost."""
    pids: set[int] = set()

    def both() -> bool:
        with suppress(OSError):
            pids.add(get(server, "/state")["pid"])
        return len(pids - set(gone)) == 2 and not set(gone) & {worker.pid for worker in server.workers}

    until(both, "the next workers")


def files_of(tmp_path: Path, process: int) -> list[str]:
    """Return the kinds of metric files that a process shares."""
    return sorted(path.name.removesuffix(f"_{process}.db") for path in tmp_path.glob(f"metrics/*_{process}.db"))


@pytest.mark.parametrize(("kind", "preload"), [("gevent", ["--preload"]), ("gthread", [])], ids=["gevent", "gthread"])
def test_metrics_of_two_workers_add_up_and_outlive_them(kind: str, preload: Sequence[str], tmp_path: Path) -> None:
    with serving(kind, tmp_path, *preload, interval=0.1) as server, ExitStack() as stack:
        held, opened = connect(server, stack, 3)
        scrapes = Scrapes(server)
        scrapes.come_to(clients=6, streams_opened=opened, disconnected=opened - 6)
        for count in (4, 2):
            post(server, f"/publish/a/{count}")
        for client in itertools.chain(*held.values()):
            assert len(client.events(6)) == 6
        assert answer(server, "GET", "/events/secret")[0] == 403
        samples = scrapes.come_to(deliveries=36, events_published=6, publish_seconds_count=6, requests_denied=1)
        outlet = {"gevent": "handed_off", "gthread": "server"}[kind]
        assert (samples[f'sse_clients{{outlet="{outlet}"}}'], samples["sse_broker_up"]) == (6, 1)

        stopped, killed = held
        os.kill(stopped, signal.SIGTERM)
        for client in held[stopped]:
            assert b"retry: " in client.rest()
        scrapes.come_to(clients=3, shutdown=3, streams_opened=opened)
        os.kill(killed, signal.SIGKILL)
        scrapes.come_to(clients=0, shutdown=3, streams_opened=opened, deliveries=36)
        await_both(server, held)
        with connected(server, "/events?channel=a"):
            scrapes.come_to(clients=1, streams_opened=opened + 1)
        assert server._process is not None
        assert files_of(tmp_path, server._process.pid) == [], "the gunicorn master has none"
        assert files_of(tmp_path, killed) == files_of(tmp_path, stopped) == ["counter", "histogram"]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_worker_writes_its_final_counts_at_exit(kind: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path, interval=3600, hook=False) as server, ExitStack() as stack:
        held, opened = connect(server, stack, 2)
        await_clients(server, held)
        post(server, "/publish/a/5")
        for client in itertools.chain(*held.values()):
            assert len(client.events(5)) == 5
        server.signal(signal.SIGHUP)
        for client in itertools.chain(*held.values()):
            assert b"retry: " in client.rest()
        scrapes = Scrapes(server)
        scrapes.come_to(streams_opened=opened, disconnected=opened - 4, shutdown=4)
        scrapes.come_to(deliveries=20, publish_seconds_count=5, events_published=5)
        await_both(server, held)
        assert [files_of(tmp_path, process) for process in held] == [["counter", "histogram"]] * 2


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_every_scrape_during_reload_has_the_gauges(kind: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path, interval=3600) as server, ExitStack() as stack:
        held, _ = connect(server, stack, 1)
        scrapes = Scrapes(server)
        server.signal(signal.SIGHUP)
        while {worker.pid for worker in server.workers} & set(held):
            samples = scrapes()
            assert {"sse_broker_up", 'sse_clients{outlet="server"}', "sse_draining"} <= set(samples)
        assert in_short(scrapes())["clients"] == 0
        await_both(server, held)


# Without prometheus_client.


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """An environment with all installed packages except prometheus_client."""
    assert prometheus_client.__file__
    packages = Path(prometheus_client.__file__).parent.parent
    for package in packages.iterdir():
        if not package.name.startswith("prometheus"):
            (tmp_path / package.name).symlink_to(package)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}


def test_import_without_metrics_extra_names_package_to_install(without: dict[str, str]) -> None:
    script = """
from flask import Flask
from flask_sse_emitters import SSE
from flask_sse_emitters.gunicorn import child_exit
SSE(Flask("app")).stats()
child_exit(None, None)
import flask_sse_emitters.metrics
"""
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=without, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    needs = "ImportError: metrics need the package prometheus-client: pip install 'flask-sse-emitters[metrics]'"
    assert done.stderr.splitlines()[-1] == needs
    assert "child_exit" not in done.stderr
