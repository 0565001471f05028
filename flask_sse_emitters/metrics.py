"""Prometheus metrics of an app's streams: behind the extra ``[metrics]``.

In a single process they are read from ``sse.stats()`` when they are scraped. gunicorn's workers are several, and a
scrape reaches one of them: so prometheus_client adds up files, and each process keeps its own up to date.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache, partial
from itertools import accumulate
from weakref import WeakSet

from flask import Flask, request_started, request_tearing_down

from .config.context import EXTENSION
from .extension import SSE
from .runtime.calls import call_and_log
from .runtime.fork import reset_after_fork
from .runtime.gevent_loop import wait_while
from .runtime.locks import fork_lock, native_lock
from .runtime.scheduler import FIGURES, SCHEDULER
from .server.app_state import State
from .signals import broker_changed, emitter_opened, event_published
from .streams.registry.draining import AFTER_EXIT, drain_at_exit
from .tools.metric_definitions import COUNTERS, GAUGES, PUBLISH_SECONDS, MetricDefinition
from .tools.metric_files import reserve
from .types import Stats

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.multiprocess import mark_process_dead
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    if error.name != "prometheus_client":
        raise
    raise ImportError(
        "metrics need the package prometheus-client: pip install 'flask-sse-emitters[metrics]'", name=error.name
    ) from error

__all__ = ["BUCKETS", "INTERVAL", "SseMetrics"]

log = logging.getLogger("flask_sse_emitters.metrics")

#: Seconds between two updates of a process's files, while there is anything to write.
INTERVAL = 2.0

#: Seconds that a process waits at its exit for an update under way.
EXIT_SECONDS = 1.0

#: The upper bounds, in seconds, of the buckets of ``sse_publish_seconds``; a last bucket has no bound.
BUCKETS = (50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_Key = tuple[str, str]  # the name of a metric, and its label


#: Held while the files are written: a child forked meanwhile would wait for prometheus_client's lock forever.
_no_forks = fork_lock()


class SseMetrics:
    """The metrics of one app's streams, in a registry of prometheus_client.

    ::

        from flask_sse_emitters.metrics import SseMetrics

        SseMetrics(sse)

    once, before the first stream: where the app is made. Then the registry has the ``sse_...`` metrics, exact at the
    moment when it is gathered. Nothing runs for that, and no view is added: the view that a scraper requests is yours.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, and not empty, prometheus_client works for several processes: the view
    gathers a ``MultiProcessCollector``, which adds up all of them as they were :data:`INTERVAL` seconds ago at most. A
    process that ends adds all that it has counted; one that is killed loses what it counted since its last update.
    With ``child_exit`` of :mod:`flask_sse_emitters.gunicorn` its clients are no longer counted then.

    :param sse: has its app already, or is given it here.
    :param app: which one, where ``sse`` has several.
    :param registry: where they are registered. Several apps of a process need one each.
    :param prefix: begins the names of all metrics. Where there are several processes, there is one registry for all
        apps, and each app of a process needs a prefix of its own.
    :raises ValueError: where metrics of these names exist already; or ``PROMETHEUS_MULTIPROC_DIR`` is no folder.
    :raises NotInitialized: where there is not exactly one app, and none is given.
    """

    def __init__(
        self, sse: SSE, app: Flask | None = None, *, registry: CollectorRegistry = REGISTRY, prefix: str = "sse"
    ) -> None:
        self._state = sse.find_state(app)
        self._prefix = prefix
        self._latencies = _Latencies()
        folder = os.environ.get(_FOLDER) or None  # empty: a unit or a Compose file means unset
        if folder is not None:
            _check_shared(folder, prefix)
        self._register(registry)
        app = self._state.app
        app.extensions.setdefault(f"{EXTENSION}_metrics", []).append(self)  # signals know their receivers weakly
        event_published.connect(self._latencies.note_published, sender=app)
        self._writer = None if folder is None else _Writer(self._state, prefix, folder, self._latencies)

    def describe(self) -> Iterator[Metric]:
        """Yield all metrics without values, for the registry."""
        yield from map(self._make_family, (*GAUGES, *COUNTERS))
        yield self._make_latency_family()

    def collect(self) -> Iterator[Metric]:
        """Yield this process's metrics as they are now, for the registry. From any thread; O(clients)."""
        stats = self._state.stats()
        for metric in (*GAUGES, *COUNTERS):
            family = self._make_family(metric)
            for label, value in metric.values(stats).items():
                family.add_metric([label] if label else [], value)
            yield family
        yield self._make_latency_family()

    def _make_family(self, metric: MetricDefinition) -> CounterMetricFamily | GaugeMetricFamily:
        family = CounterMetricFamily if metric.mode is None else GaugeMetricFamily
        return family(f"{self._prefix}_{metric.name}", metric.text, labels=metric.labels)

    def _make_latency_family(self) -> Metric:
        counts, seconds = self._latencies.read()
        bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
        name, text = PUBLISH_SECONDS
        family = HistogramMetricFamily(f"{self._prefix}_{name}", text)
        family.add_metric([], buckets=list(zip(bounds, accumulate(counts), strict=True)), sum_value=seconds)
        return family

    def _register(self, registry: CollectorRegistry) -> None:
        try:
            registry.register(self)
        except ValueError as error:
            raise ValueError(
                f"this registry has metrics named {self._prefix}_... already: say SseMetrics(sse) once for each app, "
                "and give each app a registry, or a prefix, of its own"
            ) from error


def _check_shared(folder: str, prefix: str) -> None:
    if not os.path.isdir(folder):
        raise ValueError(f"{_FOLDER}={folder!r} is not a directory: create it, empty, before the server starts")
    if any(writer.prefix == prefix for writer in _writers):
        raise ValueError(
            f"this process has metrics named {prefix}_... already, and with {_FOLDER} all registries are "
            'one: give this app names of its own, such as SseMetrics(sse, prefix="shop_sse")'
        )


class _Latencies:
    """A histogram of how long publishing took in this process. Any thread may call.

    prometheus_client's own has one lock for the whole process, which may be gevent's.
    """

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._counts = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def note_published(self, _app: Flask, *, seconds: float, **_more: object) -> None:
        bucket = bisect_left(BUCKETS, seconds)
        with self._lock:
            self._counts[bucket] += 1
            self._seconds += seconds

    def read(self) -> tuple[list[int], float]:
        """Return the count in each bucket, and the sum of all seconds."""
        with self._lock:
            return list(self._counts), self._seconds


class _Writer:
    """Keeps the files of this process up to date, where several processes share a folder. Any thread may call.

    It starts with the first request, so that nothing is written before a fork.
    """

    def __init__(self, state: State, prefix: str, folder: str, latencies: _Latencies) -> None:
        self.prefix = prefix
        self.folder = folder
        self._state = state
        self._latencies = latencies
        self._reset()
        reset_after_fork(self._reset)
        request_started.connect(self._write_first, sender=state.app)
        for signal in (emitter_opened, event_published, broker_changed, request_tearing_down):
            signal.connect(self._schedule, sender=state.app)
        _writers.add(self)
        _write_at_exit()

    def _reset(self) -> None:
        self._lock = native_lock()
        self._is_due = False  # an update is scheduled
        self._has_begun = False
        self._is_full_logged = False
        self._files: _Files | None = None  # once there is something in them
        self._written: dict[_Key, float] = {}  # how much of each count

    @property
    def has_begun(self) -> bool:
        """Whether this process has files, or will have."""
        return self._files is not None or self._is_due

    def write(self) -> bool:
        """Bring the files up to date, and return whether more is expected. May wait for the disk."""
        files = self._open_files()
        if files is None:
            return False
        stats = self._state.stats()
        new = self._take_new(stats)
        with _no_forks:
            for key, count in new.items():
                files.add(key, count)
            files.set_gauges(stats)
        return bool(new or stats["clients"])

    def _write_first(self, _app: Flask, **_more: object) -> None:
        """Write with the first request, before its view, which may be that of a scrape."""
        if not self._has_begun:
            self._has_begun = True
            call_and_log(self.write)

    def _schedule(self, _app: Flask, **_more: object) -> None:
        if self._is_due:
            return
        with self._lock:
            if self._is_due:
                return
            self._is_due = True
        # On a helper thread: it reads all clients, and writes files.
        write = partial(SCHEDULER.run, self._write_and_go_on, FIGURES)
        SCHEDULER.call_at(SCHEDULER.clock() + INTERVAL, write)

    def _write_and_go_on(self) -> None:
        self._is_due = False
        if self.write():
            self._schedule(self._state.app)

    def _open_files(self) -> _Files | None:
        """Return the files; None where there is no room for them, which is logged once: the next update tries again."""
        if self._files is None:
            try:
                reserve(self.folder)
            except OSError as error:
                if not self._is_full_logged:
                    self._is_full_logged = True
                    log.warning("no metrics are kept, but streams go on: %s; this is logged once", error)
                return None
            stats = self._state.stats()
            with _no_forks:
                new = _Files(self.prefix, stats)
            with self._lock:
                self._files = self._files or new
        return self._files

    def _take_new(self, stats: Stats) -> dict[_Key, float]:
        """Return what has been counted and is not written yet, and note it as written."""
        counts: dict[_Key, float] = {
            (metric.name, label): count for metric in COUNTERS for label, count in metric.values(stats).items()
        }
        name, _ = PUBLISH_SECONDS
        buckets, seconds = self._latencies.read()
        counts |= {(name, str(bucket)): count for bucket, count in enumerate(buckets)}
        counts[name, "sum"] = seconds
        new = {}
        with self._lock:  # the update at exit may run beside another
            for key, count in counts.items():
                if count > (written := self._written.get(key, 0)):
                    new[key] = count - written
                    self._written[key] = count
        return new


class _Files:
    """The metrics of this process in the shared folder: made in the process itself, never before a fork."""

    def __init__(self, prefix: str, stats: Stats) -> None:
        self._counters = {
            metric.name: Counter(f"{prefix}_{metric.name}", metric.text, metric.labels, registry=None)
            for metric in COUNTERS
        }
        self._gauges = {
            metric.name: Gauge(
                f"{prefix}_{metric.name}",
                metric.text,
                metric.labels,
                registry=None,
                multiprocess_mode=metric.mode or "all",
            )
            for metric in GAUGES
        }
        name, text = PUBLISH_SECONDS
        self._latency = Histogram(f"{prefix}_{name}", text, registry=None, buckets=BUCKETS)
        for metric in COUNTERS:  # all labels from the start: Prometheus sees an increase only after a zero
            for label in metric.values(stats) if metric.label else ():
                self._counters[metric.name].labels(label)

    def add(self, key: _Key, count: float) -> None:
        name, label = key
        if name == PUBLISH_SECONDS[0]:
            # A Histogram has no public way to add many observations at once.
            values = self._latency
            (values._sum if label == "sum" else values._buckets[int(label)]).inc(count)  # noqa: SLF001 - no public way to add to a histogram
        else:
            counter = self._counters[name]
            (counter.labels(label) if label else counter).inc(count)

    def set_gauges(self, stats: Stats) -> None:
        for metric in GAUGES:
            gauge = self._gauges[metric.name]
            for label, value in metric.values(stats).items():
                (gauge.labels(label) if label else gauge).set(value)


_writers: WeakSet[_Writer] = WeakSet()


@cache
def _write_at_exit() -> None:
    """Have a process that exits write once more: after its streams have moved or ended."""
    drain_at_exit()
    AFTER_EXIT.append(_write_last)


def _write_last() -> None:
    # An update may be under way.
    wait_while(lambda: SCHEDULER.is_calling, SCHEDULER.clock() + EXIT_SECONDS, SCHEDULER.clock)
    begun = [writer for writer in _writers if writer.has_begun]
    for writer in begun:
        call_and_log(writer.write)
    for folder in {writer.folder for writer in begun}:  # takes the gauges out, also without child_exit
        mark_process_dead(os.getpid(), folder)  # type: ignore[no-untyped-call]
