"""What listens to Redis, once for the whole process.

One thread has one connection, which Redis announces events to, of those channels only that have a client here. It keeps
a copy of their logs. An announcement carries its offset: where that is not the next one, or nothing is known yet, the
thread looks the channel up in Redis, and goes on from what it finds. So it may lose its connection, or be too slow for
Redis, and loses no event by it, as long as Redis has them.

Where events are gone that clients here lack, or Redis has lost some, a new log takes the place of the old one, and
whoever listens is told: see :meth:`.Listener.started`.
"""

from __future__ import annotations

import logging
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import redis

from ..frames import BATCH, Frame
from ..history import Log, new_epoch
from ..parking import SLICE, give_way, guard, is_green
from ..scheduler import SCHEDULER, Bell
from .base import Listener, Start
from .redis_client import AT_ONCE, Client
from .redis_health import Health
from .redis_wire import COUNT, LOOK, Found, Names, Told, read_announcement, read_found

log = logging.getLogger(__name__)

#: Seconds without a word after which Redis is asked for one, and after which it counts as gone.
PING_AFTER, GONE_AFTER = 3.0, 8.0

#: Seconds until the next attempt to reach Redis: these at first, then twice as many, up to the second; a third more or
#: less, so that many processes do not all come at once.
FIRST_WAIT, LONGEST_WAIT, SPREAD = 0.1, 1.0, 0.3

#: Seconds until a channel that could not be looked up is looked up again.
LOOK_AGAIN = 1.0

#: A channel is looked up so often, in seconds, at least, so that Redis does not forget it.
LOOK_EVERY = 86_400.0

#: Seconds in which all logs are gone through, to let go of what is too old.
TIDY_EVERY = 60.0

#: What changes in the numbers of clients is told after so many seconds, all of it is confirmed after so many, and
#: forgotten after so many: a process that was killed takes its clients with it.
COUNT_AFTER, COUNT_EVERY, COUNT_SECONDS = 0.25, 4.0, 12.0


class Topic:
    """One channel that somebody here listens to. Only the thread that listens touches it, but for its listeners."""

    __slots__ = ("fresh", "is_behind", "listeners", "log", "looked", "ms", "name", "wanted", "when_looked")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Listener, ...] = ()  # those who have been told from where on
        self.fresh: tuple[Listener, ...] = ()  # and those who have not
        self.when_looked: tuple[Callable[[], object], ...] = ()  # to be called once all is known that there is now
        self.wanted = False  # Redis has been asked to announce its events
        self.is_behind = True  # some may be missing: it is to be looked up
        self.log: Log | None = None
        self.ms = 0  # when its newest event was published, by the clock of Redis; 0 where it is not kept
        self.looked = 0.0

    @property
    def clients(self) -> int:
        return sum(listener.clients for listener in (*self.listeners, *self.fresh))


class Ear:
    """The thread, and what it listens to. It starts with the first listener.

    :param client: gives what leads to Redis, for the thread that asks.
    :param process: stands for this process where clients are counted.
    """

    def __init__(self, client: Callable[[], Client], names: Names, process: str, health: Health) -> None:
        self._new_client = client
        self._names = names
        self._process = process
        self._health = health
        self._guard = guard()
        self._topics: dict[str, Topic] = {}
        self._changed: deque[Topic] = deque()
        self._counts_changed: dict[str, None] = {}
        self._bell: Bell | None = None
        self._running = False
        self._closed = False

    # From any thread.

    def add(self, channel: str, listener: Listener) -> None:
        with self._guard:
            topic = self._topics.get(channel)
            if topic is None:
                topic = self._topics[channel] = Topic(channel)
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

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        with self._guard:
            topic = self._topics.get(channel)
            if topic is None:
                return
            topic.when_looked += (done,)
            self._changed.append(topic)
        self._wake()

    def count_again(self, channel: str) -> None:
        with self._guard:
            first = not self._counts_changed
            self._counts_changed[channel] = None
        if first:
            self._wake()

    def close(self) -> None:
        self._closed = True
        if self._bell is not None:
            self._bell.ring()

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

    # On the thread.

    def _run(self, bell: Bell) -> None:
        wait = FIRST_WAIT
        while not self._closed:
            session = _Session(self, bell)
            try:
                session.listen()
            except Exception as error:
                if not isinstance(error, redis.RedisError | OSError):
                    log.exception("listening to Redis failed; it is tried again")
                self._health.fails("listening", error)
            wait = FIRST_WAIT if session.has_heard else min(wait * 2, LONGEST_WAIT)
            if not self._closed:
                time.sleep(wait * random.uniform(1 - SPREAD, 1 + SPREAD))
        bell.close()

    def _take_changed(self) -> list[Topic]:
        with self._guard:
            changed = list(dict.fromkeys(self._changed))
            self._changed.clear()
        return changed

    def _take_all(self) -> list[Topic]:
        with self._guard:
            self._changed.clear()
            return list(self._topics.values())


class _Session:
    """One connection, from its beginning to its end."""

    def __init__(self, ear: Ear, bell: Bell) -> None:
        self.has_heard = False
        self._ear = ear
        self._bell = bell
        self._names = ear._names
        self._topics = ear._topics
        self._heard = 0.0  # when Redis last said anything,
        self._asked = False  # and whether it has been asked to since
        self._skew = 0.0  # from the clock of Redis to ours
        self._behind: dict[Topic, None] = {}  # are to be looked up
        self._failed: dict[Topic, None] = {}  # could not be, and are again
        self._warned: dict[Topic, None] = {}  # of what others announce there
        self._look_again = 0.0
        self._is_counted = False  # Redis knows of all clients here
        self._count_at = self._confirm_at = 0.0
        self._tidy: list[Topic] = []
        self._tidied = time.monotonic()

    def listen(self) -> None:
        ear = self._ear
        self._client = ear._new_client()
        with self._client.listening() as connection, selectors.DefaultSelector() as selector:
            self._connection = connection
            self._send("SUBSCRIBE", [self._names.announcements("") + "here"])  # so that there is somebody to ask
            topics = ear._take_all()
            for topic in topics:
                topic.wanted = False
            self._want(topics)
            selector.register(connection._sock, selectors.EVENT_READ)
            selector.register(self._bell.fileno(), selectors.EVENT_READ)
            self._heard = time.monotonic()
            while not ear._closed:
                if any(key.fd == self._bell.fileno() for key, _ in selector.select(self._rest())):
                    self._bell.hush()
                now = time.monotonic()
                self._mind_silence(now, self._take_messages())
                self._want(ear._take_changed())
                self._look()
                self._count(now)
                self._forget_old(now)

    def _mind_silence(self, now: float, has_heard: bool) -> None:
        if has_heard:
            self._heard, self._asked = now, False
            self._ear._health.hears(begins=not self.has_heard)
            self.has_heard = True
        elif now - self._heard >= GONE_AFTER:
            raise TimeoutError(f"it has not answered for {now - self._heard:.0f} s")
        elif now - self._heard >= PING_AFTER and not self._asked:
            self._send("PING", [])
            self._asked = True

    def _rest(self) -> float:
        """How long there may be nothing to do."""
        if self._behind:
            return 0.0
        now = time.monotonic()
        counts = self._ear._counts_changed or not self._is_counted
        silence = GONE_AFTER if self._asked else PING_AFTER
        until = [self._heard + silence, self._count_at if counts else self._confirm_at]
        if self._failed:
            until.append(self._look_again)
        return max(0.0, min(until) - now)

    def _send(self, command: str, names: list[str]) -> None:
        for index in range(0, len(names), AT_ONCE):
            self._connection.send_command(command, *names[index : index + AT_ONCE], check_health=False)
        if not names:
            self._connection.send_command(command, check_health=False)

    def _want(self, topics: list[Topic]) -> None:
        """Have Redis announce what somebody listens to, and no more; tell those who are new what is known already."""
        begin, end = [], []
        for topic in topics:
            here = self._topics.get(topic.name) is topic
            if here and not topic.wanted:
                topic.wanted = topic.is_behind = True  # it is looked up once Redis has confirmed
                begin.append(self._names.announcements(topic.name))
            elif here:
                if topic.when_looked:
                    self._behind[topic] = None
                if topic.log is not None:
                    self._welcome(topic)
            elif topic.wanted and topic.name not in self._topics:
                topic.wanted = False
                end.append(self._names.announcements(topic.name))
        if end:
            self._send("UNSUBSCRIBE", end)
        if begin:
            self._send("SUBSCRIBE", begin)

    def _take_messages(self) -> bool:
        """What has come, as much as a moment allows. Whether anything has."""
        connection, topics, channel_of = self._connection, self._topics, self._names.channel
        told: dict[Topic, list[Told]] = {}
        some, ends = False, time.monotonic() + SLICE
        while connection.can_read(0):
            kind, name, data = (*connection.read_response(), None)[:3]
            some = True
            topic = topics.get(channel_of(name)) if kind in (b"subscribe", b"message") else None
            if topic is None:
                continue
            if kind == b"subscribe":
                self._behind[topic] = None
            elif not topic.is_behind:
                self._hear(topic, data, told)
            if time.monotonic() > ends:
                self._tell_all(told)
                if is_green():  # there is always something to read, and nobody else would get anywhere
                    give_way()
                ends = time.monotonic() + SLICE
        self._tell_all(told)
        return some

    def _hear(self, topic: Topic, data: bytes, told: dict[Topic, list[Told]]) -> None:
        assert topic.log is not None
        try:
            heard = read_announcement(data)
        except ValueError:
            if topic not in self._warned:
                self._warned[topic] = None
                log.warning("something else than this package announces in channel %r: %r", topic.name, data[:100])
            return
        before = told.get(topic)
        newest = before[-1].offset if before else topic.log.newest
        if heard.epoch == topic.log.epoch and heard.offset == newest + 1:
            told.setdefault(topic, []).append(heard)
        elif heard.epoch != topic.log.epoch or heard.offset > newest or heard.ms > topic.ms:  # or it has lost some
            topic.is_behind = True
            self._behind[topic] = None

    def _tell_all(self, told: dict[Topic, list[Told]]) -> None:
        for topic, events in told.items():
            self._tell(topic, events)
        told.clear()

    def _tell(self, topic: Topic, told: list[Told]) -> None:
        """What is next in the channel: so much at a time as clients can be written in one go."""
        own = topic.log
        assert own is not None
        frames: list[Frame] = []
        room = BATCH
        for each in told:
            if frames and room < len(each.frame.payload):
                self._pass_on(topic, frames)
                give_way()
                frames, room = [], BATCH
            with own.guard:
                frames.append(own.keep(each.frame, each.bounds, each.ms / 1000 + self._skew))
            topic.ms = each.ms
            room -= len(each.frame.payload)
        if frames:
            self._pass_on(topic, frames)

    def _pass_on(self, topic: Topic, frames: list[Frame]) -> None:
        for listener in topic.listeners:
            listener.arrived(frames)

    def _look(self) -> None:
        """Find out what there is of the channels that may be behind, and tell what is new, or that there is a hole."""
        if self._failed and time.monotonic() > self._look_again:
            self._behind.update(self._failed)
            self._failed.clear()
        if not self._behind:
            return
        topics = [topic for topic in list(self._behind)[:AT_ONCE] if self._topics.get(topic.name) is topic]
        for topic in list(self._behind)[:AT_ONCE]:
            del self._behind[topic]
        done = [self._take_when_looked(topic) for topic in topics]
        try:
            answers = self._client.run_all(LOOK, [self._question(topic) for topic in topics])
        except BaseException:
            for topic, calls in zip(topics, done, strict=True):
                with self._ear._guard:
                    topic.when_looked = calls + topic.when_looked
            raise
        for topic, answer, calls in zip(topics, answers, done, strict=True):
            self._take_answer(topic, answer, calls)
        if not self._failed:
            self._ear._health.works("reading")

    def _take_when_looked(self, topic: Topic) -> tuple[Callable[[], object], ...]:
        with self._ear._guard:
            calls, topic.when_looked = topic.when_looked, ()
        return calls

    def _question(self, topic: Topic) -> tuple[list[str], list[Any]]:
        own = topic.log
        known = ("", 0, 0) if own is None else (own.epoch, own.newest, topic.ms)
        return self._names.keys(topic.name), [new_epoch(), *known]

    def _take_answer(self, topic: Topic, answer: Any, calls: tuple[Callable[[], object], ...]) -> None:
        try:
            if isinstance(answer, redis.ResponseError):
                raise answer
            found = read_found(answer)
        except (redis.ResponseError, ValueError) as error:
            with self._ear._guard:
                topic.when_looked = calls + topic.when_looked
            if not self._failed:
                self._look_again = time.monotonic() + LOOK_AGAIN
            self._failed[topic] = None
            self._ear._health.fails("reading", error)
            return
        topic.looked = time.monotonic()
        self._skew = SCHEDULER.clock() - found.ms / 1000
        self._find(topic, found)
        topic.is_behind = False
        self._welcome(topic)
        for call in calls:
            call()

    def _find(self, topic: Topic, found: Found) -> None:
        own = topic.log
        if own is not None and _goes_on(own, found):
            self._tell(topic, found.told)
            return
        first = found.told[0].offset if found.told else found.newest + 1
        topic.log = new = Log(found.epoch, first - 1, SCHEDULER.clock)
        with new.guard:
            for told in found.told:
                new.keep(told.frame, told.bounds, told.ms / 1000 + self._skew)
        topic.ms = found.told[-1].ms if found.told else 0
        for listener in topic.listeners:
            listener.started(Start(new, new.newest))

    def _welcome(self, topic: Topic) -> None:
        with self._ear._guard:
            fresh, topic.fresh = topic.fresh, ()
            topic.listeners += fresh
        assert topic.log is not None
        for listener in fresh:
            listener.started(Start(topic.log, topic.log.newest))

    def _count(self, now: float) -> None:
        """Tell Redis how many clients of each channel there are here: what has changed, or all where it knows none."""
        ear = self._ear
        changed = ear._counts_changed
        if now < (self._count_at if changed or not self._is_counted else self._confirm_at):
            return
        self._confirm_at = now + COUNT_EVERY
        if self._is_counted and not changed and not self._topics:
            return
        with ear._guard:
            changed, ear._counts_changed = ear._counts_changed, {}
        if not self._is_counted:
            changed = dict.fromkeys([*changed, *list(self._topics)])
        topics = [(channel, self._topics.get(channel)) for channel in changed]
        counted = [(channel, 0 if topic is None else topic.clients) for channel, topic in topics]
        try:
            known = self._tell_counts(counted)
        except redis.ResponseError as error:  # it cannot be written to: events may come all the same
            known, self._count_at = False, now + LOOK_AGAIN
            ear._health.fails("counting clients", error)
        else:
            self._count_at = now + COUNT_AFTER
            ear._health.works("counting clients")
        self._is_counted = known or not self._topics

    def _tell_counts(self, counted: list[tuple[str, int]]) -> bool:
        """:return: whether Redis knows of all clients here now."""
        known = True
        for index in range(0, len(counted) or 1, AT_ONCE):
            begins = not self._is_counted and not index
            figures = [figure for each in counted[index : index + AT_ONCE] for figure in each]
            keys = [self._names.processes, self._names.process + self._ear._process]
            arguments = [self._ear._process, round(COUNT_SECONDS * 1000), int(begins), *figures]
            was_there = self._client.run(COUNT, keys, arguments)
            known = known and bool(was_there or begins or index)
        return known

    def _forget_old(self, now: float) -> None:
        """Go through the logs, some at a time."""
        share = (now - self._tidied) / TIDY_EVERY
        some = int(share * len(self._topics))
        if not some:
            if not self._topics:
                self._tidied = now
            return
        self._tidied = now
        if not self._tidy:
            self._tidy = list(self._topics.values())
        for topic in self._tidy[-some:]:
            if topic.log is not None:
                with topic.log.guard:
                    topic.log.forget_old()
            if now - topic.looked > LOOK_EVERY and not topic.is_behind:
                self._behind[topic] = None
        del self._tidy[-some:]


def _goes_on(own: Log, found: Found) -> bool:
    """Whether what was found begins where this log ends."""
    first = found.told[0].offset if found.told else found.newest + 1
    return found.epoch == own.epoch and first == own.newest + 1
