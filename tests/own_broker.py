"""A broker from the ground up, with public names alone: docs/brokers.rst shows it, and ``test_brokers`` tests it."""

from __future__ import annotations

import os
import time

from flask_sse_emitters.brokers import Bounds, Broker, Frame, Listener, Log, Published, Start, new_epoch

KEY_SECONDS = 300


class OwnBroker(Broker):
    """``own://``: keeps everything in this process."""

    is_shared = False

    def __init__(self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0) -> None:  # noqa: ARG002
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a child numbers its events anew

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        there = self._channel(channel)
        with there.log.guard:
            now = time.monotonic()
            there.keys = {each: kept for each, kept in there.keys.items() if kept[0] > now - KEY_SECONDS}
            if key in there.keys:
                return Published(there.keys[key][1], is_new=False)
            there.bounds = bounds or there.bounds
            numbered = there.log.append(frame, there.bounds)
            event_id = str(there.log.position(numbered.offset))
            if key is not None:
                there.keys[key] = now, event_id
            there.untold.append(numbered)
        there.tell()
        return Published(event_id, is_new=True)

    def subscribe(self, channel: str, listener: Listener) -> Start:
        there = self._channel(channel)
        with there.log.guard:
            there.listeners = (*there.listeners, listener)
            return Start(there.log, there.log.newest)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        there = self._channel(channel)
        with there.log.guard:
            there.listeners = tuple(each for each in there.listeners if each is not listener)

    def close(self) -> None:
        self._channels.clear()

    def _begin(self) -> None:
        self._channels: dict[str, _Channel] = {}

    def _channel(self, name: str) -> _Channel:
        return self._channels.get(name) or self._channels.setdefault(name, _Channel())


class _Channel:
    """All of it is guarded by the guard of its log."""

    def __init__(self) -> None:
        self.log = Log(new_epoch(), 0, time.monotonic)
        self.bounds = Bounds(events=1000, seconds=300)
        self.keys: dict[str | None, tuple[float, str]] = {}
        self.listeners: tuple[Listener, ...] = ()
        self.untold: list[Frame] = []
        self._telling = False

    def tell(self) -> None:
        """Tell the listeners what is new, one call at a time and without the guard: they may do anything."""
        while True:
            with self.log.guard:
                if self._telling or not self.untold:
                    return  # the thread that is telling goes on with it
                self._telling = True
                listeners, frames, self.untold = self.listeners, self.untold, []
            for listener in listeners:
                listener.arrived(frames)
            with self.log.guard:
                self._telling = False
