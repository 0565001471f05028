"""Sample the events of one channel for monitors: of limited number and size, whatever is published."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ...brokers import Broker, Start
from ...brokers.event_log import Log
from ...runtime.locks import native_lock
from ...runtime.scheduler import FIGURES, SCHEDULER, Scheduler
from ...streams.emitter import SseEmitter, stream_of
from ...streams.pending.offer import offer
from ...wire.decoder import decode
from ...wire.frame import Frame
from .audience import MonitorClients, monitor_frame

#: How many of the newest events are shown.
EVENTS_SHOWN = 50

#: How many bytes of each event are shown.
BYTES_SHOWN = 4096

#: Seconds for which events are collected, so that a channel with thousands a second costs no more than one with ten.
COLLECT_SECONDS = 0.1


class ChannelSample:
    """A listener of one channel for the monitors that show it; it is no client of the channel.

    Any thread may call any method.

    :ivar users: how many monitors show it. Guarded by the lock of :class:`.MonitorFeeder`.
    """

    clients = 0

    def __init__(self, channel: str, broker: Broker, scheduler: Scheduler = SCHEDULER) -> None:
        self.channel = channel
        self.users = 0
        self._broker = broker
        self._scheduler = scheduler
        self._monitors = MonitorClients()
        self._lock = native_lock()
        self._log: Log | None = None
        self._newest_offset = 0
        self._collected: deque[Frame] = deque(maxlen=EVENTS_SHOWN)
        self._unsent = 0  # events since the last one sent to monitors, including those that are not shown
        self._is_collecting = False

    def open(self) -> None:
        """Start to listen. Never waits."""
        start = self._broker.subscribe(self.channel, self)
        if start is not None:
            self.started(start)

    def close(self) -> None:
        """Stop listening. Never waits."""
        self._broker.unsubscribe(self.channel, self)

    def add(self, monitor: SseEmitter) -> None:
        """Send a monitor the events that the channel keeps, and those to come."""
        self._monitors.add(monitor)
        if self._log is not None:
            offer(stream_of(monitor), monitor_frame("kept", self._read_kept(self._log)))

    def started(self, start: Start) -> None:
        """Send monitors what the log keeps, and note from where on events arrive: see :class:`.Listener`."""
        with self._lock:
            self._log, self._newest_offset = start.log, start.newest
            self._collected.clear()
            self._unsent = 0
        self._monitors.send_json("kept", self._read_kept(start.log))

    def arrived(self, frames: Sequence[Frame]) -> None:
        """Collect these events, and send them within :data:`COLLECT_SECONDS`: see :class:`.Listener`."""
        with self._lock:
            new = [frame for frame in frames if frame.offset > self._newest_offset and frame.is_event]
            self._newest_offset = max(self._newest_offset, frames[-1].offset)
            self._collected.extend(new)
            self._unsent += len(new)
            starts = bool(new) and not self._is_collecting
            self._is_collecting = self._is_collecting or starts
        if starts:
            due = self._scheduler.clock() + COLLECT_SECONDS
            self._scheduler.call_at(due, lambda: self._scheduler.run(self._send_collected, FIGURES))

    def _send_collected(self) -> None:
        with self._lock:
            frames, unsent = list(self._collected), self._unsent
            self._collected.clear()
            self._unsent, self._is_collecting = 0, False
        skipped = unsent - len(frames)
        self._monitors.send_json("events", {**self._describe(frames), "skipped": skipped})

    def _read_kept(self, log: Log) -> dict[str, Any]:
        newest = log.newest
        frames = log.after(newest - EVENTS_SHOWN, newest, math.inf)
        return self._describe([frame for frame in frames if frame.is_event])

    def _describe(self, frames: Sequence[Frame]) -> dict[str, Any]:
        clock_to_time = time.time() - self._scheduler.clock()
        return {"channel": self.channel, "events": [_describe_event(frame, clock_to_time) for frame in frames]}


def _describe_event(frame: Frame, clock_to_time: float) -> dict[str, Any]:
    """Describe an event as a browser would get it, cut where it is long.

    Foreign programs may write several events as one: then the first counts.
    """
    head = _cut(frame.payload)
    # A comment before the data may fill the head: then the text is empty.
    event, *_ = decode(head + b"\n\n") or decode(head + b"\ndata\n\n")
    return {
        "id": event.id,
        "event": frame.name,
        "data": event.data,
        "at": round((clock_to_time + frame.at) * 1000),
        "size": len(frame.payload),
        "is_cut": len(head) < len(frame.payload),
    }


def _cut(payload: bytes) -> bytes:
    """Cut UTF-8 after :data:`BYTES_SHOWN` bytes, or before the character that would be split."""
    end = BYTES_SHOWN
    while end < len(payload) and end > BYTES_SHOWN - 4 and payload[end] & 0xC0 == 0x80:
        end -= 1
    return payload[:end]
