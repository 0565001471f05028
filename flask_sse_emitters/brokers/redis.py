"""``redis://``, ``rediss://`` and ``unix://``: channels that every process shares, kept in Redis or Valkey.

One script gives an event its offset, keeps it and announces it. One connection of each process listens to the channels
that have a client there, on a thread of its own, and keeps a copy of their logs, from which clients catch up. Every
announcement has its offset: where one is missing, what lies between is read from Redis before it goes on.

Where Redis cannot be reached, streams stay open, and what others published meanwhile is read when it is back. Where
events are gone that clients of this process lack, a new log takes the place of the old one, and their streams end, so
that they come back and are told of the gap.
"""

from __future__ import annotations

import logging
import random
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import BrokerUnavailable, UnsupportedWorker
from ..frames import Frame
from ..history import Bounds, Log, new_epoch
from ..parking import begin_anew_in_child, guard, is_green, native
from ..scheduler import SCHEDULER, Bell
from .base import Broker, Listener, Published, Start
from .redis_wire import LOOK, PUBLISH, Found, Names, Told, publish_arguments, read_announcement, read_found

log = logging.getLogger(__name__)

#: Seconds without a word after which Redis is asked for one, and after which it counts as gone.
PING_AFTER, GONE_AFTER = 4.0, 9.0

#: Seconds that one read may take.
READ_SECONDS = 5.0

#: Seconds until the next attempt to reach Redis: these at first, then twice as many, up to the second.
FIRST_WAIT, LONGEST_WAIT = 0.1, 1.5

#: So many channels are asked for in one go.
AT_ONCE = 200


class RedisBroker(Broker):
    """Keeps channels in Redis.

    :param url: as redis-py takes it.
    :param prefix: of all keys and announcements.
    :param publish_seconds: how long :meth:`publish` may take.
    """

    def __init__(self, url: str, *, prefix: str = "sse", publish_seconds: float = 2.0) -> None:
        try:
            redis.ConnectionPool.from_url(url)  # which connects to nothing yet
        except ValueError as error:
            raise ValueError(f"{error}: give a URL as redis-py takes it, such as redis://localhost:6379/0") from error
        self._url = url
        self._names = Names(prefix)
        self._seconds = publish_seconds
        self._begin_anew()
        begin_anew_in_child(self)

    def publish(self, channel: str, frame: Frame, bounds: Bounds, key: str | None = None) -> Published:
        _refuse_unpatched()
        arguments = publish_arguments(new_epoch(), frame, bounds, self._names.announcements(channel))
        try:
            event_id, is_new = self._client().script(PUBLISH, self._names.keys(channel, key), arguments)
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"Redis did not confirm the event ({error}): it may have been published, so give a key to try again; "
                "see SSE_BROKER_URL, SSE_PUBLISH_SECONDS"
            ) from error
        return Published(event_id.decode(), bool(is_new))

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        _refuse_unpatched()
        self._ear.add(channel, listener)
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        self._ear.remove(channel, listener)

    def close(self) -> None:
        self._ear.close()

    def status(self) -> dict[str, Any]:
        return self._ear.status()

    def _begin_anew(self) -> None:
        self._local = native("_thread", "_local")()  # gevent's sockets belong to the event loop of one system thread
        self._shared: _Client | None = None
        self._ear = _Ear(self._new_client, self._names)

    def _client(self) -> _Client:
        if is_green():
            client: _Client | None = getattr(self._local, "client", None)
            if client is None:
                client = self._local.client = self._new_client(self._seconds / 2)
            return client
        if self._shared is None:
            self._shared = self._new_client(self._seconds / 2)
        return self._shared

    def _new_client(self, timeout: float) -> _Client:
        return _Client(self._url, timeout)


class _Client:
    """A pool of connections, and the scripts that Redis knows by their digests."""

    def __init__(self, url: str, timeout: float) -> None:
        self.redis: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
        self._scripts: dict[str, Any] = {}

    def script(self, script: str, keys: list[str], arguments: Iterable[Any]) -> Any:
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self.redis.register_script(script)
        return known(keys=keys, args=list(arguments))


class _Topic:
    """One channel that somebody here listens to. Only the thread that listens touches it, but for the first three."""

    __slots__ = ("fresh", "listeners", "log", "name", "wanted")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Listener, ...] = ()  # those who have been told from where on
        self.fresh: tuple[Listener, ...] = ()  # and those who have not
        self.wanted = False  # Redis has been asked to announce its events
        self.log: Log | None = None


class _Ear:
    """What listens, for the whole process."""

    def __init__(self, new_client: Callable[[float], _Client], names: Names) -> None:
        self._new_client = new_client
        self._names = names
        self._guard = guard()
        self._topics: dict[str, _Topic] = {}
        self._changed: deque[_Topic] = deque()
        self._bell: Bell | None = None
        self._running = False
        self._closed = False
        self._client: _Client | None = None
        self._skew = 0.0  # from the clock of Redis to ours
        self._error: BaseException | None = None

    def add(self, channel: str, listener: Listener) -> None:
        with self._guard:
            topic = self._topics.get(channel)
            if topic is None:
                topic = self._topics[channel] = _Topic(channel)
            topic.fresh = (*topic.fresh, listener)
            self._changed.append(topic)
        self._wake()

    def remove(self, channel: str, listener: Listener) -> None:
        with self._guard:
            topic = self._topics.get(channel)
            if topic is None:
                return
            topic.fresh = tuple(other for other in topic.fresh if other is not listener)
            topic.listeners = tuple(other for other in topic.listeners if other is not listener)
            if topic.fresh or topic.listeners:
                return
            del self._topics[channel]
            self._changed.append(topic)
        self._wake()

    def close(self) -> None:
        self._closed = True
        if self._bell is not None:
            self._bell.ring()

    def status(self) -> dict[str, Any]:
        error = self._error
        return {"connected": error is None, **({} if error is None else {"error": str(error)})}

    def _wake(self) -> None:
        with self._guard:
            starts, self._running = not self._running, True
        if starts:
            SCHEDULER.call_soon(self._start)  # where a thread, or a greenlet, lives for as long as the process
        elif self._bell is not None:
            self._bell.ring()

    def _start(self) -> None:
        self._bell = Bell()
        threading.Thread(target=self._run, args=(self._bell,), name="sse-redis", daemon=True).start()

    def _run(self, bell: Bell) -> None:
        wait = FIRST_WAIT
        while not self._closed:
            try:
                self._listen(bell)
                wait = FIRST_WAIT
            except (redis.RedisError, OSError, EOFError) as error:
                if self._error is None:
                    log.warning("cannot hear from Redis: %s; streams stay open, and it is tried again", error)
                else:
                    wait = min(wait * 2, LONGEST_WAIT)
                self._error = error
                time.sleep(wait * random.uniform(0.7, 1.3))
        bell.close()

    def _listen(self, bell: Bell) -> None:
        client = self._client = self._new_client(READ_SECONDS)
        pubsub = client.redis.pubsub()
        try:
            with self._guard:
                topics = list(self._topics.values())
                self._changed.clear()
            for topic in topics:
                topic.wanted = False
            pubsub.subscribe(f"{self._names.announcements('')}:here")  # so that there is a connection to ask
            self._serve(pubsub, bell, topics)
        finally:
            pubsub.close()
            client.redis.close()

    def _serve(self, pubsub: Any, bell: Bell, topics: list[_Topic]) -> None:
        heard, asked = time.monotonic(), False
        self._want(pubsub, topics)
        connection = pubsub.connection
        with selectors.DefaultSelector() as selector:
            selector.register(connection._sock, selectors.EVENT_READ)
            selector.register(bell.fileno(), selectors.EVENT_READ)
            while not self._closed:
                if any(key.fd == bell.fileno() for key, _ in selector.select(PING_AFTER / 2)):
                    bell.hush()
                if self._take_messages(pubsub):
                    heard, asked = time.monotonic(), False
                    if self._error is not None:
                        self._error = None
                        log.warning("Redis is back")
                silence = time.monotonic() - heard
                if silence > GONE_AFTER:
                    raise TimeoutError(f"it has not answered for {silence:.0f} s")
                if silence > PING_AFTER and not asked:
                    pubsub.ping()
                    asked = True
                with self._guard:
                    changed = list(dict.fromkeys(self._changed))
                    self._changed.clear()
                self._want(pubsub, changed)

    def _want(self, pubsub: Any, topics: list[_Topic]) -> None:
        """Have Redis announce what somebody listens to, and no more; tell those who are new what is known already."""
        begin, end = [], []
        for topic in topics:
            here = self._topics.get(topic.name) is topic
            if here and not topic.wanted:
                topic.wanted = True
                begin.append(topic)
            elif here and topic.log is not None:
                self._welcome(topic)
            elif not here and topic.wanted and topic.name not in self._topics:
                topic.wanted = False
                end.append(topic)
        for index in range(0, len(end), AT_ONCE):
            pubsub.unsubscribe(*(self._names.announcements(topic.name) for topic in end[index : index + AT_ONCE]))
        for index in range(0, len(begin), AT_ONCE):
            pubsub.subscribe(*(self._names.announcements(topic.name) for topic in begin[index : index + AT_ONCE]))

    def _take_messages(self, pubsub: Any) -> bool:
        """All that has come. Whether anything has."""
        some = False
        while pubsub.connection.can_read(0):
            message = pubsub.get_message(timeout=READ_SECONDS)
            some = True
            if message is None:
                continue
            name = message["channel"] or b""
            topic = self._topics.get(self._names.channel(name)) if message["type"] in ("subscribe", "message") else None
            if topic is None:
                continue
            if message["type"] == "subscribe":
                self._look(topic)
            else:
                self._hear(topic, read_announcement(message["data"]))
        return some

    def _hear(self, topic: _Topic, told: Told) -> None:
        own = topic.log
        if own is None or (told.epoch == own.epoch and told.offset <= own.newest):
            return
        if told.epoch == own.epoch and told.offset == own.newest + 1:
            self._tell(topic, own, [told])
        else:
            self._look(topic)

    def _look(self, topic: _Topic) -> None:
        """Find out what there is of a channel, and tell what is new, or that there is a hole."""
        assert self._client is not None
        own = topic.log
        known, newest = ("", 0) if own is None else (own.epoch, own.newest)
        answer = self._client.script(LOOK, self._names.keys(topic.name), [new_epoch(), known, newest])
        found = read_found(answer)
        self._skew = SCHEDULER.clock() - found.ms / 1000
        follows = own is not None and found.epoch == own.epoch
        if (
            own is not None
            and follows
            and (found.newest == newest or (found.told and found.told[0].offset == newest + 1))
        ):
            self._tell(topic, own, found.told)
        else:
            self._begin(topic, found)
        self._welcome(topic)

    def _begin(self, topic: _Topic, found: Found) -> None:
        first = found.told[0].offset if found.told else found.newest + 1
        topic.log = Log(found.epoch, first - 1, SCHEDULER.clock)
        with topic.log.guard:
            for told in found.told:
                topic.log.keep(told.frame, told.bounds, told.ms / 1000 + self._skew)
        for listener in topic.listeners:
            listener.started(Start(topic.log, topic.log.newest))

    def _welcome(self, topic: _Topic) -> None:
        with self._guard:
            fresh, topic.fresh = topic.fresh, ()
            topic.listeners += fresh
        assert topic.log is not None
        for listener in fresh:
            listener.started(Start(topic.log, topic.log.newest))

    def _tell(self, topic: _Topic, own: Log, told: list[Told]) -> None:
        if not told:
            return
        with own.guard:
            frames = [own.keep(each.frame, each.bounds, each.ms / 1000 + self._skew) for each in told]
        for listener in topic.listeners:
            listener.arrived(frames)


def _refuse_unpatched() -> None:
    """Say so where a greenlet would wait for a socket that gevent knows nothing of, and everybody with it."""
    gevent = sys.modules.get("gevent")
    if gevent is None or is_green():
        return
    if isinstance(gevent.getcurrent(), sys.modules["gevent.greenlet"].Greenlet):
        raise UnsupportedWorker(
            "this runs in gevent, whose sockets are not patched, so waiting for Redis would block everybody: call "
            "gevent.monkey.patch_all() first, as gunicorn's gevent worker does"
        )
