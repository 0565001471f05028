"""A broker from scratch, written with public names only: docs/brokers.rst shows it, ``test_contract`` tests it."""

from __future__ import annotations

import os
import time

from flask_sse_emitters.brokers import Bounds, Broker, Frame, Listener, Log, Published, Start, new_epoch

KEY_SECONDS = 300


class OwnBroker(Broker):
    """``own://``: stores everything in this process."""

    is_shared = False

    def __init__(self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0) -> None:  # noqa: ARG002
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a child numbers its own events

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        state = self._channel(channel)
        with state.log.guard:
            now = time.monotonic()
            state.keys = {each: kept for each, kept in state.keys.items() if kept[0] > now - KEY_SECONDS}
            if key in state.keys:
                return Published(state.keys[key][1], is_new=False)
            state.bounds = bounds or state.bounds
            numbered = state.log.append(frame, state.bounds)
            event_id = str(state.log.position(numbered.offset))
            if key is not None:
                state.keys[key] = now, event_id
            state.undelivered.append(numbered)
        state.deliver()
        return Published(event_id, is_new=True)

    def subscribe(self, channel: str, listener: Listener) -> Start:
        state = self._channel(channel)
        with state.log.guard:
            state.listeners = (*state.listeners, listener)
            return Start(state.log, state.log.newest)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        state = self._channel(channel)
        with state.log.guard:
            state.listeners = tuple(each for each in state.listeners if each is not listener)

    def close(self) -> None:
        self._channels.clear()

    def _begin(self) -> None:
        self._channels: dict[str, _Channel] = {}

    def _channel(self, name: str) -> _Channel:
        return self._channels.get(name) or self._channels.setdefault(name, _Channel())


class _Channel:
    """The state of one channel, protected by the lock of its log."""

    def __init__(self) -> None:
        self.log = Log(new_epoch(), 0, time.monotonic)
        self.bounds = Bounds(events=1000, seconds=300)
        self.keys: dict[str | None, tuple[float, str]] = {}
        self.listeners: tuple[Listener, ...] = ()
        self.undelivered: list[Frame] = []
        self._delivering = False

    def deliver(self) -> None:
        """Deliver new events, one call at a time, and without the lock, because listeners may do anything."""
        while True:
            with self.log.guard:
                if self._delivering or not self.undelivered:
                    return  # the thread that is delivering takes these, too
                self._delivering = True
                listeners, frames, self.undelivered = self.listeners, self.undelivered, []
            for listener in listeners:
                listener.arrived(frames)
            with self.log.guard:
                self._delivering = False
