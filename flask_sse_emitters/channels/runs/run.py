"""``Run``: the public face of what is published to a channel in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from uuid import uuid4
from weakref import WeakValueDictionary

from ...brokers import Bounds
from ...config.context import in_copied_context
from ...config.settings import Settings, checked
from ...errors import BrokerUnavailable, RunExists
from ...runtime.gevent_loop import in_hub
from ...runtime.locks import native_lock
from ...runtime.scheduler import Sleeper, start_on_main_loop
from ...types import Duration
from ...wire.frame import Frame
from ..publishing import encode_for_channel
from .items import Items, OnError
from .publishing_thread import LEASE_SECONDS, RENEW_SECONDS, Publishing, PublishingThread, Stop

log = logging.getLogger("flask_sse_emitters.runs")

_Pull: TypeAlias = Callable[[], list[Frame]]


class Run:
    """What an iterable yields, on its way to a channel: :meth:`Channel.publish_from` begins it.

    Every method may be called from any thread.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def is_running(self) -> bool:
        """Whether the iterable still yields, or its channel has not ended yet."""
        return self._task.is_running

    def cancel(self) -> None:
        """Publish nothing more, not even ``done``, and end the channel. Idempotent; may wait for the broker.

        The iterable is closed at its next ``yield``.

        :raises BrokerUnavailable: where the broker cannot be reached: the channel ends when it is back.
        """
        if not self._task.stop(Stop.CANCELLED, self._task.patience) and not in_hub():
            raise BrokerUnavailable(
                "the run is cancelled, but its channel ends only when the broker is back", may_be_published=False
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over, for so many seconds at most. Return whether it is."""
        self._task.wait_while(lambda: self.is_running, timeout)
        return not self.is_running


class Task:
    """The two threads of a run, and those that wait for them. Every method may be called from any thread.

    :param patience: who cancels it waits so many seconds at most until its channel has ended.
    """

    def __init__(self, items: Items, publishing: PublishingThread, patience: float) -> None:
        self.patience = patience
        self._items = items
        self._publishing = publishing
        self._lock = native_lock()
        self._waiting: list[Sleeper] = []  # until something of it is over
        publishing.on_settled = self._wake_waiting

    @property
    def is_running(self) -> bool:
        """Whether one of its threads has something to do."""
        return not (self._publishing.is_settled and self._publishing.pending.is_finished)

    def begin(self, in_context: Callable[[_Pull], _Pull]) -> None:
        """Start its threads.

        :param in_context: makes a call that runs in copies of the contexts of now.
        """
        pull = in_context(self._pull_all)

        def start() -> None:
            threading.Thread(target=self._publishing.publish_all, name="sse-run", daemon=True).start()
            threading.Thread(target=self._pull, args=(pull,), name="sse-run-items", daemon=True).start()

        try:
            start_on_main_loop(start)
        except BaseException:  # the system has no thread
            self._publishing.stop(Stop.CANCELLED)
            self._publishing.pending.finish([])
            raise

    def stop(self, why: Stop, seconds: float) -> bool:
        """Stop it, and wait for so many seconds at most. Return whether its channel has ended."""
        self._publishing.stop(why)
        self.wait_while(lambda: not self._publishing.is_settled, seconds)
        return self._publishing.is_settled

    def lose_channel(self) -> None:
        """Publish and pull nothing more: its channel is not its own any more. Never waits."""
        self._publishing.lose_channel()

    def wait_while(self, is_busy: Callable[[], bool], timeout: float | None) -> None:
        """Wait until it is not busy any more, for so many seconds at most; not in gevent's event loop itself."""
        sleeper, until = Sleeper(), None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._waiting.append(sleeper)
        try:
            while is_busy() and not in_hub():
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return
                sleeper.sleep(left)
        finally:
            with self._lock:
                self._waiting.remove(sleeper)

    def _pull(self, pull: _Pull) -> None:
        last: list[Frame] = []
        try:
            last = pull()
        except BaseException as error:  # of the contexts, as they are torn down
            log.exception("the contexts of a run failed as they were torn down")
            last = self._items.failed(error)
        finally:
            self._publishing.pending.finish(last)
            self._wake_waiting()

    def _pull_all(self) -> list[Frame]:
        return self._items.pull_all(self._publishing.pending, lambda: self._publishing.stopped)

    def _wake_waiting(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for sleeper in waiting:
            sleeper.wake()


class Tasks:
    """The tasks of this process, by their channels. Each is kept while its threads have it."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._tasks: WeakValueDictionary[str, Task] = WeakValueDictionary()

    def add(self, channel: str, task: Task) -> None:
        """Keep the task of a channel, in the place of one before."""
        with self._lock:
            self._tasks[channel] = task

    def get(self, channel: str) -> Task | None:
        """Return the newest task of a channel."""
        return self._tasks.get(channel)

    def all(self) -> list[Task]:
        """Return all that are kept."""
        with self._lock:
            references = self._tasks.valuerefs()
        return [task for reference in references if (task := reference()) is not None]

    @property
    def are_running(self) -> bool:
        """Whether any of them has something to do."""
        return any(task.is_running for task in self.all())


class Plan(NamedTuple):
    """What is done with the items of a run: see :meth:`.Channel.publish_from`."""

    done: Any
    on_error: OnError | None
    every: Duration


def start_task(
    channels: Publishing, channel: str, bounds: Bounds, settings: Settings, items: Iterable[Any], plan: Plan
) -> Task:
    """Give the channel to a new run, and start it. May wait for the broker, within limits.

    :raises RunExists: where another run has the channel.
    """
    done = None if plan.done is None else encode_for_channel(plan.done, None, None, settings)
    every, name = checked("drain_seconds", plan.every, "every"), uuid4().hex
    if not channels.broker.start_run(channel, name, LEASE_SECONDS):
        raise RunExists(f"a run publishes to {channel!r} already: cancel it, wait for it, or take another channel")
    try:
        pulling = Items(channel, items, done, plan.on_error, settings)
        patience = 2 * settings.publish_seconds + RENEW_SECONDS  # what is under way may fail, and then the cancel
        task = Task(pulling, PublishingThread(channels, channel, name, bounds, every), patience)
        task.begin(partial(in_copied_context, otherwise=settings.context))
    except BaseException:
        channels.broker.cancel_run(channel, bounds)
        raise
    return task
