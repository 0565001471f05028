"""Feed the open monitors of a process: once a second while there are any.

The streams of monitors are kept apart from the app's: they count towards none of its limits and figures, so that
watching changes nothing that is watched.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any

from flask import Response

from ...runtime.fork import reset_after_fork
from ...runtime.locks import native_lock
from ...runtime.scheduler import FIGURES, SCHEDULER, Scheduler
from ...server.app_state import State
from ...server.response import make_streaming_class, respond
from ...server.worker import watch_worker
from ...streams.emitter import SseEmitter, stream_of
from ...streams.pending.offer import offer
from ...streams.registry.draining import drain
from ...streams.registry.open_streams import StreamRegistry
from .audience import MonitorClients, monitor_frame
from .remote import RemoteProcesses
from .report import SMOOTH_SECONDS, Rates, make_report
from .sample import ChannelSample

#: Seconds from one tick to the next.
TICK_SECONDS = 1.0

#: How many points of the chart are kept, for monitors that open later.
POINTS_KEPT = 300

#: How many monitors one process feeds.
MAX_MONITORS = 100

#: Seconds after which a monitor's stream ends; the page reconnects, and the rule is asked again.
LIFETIME_SECONDS = 300.0

#: What may be pending for a monitor on a slow line; beyond that the oldest events are dropped.
MAX_PENDING, MAX_PENDING_BYTES = 30, 8_388_608


class MonitorFeeder:
    """The monitors of one app, in this process. Any thread may call any method.

    :ivar samples: by channel, what monitors show of its events.
    """

    def __init__(self, state: State, scheduler: Scheduler = SCHEDULER) -> None:
        self._state = state
        self._scheduler = scheduler
        self._settings = replace(
            state.settings,
            max_clients=MAX_MONITORS,
            max_clients_per_identity=None,
            max_clients_per_address=None,
        )
        self.streams = StreamRegistry(self._settings, scheduler)
        self.monitors = MonitorClients()
        self._response_class = make_streaming_class(state.app.response_class)
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self.is_ticking = False
        self._rates, self._smooth_rates = Rates(), Rates(SMOOTH_SECONDS)
        self._remote = RemoteProcesses(self._state.channels.broker, self._scheduler.clock)
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS_KEPT)
        self._due = 0.0
        self.samples: dict[str, ChannelSample] = {}

    def open_stream(self, channel: str | None) -> Response:
        """Return a new monitor's stream, as the response to the current request.

        :param channel: whose events the monitor shows.
        """
        watch_worker()
        emitter = SseEmitter(
            LIFETIME_SECONDS, max_pending=MAX_PENDING, max_pending_bytes=MAX_PENDING_BYTES, overflow="drop_oldest"
        )
        response = respond(emitter, self._response_class, self._settings, self.streams, 200, None)
        if self._state.streams.is_draining:
            drain(self.streams)
        offer(stream_of(emitter), monitor_frame("points", list(self._points.copy())))
        if channel is not None:
            self._show_channel(channel, emitter)
        self.monitors.add(emitter)
        self._start_ticking()
        return response

    def _show_channel(self, channel: str, emitter: SseEmitter) -> None:
        new = ChannelSample(channel, self._state.channels.broker, self._scheduler)
        with self._lock:
            sample = self.samples.setdefault(channel, new)
            sample.users += 1
        if sample is new:
            try:
                sample.open()
            except BaseException:
                self._release(sample)
                raise
        emitter.on_completion(lambda: self._release(sample))
        sample.add(emitter)

    def _release(self, sample: ChannelSample) -> None:
        with self._lock:
            sample.users -= 1
            is_last = not sample.users
            if is_last:
                self.samples.pop(sample.channel, None)
        if is_last:
            sample.close()

    def _start_ticking(self) -> None:
        with self._lock:
            starts, self.is_ticking = not self.is_ticking, True
        if starts:
            self._due = self._scheduler.clock()
            self._scheduler.run(self._tick, FIGURES)

    def _tick(self) -> None:
        """Send all monitors a report. Only on the thread for figures, because it may wait for the broker."""
        try:
            report = self._report()
            self._points.append(report["point"])
            self.monitors.send_json("figures", report)
            if self._state.streams.is_draining:  # sse.shutdown() was called
                drain(self.streams)
        finally:
            self._due = max(self._due + TICK_SECONDS, self._scheduler.clock())
            self._scheduler.call_at(self._due, self._tick_again)

    def _tick_again(self) -> None:
        with self._lock:
            self.is_ticking = len(self.monitors) > 0
        if self.is_ticking:
            self._scheduler.run(self._tick, FIGURES)

    def _report(self) -> dict[str, Any]:
        broker = self._state.channels.broker
        stats = self._state.stats()
        here = {**stats, "id": broker.process, "age": 0.0}
        clock = self._scheduler.clock()
        others = self._remote.fetch(stats["broker"]["state"] == "ok")
        report = make_report([here, *(others or ())], self._rates, self._smooth_rates, time.time(), clock)
        return {**report, "is_shared": broker.is_shared, "sees_all": others is not None, "monitors": len(self.streams)}
