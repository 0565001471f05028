"""A broker from scratch, written with public names only: docs/brokers.rst shows it, ``test_contract`` tests it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from flask_sse_emitters.brokers import (
    CHANNEL_END,
    INTERRUPTED,
    Bounds,
    Broker,
    ChannelState,
    Frame,
    Listener,
    Log,
    Publication,
    Published,
    RunLost,
    Start,
    new_epoch,
)

KEY_SECONDS = 300


class OwnBroker(Broker):
    """``own://``: stores everything in this process."""

    is_shared = False

    def __init__(self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0) -> None:  # noqa: ARG002
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a child numbers its own events

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        [published] = self.publish_many([Publication(channel, frame, bounds, key)])
        assert isinstance(published, Published)
        return published

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        results: dict[int, Published | Exception] = {}
        for name in {each.channel for each in publications}:
            channel = self._channel(name)
            with channel.log.guard:  # so all events of the channel are kept together
                for index, each in enumerate(publications):
                    if each.channel == name:
                        results[index] = channel.publish(each)
            channel.deliver()
        return [results[index] for index in range(len(publications))]

    def state(self, channel: str) -> ChannelState:
        return ChannelState.of(self._channel(channel).log)

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        found = self._channel(channel)
        with found.log.guard:
            if found.run is None:
                found.run, found.run_seconds = run, seconds
                found.log.begin_anew()
                found.log.has_run = True
                found.watch_run(found.renew_run())
            return found.run == run

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        found = self._channel(channel)
        with found.log.guard:
            if found.run == run:
                found.run_seconds = seconds
                found.renew_run()
            return found.run == run

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        found = self._channel(channel)
        with found.log.guard:
            if found.run is None:
                return False
            found.publish(Publication(channel, CHANNEL_END, bounds))
        found.deliver()
        return True

    def subscribe(self, channel: str, listener: Listener) -> Start:
        found = self._channel(channel)
        with found.log.guard:
            found.listeners = (*found.listeners, listener)
            return Start(found.log, found.log.newest)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        found = self._channel(channel)
        with found.log.guard:
            found.listeners = tuple(each for each in found.listeners if each is not listener)

    def close(self) -> None:
        self._channels.clear()

    def _begin(self) -> None:
        self._channels: dict[str, _Channel] = {}

    def _channel(self, name: str) -> _Channel:
        return self._channels.get(name) or self._channels.setdefault(name, _Channel(name))


class _Channel:
    """The state of one channel, protected by the lock of its log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = Log(new_epoch(), 0, time.monotonic)
        self.bounds = Bounds(events=1000, seconds=300)
        self.keys: dict[str | None, tuple[float, str]] = {}
        self.listeners: tuple[Listener, ...] = ()
        self.undelivered: list[Frame] = []
        self.run: str | None = None
        self.run_seconds = self.run_until = 0.0
        self._delivering = False

    def publish(self, publication: Publication) -> Published | Exception:
        _, frame, bounds, key, run = publication
        now = time.monotonic()
        self.keys = {each: kept for each, kept in self.keys.items() if kept[0] > now - KEY_SECONDS}
        if key in self.keys:
            return Published(self.keys[key][1], is_new=False)
        if run is not None:
            if run != self.run:
                return RunLost(self.name)
            self.renew_run()
        if frame.is_end and self.log.is_complete:
            return Published(str(self.log.position(self.log.newest)), is_new=False)
        self.bounds = bounds or self.bounds
        numbered = self.log.append(frame, self.bounds)
        event_id = str(self.log.position(numbered.offset))
        if key is not None:
            self.keys[key] = now, event_id
        if frame.is_end:
            self.run = None
        self.undelivered.append(numbered)
        return Published(event_id, is_new=True)

    def renew_run(self) -> float:
        self.run_until = time.monotonic() + self.run_seconds
        return self.run_until

    def watch_run(self, until: float) -> None:
        timer = threading.Timer(until - time.monotonic(), self._check_run, [self.run])
        timer.daemon = True
        timer.start()

    def _check_run(self, run: str) -> None:
        with self.log.guard:
            if self.run != run:
                return
            if self.run_until > time.monotonic():
                self.watch_run(self.run_until)
                return
            for frame in (INTERRUPTED, CHANNEL_END):
                self.publish(Publication(self.name, frame, None))
        self.deliver()

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
