"""The events of one channel, as monitors show them: bounded, however many and however large they are."""

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
from ...wire.decoder import decode
from ...wire.frame import Frame
from .watchers import Watchers, monitor_frame

#: So many of the newest events are shown.
SHOWN = 50

#: Of each so many bytes.
BYTES_SHOWN = 4096

#: Seconds for which events are gathered, so that a channel with thousands a second costs no more than one with ten.
GATHERED = 0.1


class Tap:
    """Listens to a channel for the monitors that show it, and counts as no client of it. Any thread may call.

    :ivar users: how many monitors show it.
    """

    clients = 0

    def __init__(self, channel: str, broker: Broker, scheduler: Scheduler = SCHEDULER) -> None:
        self.channel = channel
        self.users = 0
        self._broker = broker
        self._scheduler = scheduler
        self._watchers = Watchers()
        self._lock = native_lock()
        self._log: Log | None = None
        self._offset = 0  # of the newest event that has come
        self._news: deque[Frame] = deque(maxlen=SHOWN)
        self._untold = 0  # events since the monitors were last told, also those that are not shown
        self._gathering = False

    def open(self) -> None:
        """Begin to listen."""
        start = self._broker.subscribe(self.channel, self)
        if start is not None:
            self.started(start)

    def close(self) -> None:
        """Listen no more."""
        self._broker.unsubscribe(self.channel, self)

    def show_to(self, emitter: SseEmitter) -> None:
        """Have one more monitor see what is kept, and what comes from now on."""
        self._watchers.add(emitter)
        if self._log is not None:
            stream_of(emitter).offer(monitor_frame("kept", self._kept(self._log)))

    def started(self, start: Start) -> None:
        with self._lock:
            self._log, self._offset = start.log, start.newest
            self._news.clear()
            self._untold = 0
        self._watchers.show("kept", self._kept(start.log))

    def arrived(self, frames: Sequence[Frame]) -> None:
        with self._lock:
            new = [frame for frame in frames if frame.offset > self._offset and frame.name is not None]
            self._offset = max(self._offset, frames[-1].offset)
            self._news.extend(new)
            self._untold += len(new)
            begins = bool(new) and not self._gathering
            self._gathering = self._gathering or begins
        if begins:
            self._scheduler.call_at(
                self._scheduler.clock() + GATHERED, lambda: self._scheduler.run(self._tell, FIGURES)
            )

    def _tell(self) -> None:
        with self._lock:
            news, untold = list(self._news), self._untold
            self._news.clear()
            self._untold, self._gathering = 0, False
        self._watchers.show(
            "events",
            {"channel": self.channel, "events": self._shown(news), "skipped": untold - len(news)},
        )

    def _kept(self, log: Log) -> dict[str, Any]:
        newest = log.newest
        kept = [frame for frame in log.after(newest - SHOWN, newest, math.inf) if frame.name is not None]
        return {"channel": self.channel, "events": self._shown(kept)}

    def _shown(self, frames: Sequence[Frame]) -> list[dict[str, Any]]:
        began = time.time() - self._scheduler.clock()
        return [_shown(frame, began) for frame in frames]


def _shown(frame: Frame, began: float) -> dict[str, Any]:
    """The event as a browser would get it, cut where it is long; the first of several that somebody wrote as one."""
    head = _head(frame.payload)
    # Before its data there may be more of a comment than is shown of the whole: then it has an empty text.
    event, *_ = decode(head + b"\n\n") or decode(head + b"\ndata\n\n")
    return {
        "id": event.id,
        "event": frame.name,
        "data": event.data,
        "at": round((began + frame.at) * 1000),
        "size": len(frame.payload),
        "is_cut": len(head) < len(frame.payload),
    }


def _head(payload: bytes) -> bytes:
    """What is shown of it: whole characters."""
    end = BYTES_SHOWN
    while end < len(payload) and end > BYTES_SHOWN - 4 and payload[end] & 0xC0 == 0x80:
        end -= 1
    return payload[:end]
