"""The thread that listens to Redis, and its beginning, its end, and what follows an end that was not meant."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

import redis

from ....config.settings import CHANCE
from ....runtime.gevent_loop import wait_while
from ....runtime.locks import native_lock
from ....runtime.scheduler import SCHEDULER
from ....runtime.waiter import WakeupSocket, make_waiter
from ...base import Listener
from ..connections.client import Client
from ..connections.deadline import within
from ..health import LISTENING, Health
from ..messages import KeyNames, KnownEvent
from .presence import Presence
from .session import Session, yield_on_greenlets
from .topics import Topics

log = logging.getLogger("flask_sse_emitters.brokers.redis_ear")

#: Seconds until the next attempt to reach Redis: these at first, then twice as many, up to the second; a third more or
#: less, so that many processes do not all come at once.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SPREAD = 0.1, 1.0, 0.3

#: Seconds between two lookups of a channel, so that Redis does not forget it. The nodes of a cluster may lose an
#: announcement on the way to each other, and nothing shows that until the next one.
LOOKUP_SECONDS, CLUSTER_LOOKUP_SECONDS = 86_400.0, 20.0

#: Seconds that the thread has, when it ends, to take back what this process has reported.
LEAVE_SECONDS = 1.0


class _State(Enum):
    IDLE = auto()  #: nothing has subscribed yet
    RUNNING = auto()  #: the thread runs, or is about to be started
    ENDED = auto()


class _Stop(Enum):
    NO = auto()
    CLOSED = auto()  #: the thread is to take back what was reported, and end
    ABANDONED = auto()  #: this is a forked child: the thread, if it is a greenlet here, is to do nothing more


class Subscriber:
    """Listens to Redis, on a thread that starts with the first listener. Any thread may call, and none waits.

    :param client: returns the way to Redis for the thread that calls.
    :param process: the id of this process.
    :param about: see :attr:`.Broker.about`.
    :param lookup_seconds: a channel is looked up so often, though nothing shows that it should be.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        names: KeyNames,
        process: str,
        health: Health,
        about: Callable[[], Mapping[str, Any] | None] = lambda: None,
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        self._client = client
        self._names = names
        self._health = health
        self._lookup_seconds = lookup_seconds
        self._topics = Topics(health)
        self._presence = Presence(names, process, health, self._topics, about, self._wake, yield_on_greenlets)
        self._lock = native_lock()
        self._state = _State.IDLE
        self._stop = _Stop.NO
        self._wakeup: WakeupSocket | None = None

    def add(self, channel: str, listener: Listener, *, is_first: bool = False) -> None:
        """Add a listener: it is started once all that Redis has of the channel is known."""
        self._topics.add(channel, listener, is_first=is_first)
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
        """Call ``done`` once all that Redis has now is delivered: see :meth:`.Broker.look_again`."""
        if self._topics.call_when_synced(channel, done):
            self._wake()
        else:
            done()

    def count_again(self, channel: str) -> None:
        """Report the number of the channel's clients to Redis, which has changed."""
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

    def _is_stopping(self) -> bool:
        return self._stop is not _Stop.NO

    def _wake(self) -> None:
        with self._lock:
            starts = self._state is _State.IDLE and not self._is_stopping()
            self._state = _State.RUNNING if starts else self._state
        if starts:
            SCHEDULER.call_soon(self._start)  # where a thread, or a greenlet, lives for as long as the process
        elif self._wakeup is not None:
            self._wakeup.wake()

    def _start(self) -> None:
        if self._is_stopping():
            self._state = _State.ENDED
            return
        wakeup = None
        try:
            self._wakeup = wakeup = WakeupSocket()
            threading.Thread(target=self._run, args=(wakeup,), name="sse-redis", daemon=True).start()
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
            if self._is_stopping():
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
        while not self._is_stopping():
            self._topics.drop_idle()
            session: Session | None = None
            try:
                client = self._client()
                with client.listening() as connection:
                    session = self._begin_session(client, connection, wakeup)
                    session.run()
            except Exception as error:
                if self._is_stopping():  # perhaps in the middle of a command: its connection is gone
                    break
                if not is_logged and not isinstance(error, redis.RedisError | OSError):
                    log.exception("listening to Redis failed; it is tried again, and this is logged once")
                    is_logged = True
                self._health.failed(LISTENING, error)
            is_settled = session is not None and session.is_settled
            is_logged = is_logged and not is_settled
            wait = FIRST_WAIT_SECONDS if is_settled else min(wait * 2, LONGEST_WAIT_SECONDS)
            self._wait(wait * CHANCE.uniform(1 - SPREAD, 1 + SPREAD))

    def _begin_session(self, client: Client, connection: Any, wakeup: WakeupSocket) -> Session:
        return Session(
            client,
            connection,
            wakeup,
            self._topics,
            self._presence,
            self._names,
            self._health,
            self._lookup_seconds,
            self._is_stopping,
        )

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_stopping() and time.monotonic() < until:
            time.sleep(FIRST_WAIT_SECONDS / 2)

    def _leave(self) -> None:
        try:
            with within(LEAVE_SECONDS):
                self._presence.leave(self._client())
        except (redis.RedisError, OSError) as error:  # then Redis forgets it by itself
            log.debug("could not take back what this process has reported: %s", error)
