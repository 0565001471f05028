"""Prometheus metrics of an app's streams: behind the extra ``[metrics]``.

In one process they are read from ``sse.stats()`` when somebody scrapes them. gunicorn's workers are several, and a
scrape reaches one of them: so prometheus_client adds up files, of which each process keeps its own up to date.
"""

from __future__ import annotations

import atexit
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
from .runtime.gevent_loop import pause
from .runtime.locks import native_lock
from .runtime.scheduler import FIGURES, SCHEDULER
from .signals import broker_changed, emitter_opened, event_published
from .tools.metric_definitions import COUNTERS, GAUGES, Figure, Stats
from .tools.metric_files import reserve

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

#: Seconds from one time to the next that a process brings its files up to date, while it has anything to say.
INTERVAL = 2.0

#: Seconds that a process which exits waits for what is being written.
LAST_SECONDS = 1.0

#: The upper bounds in seconds of what ``sse_publish_seconds`` tells apart; a last one has no bound.
BUCKETS = (50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_LATENCY = "publish_seconds", "How long publishing an event took, until the broker had it."

_Key = tuple[str, str]  # the name of a figure, and its label


class SseMetrics:
    """The metrics of one app's streams, in a registry of prometheus_client.

    ::

        from flask_sse_emitters.metrics import SseMetrics

        SseMetrics(sse)

    once, before the first stream: where the app is made. Whoever gathers the registry has then the ``sse_...`` metrics,
    exact at that moment. Nothing runs for that, and no view is added: what a scraper asks for is a view of yours.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, and not empty, prometheus_client works for several processes: the view
    gathers a ``MultiProcessCollector``, which adds up all of them as they were :data:`INTERVAL` seconds ago at most. A
    process that ends brings in all that it has counted; one that is killed loses what it counted since the last time.
    Then ``child_exit`` of :mod:`flask_sse_emitters.gunicorn` sees to it that its clients are no longer counted.

    :param sse: that has its app already, or is given it here.
    :param app: which one, where ``sse`` has several.
    :param registry: where they are registered; one for each app, if there are several in a process.
    :param prefix: begins the names of all metrics. Where there are several processes, one registry serves all, and so
        each app of a process needs its own.
    :raises ValueError: where metrics of these names are there already; or ``PROMETHEUS_MULTIPROC_DIR`` is no folder.
    :raises NotInitialized: where there is not exactly one app, and none is given.
    """

    def __init__(
        self, sse: SSE, app: Flask | None = None, *, registry: CollectorRegistry = REGISTRY, prefix: str = "sse"
    ) -> None:
        self._state = sse.find_state(app)
        self._prefix = prefix
        self._folder = os.environ.get(_FOLDER) or None  # empty: a unit or a Compose file means unset
        if self._folder is not None:
            self._check_shared(self._folder)
        self._reset()
        reset_after_fork(self._reset)
        self._register(registry)
        app = self._state.app
        app.extensions.setdefault(f"{EXTENSION}_metrics", []).append(self)  # signals know it weakly
        event_published.connect(self._note_published, sender=app)
        if self._folder is not None:
            request_started.connect(self._begin, sender=app)
            for signal in (emitter_opened, event_published, broker_changed, request_tearing_down):
                signal.connect(self._wake, sender=app)
            _all.add(self)
            _write_at_exit()

    def _reset(self) -> None:
        self._lock = native_lock()
        self._latencies = [0] * (len(BUCKETS) + 1)  # how many, by the index of their bucket
        self._latency = 0.0  # seconds of all of them
        self._is_due = False  # a timer is set
        self._has_begun = False
        self._is_full = False  # it was said that there is no room for files
        self._files: _Files | None = None  # once there is something in them
        self._written: dict[_Key, float] = {}  # what of all that is counted

    def describe(self) -> Iterator[Metric]:
        """The names of all metrics, for the registry."""
        yield from map(self._family, (*GAUGES, *COUNTERS))
        yield self._latency_family()

    def collect(self) -> Iterator[Metric]:
        """This process's figures now, for the registry. From any thread; O(clients)."""
        stats = self._state.stats()
        for figure in (*GAUGES, *COUNTERS):
            family = self._family(figure)
            for label, value in figure.read(stats).items():
                family.add_metric([label] if label else [], value)
            yield family
        yield self._latency_family()

    def _family(self, figure: Figure) -> CounterMetricFamily | GaugeMetricFamily:
        family = CounterMetricFamily if figure.mode is None else GaugeMetricFamily
        return family(f"{self._prefix}_{figure.name}", figure.text, labels=figure.labels)

    def _latency_family(self) -> Metric:
        with self._lock:
            counts, seconds = list(self._latencies), self._latency
        bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
        family = HistogramMetricFamily(f"{self._prefix}_{_LATENCY[0]}", _LATENCY[1])
        family.add_metric([], buckets=list(zip(bounds, accumulate(counts), strict=True)), sum_value=seconds)
        return family

    def _check_shared(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise ValueError(f"{_FOLDER}={folder!r} is no folder: make it, empty, before the server starts")
        if any(other._prefix == self._prefix for other in _all):
            raise ValueError(
                f"this process has metrics named {self._prefix}_... already, and with {_FOLDER} all registries are "
                'one: give this app names of its own, such as SseMetrics(sse, prefix="shop_sse")'
            )

    def _register(self, registry: CollectorRegistry) -> None:
        try:
            registry.register(self)
        except ValueError as error:
            raise ValueError(
                f"this registry has metrics named {self._prefix}_... already: say SseMetrics(sse) once for each app, "
                "and give each app a registry, or a prefix, of its own"
            ) from error

    def _note_published(self, _app: Flask, *, seconds: float, **_said: object) -> None:
        # Counted here rather than by a Histogram: its lock is one for the whole process, and may be gevent's.
        bucket = bisect_left(BUCKETS, seconds)
        with self._lock:
            self._latencies[bucket] += 1
            self._latency += seconds

    # Only where there are several processes.

    def _begin(self, _app: Flask, **_said: object) -> None:
        """Write for the first time with the first request, before its view: it may be a scrape."""
        if not self._has_begun:
            self._has_begun = True
            call_and_log(self._write)

    def _wake(self, _app: Flask, **_said: object) -> None:
        """There may be something to write."""
        if self._is_due:
            return
        with self._lock:
            if self._is_due:
                return
            self._is_due = True
        # On a helper thread: it goes through all clients, and writes files.
        write = partial(SCHEDULER.run, self._write_and_go_on, FIGURES)
        SCHEDULER.call_at(SCHEDULER.clock() + INTERVAL, write)

    def _write_and_go_on(self) -> None:
        self._is_due = False
        if self._write():
            self._wake(self._state.app)

    def _write(self) -> bool:
        """Bring this process's files up to date; whether more is to be expected."""
        files = self._own_files()
        if files is None:
            return False
        stats = self._state.stats()
        new = self._count_in(stats)
        for key, count in new.items():
            files.add(key, count)
        files.set_gauges(stats)
        return bool(new or stats["clients"])

    def _own_files(self) -> _Files | None:
        """None where there is no room for them: then it is tried again with the next write, and said once."""
        if self._files is None:
            assert self._folder is not None
            try:
                reserve(self._folder)
            except OSError as error:
                if not self._is_full:
                    self._is_full = True
                    log.warning("no metrics are kept, but streams go on: %s; this is said once", error)
                return None
            new = _Files(self._prefix, self._state.stats())
            with self._lock:
                self._files = self._files or new
        return self._files

    def _count_in(self, stats: Stats) -> dict[_Key, float]:
        """What has been counted and is not written yet, which it now counts as."""
        counted = {(figure.name, label): n for figure in COUNTERS for label, n in figure.read(stats).items()}
        new = {}
        with self._lock:  # the last time may be on another thread, while this one is at it
            counted |= {(_LATENCY[0], str(bucket)): count for bucket, count in enumerate(self._latencies)}
            counted[_LATENCY[0], "sum"] = self._latency
            for key, count in counted.items():
                if count > (written := self._written.get(key, 0)):
                    new[key] = count - written
                    self._written[key] = count
        return new


class _Files:
    """The metrics of this process in the folder that all share: made in the process itself, never before a fork."""

    def __init__(self, prefix: str, stats: Stats) -> None:
        self._counters = {
            figure.name: Counter(f"{prefix}_{figure.name}", figure.text, figure.labels, registry=None)
            for figure in COUNTERS
        }
        self._gauges = {
            figure.name: Gauge(
                f"{prefix}_{figure.name}",
                figure.text,
                figure.labels,
                registry=None,
                multiprocess_mode=figure.mode or "all",
            )
            for figure in GAUGES
        }
        self._latency = Histogram(f"{prefix}_{_LATENCY[0]}", _LATENCY[1], registry=None, buckets=BUCKETS)
        for figure in COUNTERS:  # all labels from the start: an increase shows only after a zero
            for label in figure.read(stats) if figure.label else ():
                self._counters[figure.name].labels(label)

    def add(self, key: _Key, count: float) -> None:
        name, label = key
        if name == _LATENCY[0]:
            # That has no public way to take many at once.
            values = self._latency
            (values._sum if label == "sum" else values._buckets[int(label)]).inc(count)
        else:
            counter = self._counters[name]
            (counter.labels(label) if label else counter).inc(count)

    def set_gauges(self, stats: Stats) -> None:
        for figure in GAUGES:
            gauge = self._gauges[figure.name]
            for label, value in figure.read(stats).items():
                (gauge.labels(label) if label else gauge).set(value)


#: Those of this process that keep files.
_all: WeakSet[SseMetrics] = WeakSet()


@cache
def _write_at_exit() -> None:
    """Have a process that exits write for the last time: after its streams have ended, which asks for that later."""
    atexit.register(_write_last)


def _write_last() -> None:
    by = SCHEDULER.clock() + LAST_SECONDS
    while SCHEDULER.is_calling and SCHEDULER.clock() < by:  # a helper thread may still be writing
        pause(0.01)
    begun = [metrics for metrics in _all if metrics._files is not None or metrics._is_due]
    for metrics in begun:
        call_and_log(metrics._write)
    for folder in {metrics._folder for metrics in begun}:  # what it has open no longer counts, also without the hook
        mark_process_dead(os.getpid(), folder)  # type: ignore[no-untyped-call]
