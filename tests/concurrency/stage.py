"""The package under an explorer's control: its locks, and everything that runs in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.broadcast import copy_on_write, delivery
from flask_sse_emitters.brokers import Broker
from flask_sse_emitters.brokers import event_log as history
from flask_sse_emitters.brokers.event_log import Bounds
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.brokers.memory import records as memory
from flask_sse_emitters.brokers.memory.moves import inheritance
from flask_sse_emitters.channels.process_subscription import ProcessSubscription
from flask_sse_emitters.channels.replay.machine import Replay
from flask_sse_emitters.channels.replay.pages import PageCache
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams import machine
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry import open_streams as streams
from flask_sse_emitters.wire.frame import make_frame
from flask_sse_emitters.writers import response_body as wsgi
from flask_sse_emitters.writers import socket_writer as direct
from tests.concurrency.interleavings import Explorer
from tests.unit.doubles.clock import ManualScheduler, emitter_at

#: Modules of the package in which each line is a yield point, if lines are.
TRACED = (
    *(
        "streams/emitter",
        "streams/machine",
        "streams/stream",
        "streams/outgoing",
        "streams/ends",
        "streams/pending/backlog",
    ),
    *("broadcast/emitters", "broadcast/delivery", "broadcast/member", "broadcast/batch", "broadcast/copy_on_write"),
    *("channels/replay/machine", "channels/replay/locating", "channels/replay/reading", "channels/replay/cursor"),
    *("channels/replay/gap", "channels/replay/pages", "channels/process_subscription"),
    *("brokers/event_log", "brokers/memory/broker"),
    *("brokers/memory/audience", "brokers/memory/moves/inheritance", "brokers/memory/record", "brokers/memory/records"),
)

#: The type of the fixture ``every``.
Every = Callable[..., None]

#: The name of the operation that stands for the main loop.
LOOP = "the loop"


class Background(ManualScheduler):
    """A scheduler that runs as operations of a scene."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        super().__init__()

    def begin(self) -> None:
        self.now = 1000.0
        self.jobs.clear()
        self._reset()

    def serve(self) -> None:
        """Run calls of ``call_soon``."""
        while True:
            self._explorer.rest(lambda: bool(self._soon))
            self._call_one()

    def help(self) -> None:
        """Run jobs, which are callbacks."""
        while True:
            self._explorer.rest(lambda: bool(self.jobs))
            self.jobs.pop(0)()

    def finish(self) -> None:
        """Run everything that is left, once all operations are done."""
        while self._soon or self.jobs:
            if self._soon:
                self._call_one()
            self.run_jobs()

    def _call_one(self) -> None:
        call = self._soon.popleft()
        if call() is True:
            self._soon.append(call)


class Stage:
    def __init__(self, explorer: Explorer, patch: pytest.MonkeyPatch) -> None:
        self.explorer = explorer
        self.background = Background(explorer)
        for module in (copy_on_write, delivery, history):
            patch.setattr(module, "native_lock", explorer.lock)
        patch.setattr(machine, "striped_lock", explorer.lock)
        for module in (memory, inheritance, streams):
            patch.setattr(module, "native_lock", explorer.quiet_lock)
        patch.setattr("flask_sse_emitters.channels.replay.pages.native_lock", explorer.quiet_lock)
        for module in (delivery, direct, wsgi):
            patch.setattr(module, "SCHEDULER", self.background)
        patch.setattr("flask_sse_emitters.channels.replay.machine.SCHEDULER", self.background)
        patch.setattr(inheritance, "wait_while", lambda busy, _: explorer.pause("waits", lambda: not busy()))
        patch.setattr(delivery, "monotonic", lambda: 0.0)  # no delivery pass exceeds its time slice
        patch.setattr(wsgi, "make_waiter", explorer.make_waiter)
        patch.setattr(wsgi, "yield_now", lambda: None)
        self._patch = patch
        explorer.before_each = self.background.begin

    def have_one_loop(self) -> None:
        """Run delivery passes in the background only, as if gevent's loop were in another thread than the senders."""
        self._patch.setattr(delivery, "on_main_loop", lambda: self.explorer.name() in (LOOP, None))
        self.have_one_writer()

    def have_one_writer(self) -> None:
        """Let the background alone write to clients that were handed off, as where threads are real."""
        self._patch.setattr(self.background, "is_writer", lambda: self.explorer.name() in (LOOP, None))

    def emitter(self, timeout: float = 0, **given: Any) -> SseEmitter:
        return emitter_at(self.background, timeout, heartbeat=0, **given)

    def channel(self, broker: Broker | None = None) -> StagedChannel:
        return StagedChannel(self, broker or MemoryBroker(scheduler=self.background))


class StagedChannel:
    """A channel and its readers in this process."""

    def __init__(self, stage: Stage, broker: Broker) -> None:
        self._stage = stage
        self._broker = broker
        self._pages = PageCache(stage.background)
        self.subscription = ProcessSubscription("a", broker, DEFAULTS, lambda: None)

    def publish(self, *texts: str) -> list[str]:
        """Publish events and return their ids."""
        frames = [make_frame(text, str, 1000) for text in texts]
        return [self._broker.publish("a", frame, Bounds(1000, 0.0)).id for frame in frames]

    def subscribe(self, last: str | None = None) -> SseEmitter:
        emitter = self._stage.emitter()
        stream_of(emitter).last_event_id = last
        Replay(emitter, [self.subscription], last, self._pages).begin()
        return emitter


#: The callbacks after each end, in order.
FOLLOWING = {
    CloseReason.COMPLETED: ["completion"],
    CloseReason.TIMEOUT: ["timeout", "completion"],
    CloseReason.DISCONNECTED: ["error", "completion"],
    CloseReason.ERROR: ["error", "completion"],
    CloseReason.OVERFLOW: ["error", "completion"],
    CloseReason.SHUTDOWN: ["completion"],
}
