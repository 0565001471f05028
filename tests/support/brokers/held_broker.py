"""A broker that answers when a test says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from flask_sse_emitters.brokers import Bounds, Broker, Frame, Listener, Log, Published, Start
from tests.support.brokers.broker_calls import KEPT


class HeldBroker(Broker):
    """A broker that starts and delivers only when the test says so, as over a slow connection."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.listeners: defaultdict[str, list[Listener]] = defaultdict(list)
        self.undelivered: defaultdict[str, list[Frame]] = defaultdict(list)
        self.lookups: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)
        self.started: set[str] = set()

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, _key: str | None = None) -> Published:
        log = self.log(channel)
        with log.guard:
            numbered = log.append(frame, bounds or KEPT)
        self.undelivered[channel].append(numbered)
        return Published(f"{log.epoch}-{numbered.offset}", is_new=True)

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        self.listeners[channel].append(listener)
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        if listener in self.listeners[channel]:
            self.listeners[channel].remove(listener)
        if not self.listeners[channel]:
            self.started.discard(channel)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        self.lookups[channel].append(done)
        self._answer(channel)

    def close(self) -> None: ...

    def log(self, channel: str) -> Log:
        return self.logs.setdefault(channel, Log("epoch", 0, lambda: 0.0))

    def start(self, channel: str) -> None:
        self.undelivered[channel].clear()
        for each in list(self.listeners[channel]):
            each.started(Start(self.log(channel), self.log(channel).newest))
        self.started.add(channel)
        self._answer(channel)

    def deliver(self, channel: str, most: int = 1000) -> None:
        delivered = self.undelivered[channel][:most]
        for each in list(self.listeners[channel]):
            each.arrived(delivered)
        del self.undelivered[channel][:most]
        self._answer(channel)

    def _answer(self, channel: str) -> None:
        """Call back lookups once everything has been delivered."""
        if channel in self.started and not self.undelivered[channel]:
            lookups, self.lookups[channel] = self.lookups[channel], []
            for done in lookups:
                done()
