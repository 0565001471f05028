"""The thread that listens to a server, and its beginning, its end, and what follows an end that was not meant."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum, auto
from typing import Protocol

from ...config.settings import CHANCE
from ...runtime.gevent_loop import is_green, wait_while, yield_now
from ...runtime.locks import native_lock
from ...runtime.scheduler import SCHEDULER
from ...runtime.waiter import WakeupSocket, make_waiter
from ..base import Listener
from ..remote.health import LISTENING, Health
from .lookup import KnownEvent
from .topics import Topics

#: Seconds until the next attempt to reach the server: these at first, then twice as many, up to the second; a third
#: more or less, so that many processes do not all come at once.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SPREAD = 0.1, 1.0, 0.3

#: Seconds that the thread has, when it ends, to take back what this process has reported.
LEAVE_SECONDS = 1.0


class Session(Protocol):
    """What the thread does on one connection, from its beginning to its end."""

    @property
    def is_settled(self) -> bool:
        """Whether it has been through all that it has to do at first."""

    def run(self) -> None:
        """Listen until :meth:`ListeningThread.is_stopping`, or an error."""


class Counter(Protocol):
    """Counts the clients of this process."""

    def change(self, channel: str) -> bool:
        """Note that a channel has more clients, or fewer. Return whether the thread is to be woken."""


class _State(Enum):
    IDLE = auto()  #: nothing has subscribed yet
    RUNNING = auto()  #: the thread runs, or is about to be started
    ENDED = auto()


class _Stop(Enum):
    NO = auto()
    CLOSED = auto()  #: the thread is to take back what was reported, and end
    ABANDONED = auto()  #: this is a forked child: the thread, if it is a greenlet here, is to do nothing more


class ListeningThread(ABC):
    """Listens to a server, on a thread that starts with the first listener. Any thread may call, and none waits.

    :param name: of the thread.
    :param errors: those that show that the server cannot be reached; others are logged with their trace.
    """

    def __init__(self, name: str, health: Health, errors: tuple[type[Exception], ...], log: logging.Logger) -> None:
        self._name = name
        self._health = health
        self._errors = errors
        self._log = log
        self._topics = Topics(health)
        self._presence = self._make_presence()
        self._lock = native_lock()
        self._state = _State.IDLE
        self._stop = _Stop.NO
        self._wakeup: WakeupSocket | None = None

    @abstractmethod
    def _make_presence(self) -> Counter:
        """Make what counts the clients here."""

    @abstractmethod
    def _session(self, wakeup: WakeupSocket) -> AbstractContextManager[Session]:
        """Connect, and begin to listen."""

    @abstractmethod
    def _take_back(self) -> None:
        """Take back what this process has reported, within LEAVE_SECONDS."""

    def add(self, channel: str, listener: Listener, *, is_first: bool = False) -> None:
        """Add a listener: it is started once all that the server has of the channel is known."""
        if self._topics.add(channel, listener, is_first=is_first):
            self._wake()

    def remove(self, channel: str, listener: Listener) -> None:
        """Remove a listener. Idempotent."""
        if self._topics.remove(channel, listener):
            self._wake()

    def known(self, channel: str) -> KnownEvent:
        """Return the newest event of the channel that this process has published or received."""
        return self._topics.known(channel)

    def note_known(self, channel: str, known: KnownEvent) -> None:
        """Remember an event of the channel that this process has published."""
        self._topics.note_known(channel, known)

    def sync(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all that the server has now is delivered: see :meth:`.Broker.look_again`."""
        if self._topics.call_when_synced(channel, done):
            self._wake()
        else:
            done()

    def count_again(self, channel: str) -> None:
        """Report the number of the channel's clients to the server, which has changed."""
        if self._presence.change(channel):
            self._wake()

    def close(self) -> None:
        """Begin to end the thread, which takes back what this process has reported. Idempotent."""
        if self._stop is _Stop.NO:
            self._stop = _Stop.CLOSED
        if self._wakeup is not None and self._stop is not _Stop.ABANDONED:
            self._wakeup.wake()

    def await_end(self) -> None:
        """Wait until the thread has ended, LEAVE_SECONDS at most. In gevent's event loop itself, do not wait."""
        wait_while(lambda: self._state is _State.RUNNING, time.monotonic() + LEAVE_SECONDS)

    def abandon(self) -> None:
        """Let go in a forked child, where gevent may go on with the parent's greenlets, and touch nothing."""
        self._stop = _Stop.ABANDONED

    def is_stopping(self) -> bool:
        """Return whether the thread is to end."""
        return self._stop is not _Stop.NO

    def _wake(self) -> None:
        with self._lock:
            starts = self._state is _State.IDLE and not self.is_stopping()
            self._state = _State.RUNNING if starts else self._state
        if starts:
            SCHEDULER.call_soon(self._start)  # where a thread, or a greenlet, lives for as long as the process
        elif self._wakeup is not None:
            self._wakeup.wake()

    def _start(self) -> None:
        if self.is_stopping():
            self._state = _State.ENDED
            return
        wakeup = None
        try:
            self._wakeup = wakeup = WakeupSocket()
            threading.Thread(target=self._run, args=(wakeup,), name=self._name, daemon=True).start()
        except (OSError, RuntimeError) as error:  # the system gives no descriptor, or no thread, now
            self._health.failed(LISTENING, error)
            if wakeup is not None:
                wakeup.close()
            SCHEDULER.call_at(SCHEDULER.clock() + LONGEST_WAIT_SECONDS, self._start)

    # On the thread.

    def _run(self, wakeup: WakeupSocket) -> None:
        try:
            self._listen(wakeup)
        except BaseException as error:  # a greenlet that is killed, or a gevent.Timeout, say
            wakeup.close()
            if self.is_stopping():
                self._state = _State.ENDED
            else:
                self._health.failed(LISTENING, error)
                SCHEDULER.call_at(SCHEDULER.clock() + FIRST_WAIT_SECONDS, self._start)
            raise
        if self._stop is _Stop.ABANDONED:
            make_waiter().wait()  # threads that end here are unknown to threading
        try:
            self._leave()
        finally:
            wakeup.close()
            self._state = _State.ENDED

    def _listen(self, wakeup: WakeupSocket) -> None:
        wait, is_logged = FIRST_WAIT_SECONDS, False
        while not self.is_stopping():
            self._topics.drop_idle()
            session: Session | None = None
            try:
                with self._session(wakeup) as session:
                    session.run()
            except Exception as error:
                if self.is_stopping():  # perhaps in the middle of a command: its connection is gone
                    break
                if not is_logged and not isinstance(error, self._errors):
                    self._log.exception("listening failed; it is tried again, and this is logged once")
                    is_logged = True
                self._health.failed(LISTENING, error)
            is_settled = session is not None and session.is_settled
            is_logged = is_logged and not is_settled
            wait = FIRST_WAIT_SECONDS if is_settled else min(wait * 2, LONGEST_WAIT_SECONDS)
            self._wait(wait * CHANCE.uniform(1 - SPREAD, 1 + SPREAD))

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.is_stopping() and time.monotonic() < until:
            time.sleep(FIRST_WAIT_SECONDS / 2)

    def _leave(self) -> None:
        try:
            self._take_back()
        except self._errors as error:  # then the server forgets it by itself
            self._log.debug("could not take back what this process has reported: %s", error)


def yield_on_greenlets() -> None:
    """Let other greenlets run, which get nowhere while there is always something to receive. Threads run anyway."""
    if is_green():
        yield_now()
