"""What feeds the open monitors of a process: one beat a second while there are any, and none else.

Their streams are kept apart from the app's: they count for no limit of it, and show in none of its figures, so that
looking changes nothing that is looked at.
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
from ...server.response import respond, streaming
from ...server.worker import watch_worker
from ...streams.emitter import SseEmitter, stream_of
from ...streams.registry.draining import drain
from ...streams.registry.open_streams import StreamRegistry
from .others import Others
from .report import CALM_SECONDS, Rates, make_report
from .tap import Tap
from .watchers import Watchers, monitor_frame

#: Seconds from one beat to the next.
INTERVAL = 1.0

#: So many beats are kept, for the charts of whoever comes later.
KEPT = 300

#: One process feeds so many monitors at most.
MOST_MONITORS = 100

#: After so many seconds a monitor comes again, and the rule is asked again.
ASKED_EVERY = 300.0

#: What may wait for a monitor on a slow line; then the oldest is dropped.
MAX_PENDING, MAX_PENDING_BYTES = 30, 8_388_608


class Pulse:
    """Of one app, in this process. Any thread may call."""

    def __init__(self, state: State, scheduler: Scheduler = SCHEDULER) -> None:
        self._state = state
        self._scheduler = scheduler
        self._settings = replace(
            state.settings,
            max_clients=MOST_MONITORS,
            max_clients_per_identity=None,
            max_clients_per_address=None,
        )
        self.streams = StreamRegistry(self._settings, scheduler)
        self.watchers = Watchers()
        self._response_class = streaming(state._app.response_class)
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self.is_beating = False
        self._rates, self._calm_rates = Rates(), Rates(CALM_SECONDS)
        self._others = Others(self._state.channels.broker, self._scheduler.clock)
        self._points: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._due = 0.0
        self.taps: dict[str, Tap] = {}

    def watch(self, channel: str | None) -> Response:
        """A new monitor's stream, as the response to the request that is pushed here.

        :param channel: whose events it shows.
        """
        watch_worker()
        emitter = SseEmitter(
            ASKED_EVERY, max_pending=MAX_PENDING, max_pending_bytes=MAX_PENDING_BYTES, overflow="drop_oldest"
        )
        response = respond(emitter, self._response_class, self._settings, self.streams, 200, None)
        if self._state.streams.is_draining:
            drain(self.streams)
        stream_of(emitter).offer(monitor_frame("points", list(self._points.copy())))
        if channel is not None:
            self._tap(channel, emitter)
        self.watchers.add(emitter)
        self._quicken()
        return response

    def _tap(self, channel: str, emitter: SseEmitter) -> None:
        new = Tap(channel, self._state.channels.broker, self._scheduler)
        with self._lock:
            tap = self.taps.setdefault(channel, new)
            tap.users += 1
        if tap is new:
            try:
                tap.open()
            except BaseException:
                self._untap(tap)
                raise
        emitter.on_completion(lambda: self._untap(tap))
        tap.show_to(emitter)

    def _untap(self, tap: Tap) -> None:
        with self._lock:
            tap.users -= 1
            is_last = not tap.users
            if is_last:
                self.taps.pop(tap.channel, None)
        if is_last:
            tap.close()

    def _quicken(self) -> None:
        with self._lock:
            begins, self.is_beating = not self.is_beating, True
        if begins:
            self._due = self._scheduler.clock()
            self._scheduler.run(self._beat, FIGURES)

    def _beat(self) -> None:
        """On a helper thread, because it may wait for the broker."""
        try:
            report = self._report()
            self._points.append(report["point"])
            self.watchers.show("figures", report)
            if self._state.streams.is_draining:  # sse.shutdown() was called
                drain(self.streams)
        finally:
            self._due = max(self._due + INTERVAL, self._scheduler.clock())
            self._scheduler.call_at(self._due, self._go_on)

    def _go_on(self) -> None:
        with self._lock:
            self.is_beating = len(self.watchers) > 0
        if self.is_beating:
            self._scheduler.run(self._beat, FIGURES)

    def _report(self) -> dict[str, Any]:
        broker = self._state.channels.broker
        here = {**self._state.stats(), "id": broker.process, "age": 0.0}
        clock = self._scheduler.clock()
        others = self._others.look(here["broker"]["state"] == "ok")
        report = make_report([here, *(others or ())], self._rates, self._calm_rates, time.time(), clock)
        return {**report, "is_shared": broker.is_shared, "sees_all": others is not None, "monitors": len(self.streams)}
