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
import math
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeGuard

import redis

from ...config.settings import CHANCE
from ...runtime.gevent_loop import TIME_SLICE_SECONDS, in_hub, is_green, pause, yield_now
from ...runtime.locks import native_lock
from ...runtime.scheduler import SCHEDULER, Bell
from ...runtime.waiter import make_waiter
from ...runtime.worker_pool import call_and_log
from ...wire.frame import BATCH_BYTES, Frame
from ..base import Listener, Start
from ..event_ids import new_epoch
from ..event_log import Log
from .client import Client, within
from .errors import KEYS, diagnose
from .health import Health
from .positions import NOTHING, Known, KnownEvents, newer
from .presence import NAMES_AT_ONCE, Presence
from .scripts import LOOK, Found, Names, Told, look_arguments, read_announcement, read_clock, read_found

log = logging.getLogger("flask_sse_emitters.brokers.redis_ear")

#: Seconds without a word after which Redis is asked for one, and after which it counts as gone.
PING_AFTER, GONE_AFTER = 3.0, 8.0

#: Seconds until the next attempt to reach Redis: these at first, then twice as many, up to the second; a third more or
#: less, so that many processes do not all come at once.
FIRST_WAIT, LONGEST_WAIT, SPREAD = 0.1, 1.0, 0.3

#: Seconds until a channel that could not be looked up is looked up again.
LOOK_AGAIN = 1.0

#: A channel is looked up so often, in seconds, so that Redis does not forget it. The nodes of a cluster may lose an
#: announcement on the way to each other, and nothing shows that until the next one.
LOOK_EVERY, LOOK_EVERY_IN_CLUSTER = 86_400.0, 20.0

#: A channel that has had no event is looked up so often, in seconds: Redis forgets it after :data:`.UNUSED_MS`.
LOOK_UNUSED_EVERY = 300.0

#: Seconds for which a channel is listened to after its last client has left. The next client then finds its log here:
#: Redis need not send all of it again.
LINGER = 5.0

#: Seconds in which all logs are gone through, to let go of what is too old.
TIDY_EVERY = 60.0

#: So many channels are looked up in one go.
LOOKS_AT_ONCE = 20

#: After so many slices of reading there is something else to do.
SLICES = 8

#: What is told faster than it can be passed on waits, so many seconds at a time at most.
LONGEST_PAUSE = 0.05

#: Seconds that the thread has, when it ends, to take this process off the list of those that have clients.
LEAVE_SECONDS = 1.0

#: Clocks run apart: how far is found out anew after so many seconds.
CLOCK_HOLDS = 60.0

#: What comes so many seconds after it was published has been long on its way, or the clock of Redis was put back: then
#: what is new would be forgotten as too old.
LATE = 5.0


class Topic:
    """One channel that somebody here listens to. Only the thread that listens touches it, but for its listeners."""

    __slots__ = ("building", "fresh", "is_behind", "known", "listeners", "log", "looked", "name", "when_looked")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Listener, ...] = ()  # those who have been told from where on
        self.fresh: tuple[Listener, ...] = ()  # and those who have not
        self.when_looked: list[Callable[[], object]] = []  # to be called once all is known that there is now
        self.is_behind = True  # some may be missing: it is to be looked up
        self.log: Log | None = None
        self.building: Log | None = None  # takes its place once it is complete
        self.known = NOTHING  # its newest event; any thread may read it
        self.looked = 0.0

    @property
    def clients(self) -> int:
        return sum(listener.clients for listener in (*self.listeners, *self.fresh))


class Ear:
    """The thread, and what it listens to. It starts with the first listener.

    :param client: gives what leads to Redis, for the thread that asks.
    :param process: stands for this process where clients are counted.
    :param known: what this process knows of channels; takes over what was heard of those that are let go.
    :param look_every: a channel is looked up so often, in seconds, though nothing shows that it should be.
    :param about: see :attr:`.Broker.about`.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        names: Names,
        process: str,
        health: Health,
        known: KnownEvents,
        look_every: float = LOOK_EVERY,
        about: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        self._new_client = client
        self._names = names
        self._health = health
        self._known = known
        self._look_every = look_every
        self._presence = Presence(names, process, health, self._clients, about, self._wake)
        self._lock = native_lock()
        self._topics: dict[str, Topic] = {}
        self.first: Topic | None = None  #: what it has missed is told before anything of the others
        self._changed: dict[str, None] = {}  # names of topics
        self._left: dict[str, float] = {}  # names of topics without a listener, and since when
        self._bell: Bell | None = None
        self._running = False  # the thread was started, or is about to be
        self._ended = False
        self._closed = False
        self._abandoned = False

    # From any thread.

    def add(self, channel: str, listener: Listener, is_first: bool = False) -> None:
        with self._lock:
            topic = self._topics.get(channel)
            if topic is None:
                topic = self._topics[channel] = Topic(channel)
                self.first = topic if is_first else self.first
            topic.fresh = (*topic.fresh, listener)
            self._left.pop(channel, None)
            self._changed[channel] = None
        self._wake()

    def remove(self, channel: str, listener: Listener) -> None:
        with self._lock:
            topic = self._topics.get(channel)
            if topic is None:
                return
            topic.fresh = tuple(other for other in topic.fresh if other is not listener)
            topic.listeners = tuple(other for other in topic.listeners if other is not listener)
            if not (topic.fresh or topic.listeners):
                self._left.setdefault(channel, time.monotonic())
        self._wake()

    def known(self, channel: str) -> Known:
        """Give the newest event of the channel that this process has published or heard of."""
        topic = self._topics.get(channel)
        return newer(self._known.get(channel), NOTHING if topic is None else topic.known)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        with self._lock:
            topic = self._topics.get(channel)
            if topic is not None:
                topic.when_looked.append(done)
                self._changed[channel] = None
        if topic is None:  # nothing listens: there is nothing to tell
            done()
        else:
            self._wake()

    def count_again(self, channel: str) -> None:
        if self._presence.change(channel):
            self._wake()

    def close(self) -> None:
        """Begin to end the thread: it takes this process off the list first. Idempotent; never waits."""
        self._closed = True
        if self._bell is not None and not self._abandoned:
            self._bell.ring()

    def await_end(self) -> None:
        """Wait until the thread has ended, LEAVE_SECONDS at most. In gevent's event loop itself, do not wait."""
        by = time.monotonic() + LEAVE_SECONDS
        while self._running and not self._ended and not in_hub() and time.monotonic() < by:
            pause(0.01)

    def abandon(self) -> None:
        """This is a forked child, where gevent may go on with the parent's greenlets: let go, and touch nothing."""
        self._closed = self._abandoned = True

    def _wake(self) -> None:
        with self._lock:
            starts = not self._running and not self._closed
            self._running = self._running or starts
        if starts:
            SCHEDULER.call_soon(self._start)  # where a thread, or a greenlet, lives for as long as the process
        elif self._bell is not None:
            self._bell.ring()

    def _start(self) -> None:
        if self._closed:
            self._ended = True
            return
        bell = None
        try:
            self._bell = bell = Bell()
            threading.Thread(target=self._run, args=(bell,), name="sse-redis", daemon=True).start()
        except (OSError, RuntimeError) as error:  # no descriptor, or no thread, to be had now
            self._health.fails("listening", error)
            if bell is not None:
                bell.close()
            SCHEDULER.call_at(SCHEDULER.clock() + LONGEST_WAIT, self._start)

    # On the thread.

    def _run(self, bell: Bell) -> None:
        try:
            self._listen(bell)
        except BaseException as error:  # a greenlet that is killed, or a gevent.Timeout, say
            bell.close()
            if self._closed:
                self._ended = True
            else:
                self._health.fails("listening", error)
                SCHEDULER.call_at(SCHEDULER.clock() + FIRST_WAIT, self._start)
            raise
        if self._abandoned:
            make_waiter().wait()  # threads that end here are unknown to threading
        try:
            self._leave()
        finally:
            bell.close()
            self._ended = True

    def _listen(self, bell: Bell) -> None:
        wait, says = FIRST_WAIT, True
        while not self._closed:
            self._let_go()
            session = _Session(self, bell)
            try:
                session.listen()
            except Exception as error:
                if self._closed:  # perhaps in the middle of a command: its connection is gone
                    break
                if says and not isinstance(error, redis.RedisError | OSError):
                    log.exception("listening to Redis failed; it is tried again, and this is said once")
                    says = False
                self._health.fails("listening", error)
            says = says or session.is_settled
            wait = FIRST_WAIT if session.is_settled else min(wait * 2, LONGEST_WAIT)
            until = time.monotonic() + wait * CHANCE.uniform(1 - SPREAD, 1 + SPREAD)
            while not self._closed and time.monotonic() < until:
                time.sleep(FIRST_WAIT / 2)

    def _leave(self) -> None:
        try:
            with within(LEAVE_SECONDS):
                self._presence.leave(self._new_client())
        except (redis.RedisError, OSError) as error:  # then Redis forgets it by itself
            log.debug("could not take this process off the list: %s", error)

    def _let_go(self) -> float:
        """Let go of topics that have had no listener for LINGER seconds, and remember what was known of them.

        :return: when the next one is due, by ``time.monotonic``.
        """
        while True:
            with self._lock:
                channel, since = next(iter(self._left.items()), ("", math.inf))
                if since + LINGER > time.monotonic():
                    return since + LINGER
                del self._left[channel]
                topic = self._topics.pop(channel)
                self.first = None if topic is self.first else self.first
                self._changed[channel] = None
            self._health.channel_works("reading", channel)
            self._known.note(channel, topic.known)
            for call in topic.when_looked:
                call_and_log(call)

    def _clients(self, channel: str) -> int:
        topic = self._topics.get(channel)
        return 0 if topic is None else topic.clients

    def _take_changed(self) -> dict[str, None]:
        with self._lock:
            changed, self._changed = self._changed, {}
        return changed


class _Session:
    """One connection, from its beginning to its end."""

    def __init__(self, ear: Ear, bell: Bell) -> None:
        self.is_settled = False  #: it has been through all there was once
        self._ear = ear
        self._bell = bell
        self._names = ear._names
        self._topics = ear._topics
        self._wanted: set[str] = set()  # what Redis has been asked to announce
        self._has_more = False  # to be read at once
        self._heard = 0.0  # when Redis last said anything,
        self._asked: float | None = None  # and when it was asked to since
        self._skew = math.inf  # from the clock of Redis to ours
        self._skewed = 0.0  # when that was found out
        self._behind: dict[Topic, None] = {}  # are to be looked up
        self._failed: dict[Topic, None] = {}  # could not be, and are again
        self._warned: dict[Topic, None] = {}  # of what others announce there
        self._look_again = 0.0
        self._due = math.inf  # when a topic is to be let go
        self._tidy: list[Topic] = []
        self._tidied = time.monotonic()

    def listen(self) -> None:
        ear = self._ear
        self._client = ear._new_client()
        ear._presence.begin_anew()
        with self._client.listening() as connection, selectors.DefaultSelector() as selector:
            self._connection = connection
            self._send("SUBSCRIBE", [self._names.announcements("") + "here"])  # so that there is somebody to ask
            selector.register(connection._sock, selectors.EVENT_READ)
            selector.register(self._bell.fileno(), selectors.EVENT_READ)
            ear._take_changed()
            self._want(list(self._topics))
            self._heard = time.monotonic()
            while not ear._closed and self._client.is_current(connection):
                ready = selector.select(self._rest())
                if ear._closed:
                    return
                if any(key.fd == self._bell.fileno() for key, _ in ready):
                    self._bell.hush()
                now = time.monotonic()
                self._mind_silence(now, self._take_messages())
                self._due = ear._let_go()
                self._want(ear._take_changed())
                self._look()
                ear._presence.tell(self._client, self._topics, now, _yield_on_greenlets)
                self._forget_old(now)

    def _mind_silence(self, now: float, has_heard: bool) -> None:
        if has_heard:
            self._heard, self._asked = now, None
            settles = not self.is_settled and self._ear._presence.is_told and not self._behind
            self.is_settled = self.is_settled or settles
            if self.is_settled:
                self._ear._health.hears(begins=settles)
        elif self._asked is not None and now - self._asked >= GONE_AFTER - PING_AFTER:
            raise TimeoutError(f"it has not answered for {now - self._heard:.0f} s")
        elif self._asked is None and (now - self._heard >= PING_AFTER or not self.is_settled):
            self._send("PING", [])
            self._asked = now

    def _rest(self) -> float:
        """How long there may be nothing to do."""
        if self._behind or self._has_more:
            return 0.0
        now = time.monotonic()
        patience = PING_AFTER if self.is_settled else 0.0
        silent = self._heard + patience if self._asked is None else self._asked + GONE_AFTER - PING_AFTER
        until = [silent, self._ear._presence.due, self._due]
        if self._failed:
            until.append(self._look_again)
        return max(0.0, min(until) - now)

    def _send(self, command: str, names: Sequence[str]) -> None:
        for index in range(0, len(names) or 1, NAMES_AT_ONCE):
            self._connection.send_command(command, *names[index : index + NAMES_AT_ONCE], check_health=False)

    def _want(self, channels: Iterable[str]) -> None:
        """Have Redis announce what somebody listens to, and no more; tell those who are new what is known already."""
        begin, end = [], []
        for channel in channels:
            topic = self._topics.get(channel)
            if topic is None:
                if channel in self._wanted:
                    self._wanted.remove(channel)
                    end.append(self._names.announcements(channel))
            elif channel not in self._wanted:
                self._wanted.add(channel)
                topic.is_behind = True  # it is looked up once Redis has confirmed
                begin.append(self._names.announcements(channel))
            elif topic.when_looked or topic.log is None or not topic.listeners:
                self._behind[topic] = None  # without a listener until now, it may lack something: look it up first
            else:
                self._welcome(topic)
        if end:
            self._send("UNSUBSCRIBE", end)
        if begin:
            self._send("SUBSCRIBE", begin)

    def _take_messages(self) -> bool:
        """What has come, as much as a moment allows. Whether anything has."""
        connection, names = self._connection, self._names
        topic: Topic | None = None
        told: list[Told] = []  # of this topic: in the order in which all was published
        some, slices, ends = False, 0, time.monotonic() + TIME_SLICE_SECONDS
        while slices < SLICES and connection.can_read(0):
            kind, name, data = (*connection.read_response(), None)[:3]
            some = True
            if time.monotonic() > ends:
                self._tell(topic, told)
                told = []
                _yield_on_greenlets()
                slices, ends = slices + 1, time.monotonic() + TIME_SLICE_SECONDS
            found = self._topics.get(names.channel(name)) if kind in (b"subscribe", b"message") else None
            if found is not topic:
                self._tell(topic, told)
                topic, told = found, []
            if topic is None:
                continue
            first = self._ear.first
            if kind == b"subscribe":
                self._behind[topic] = None
            elif first is not None and first.is_behind and topic is not first:
                topic.is_behind = True
                self._behind[topic] = None
            elif not topic.is_behind and self._is_next(heard := self._read(topic, data), topic, told):
                told.append(heard)
        self._tell(topic, told)
        self._has_more = slices == SLICES
        return some

    def _read(self, topic: Topic, data: bytes) -> Told | None:
        try:
            return read_announcement(data)
        except ValueError:
            if topic not in self._warned:
                self._warned[topic] = None
                log.warning("something else than this package announces in channel %r: %r", topic.name, data[:100])
            return None

    def _is_next(self, heard: Told | None, topic: Topic, told: list[Told]) -> TypeGuard[Told]:
        own = topic.log
        if heard is None or own is None:
            return False
        newest, ms = (told[-1].offset, told[-1].ms) if told else (own.newest, topic.known.ms)
        if heard.epoch == own.epoch and heard.offset == newest + 1:
            if SCHEDULER.clock() - (heard.ms / 1000 + self._skew) > LATE:
                self._skew = math.inf  # the next look compares the clocks; until then what comes is from now
            return True
        is_other = heard.offset == newest and heard.ms != ms  # an event that is not the one with this offset here
        if heard.epoch != own.epoch or heard.offset > newest or heard.ms > ms or is_other:  # or Redis has lost some
            topic.is_behind = True
            self._behind[topic] = None
        return False

    def _tell(self, topic: Topic | None, told: Sequence[Told], is_sure: bool = False) -> None:
        """What is next in the channel: so much at a time as clients can be written in one go.

        :param is_sure: see :class:`.Known`.
        """
        if topic is None or topic.log is None:
            return
        frames: list[Frame] = []
        room = BATCH_BYTES
        for each in told:
            if frames and room < len(each.frame.payload):
                self._pass_on(topic, frames)
                yield_now()
                frames, room = [], BATCH_BYTES
            frames.append(self._keep(topic, topic.log, each, is_sure))
            room -= len(each.frame.payload)
        if frames:
            self._pass_on(topic, frames)

    def _keep(self, topic: Topic, log: Log, told: Told, is_sure: bool) -> Frame:
        at = min(told.ms / 1000 + self._skew, SCHEDULER.clock())  # a clock that was put on says more
        with log.guard:
            frame = log.keep(told.frame, told.bounds, at)
        topic.known = Known(log.epoch, frame.offset, told.ms, is_sure)
        return frame

    def _pass_on(self, topic: Topic, frames: list[Frame]) -> None:
        seconds = 0.0
        for listener in topic.listeners:
            wanted = call_and_log(partial(listener.arrived, frames))
            seconds = max(seconds, wanted) if isinstance(wanted, float) else seconds
        if seconds:  # Redis waits with the rest, or cuts this connection: then that is looked up
            time.sleep(min(seconds, LONGEST_PAUSE))

    def _look(self) -> None:
        """Find out what there is of the channels that may be behind, and tell what is new, or that there is a hole."""
        if self._failed and time.monotonic() > self._look_again:
            self._behind.update(self._failed)
            self._failed.clear()
        topics = list(islice(self._behind, LOOKS_AT_ONCE))
        for topic in topics:
            del self._behind[topic]
        topics = [topic for topic in topics if self._topics.get(topic.name) is topic]
        if not topics:  # those that could not be read may have gone
            self._note_read()
            return
        first = self._ear.first
        others = [topic for topic in topics if topic is not first]
        asked = others if first is None else [*others, first]  # last: so it knows no less than they do
        waiting = {topic: self._take_when_looked(topic) for topic in asked}
        try:
            answers = self._client.run_all(LOOK, [self._question(topic) for topic in asked])
            self._note_clock(answers)
            if first is None or self._hear_first(first, answers[-1]):
                self._take_answers(asked, answers, waiting)
            else:
                self._failed.update(dict.fromkeys([*others, *self._behind]))
                self._behind.clear()
        finally:
            with self._ear._lock:
                for topic, calls in waiting.items():
                    topic.when_looked = calls + topic.when_looked
        self._note_read()

    def _note_read(self) -> None:
        if not self._failed and not self._behind:
            self._ear._health.works("reading")

    def _hear_first(self, first: Topic, answer: Any) -> bool:
        """Tell all of what comes before anything of the others.

        :return: whether that is done. Else the others wait.
        """
        self._failed.pop(first, None)
        while True:
            self._behind.pop(first, None)
            if first.log is None and _is_full(answer):  # nothing has begun there, nor can it now
                self._look_later(first)
                return True
            if self._take_answer(first, answer):
                return True
            if first in self._failed:
                return False
            [answer] = self._client.run_all(LOOK, [self._question(first)])

    def _take_answers(
        self, topics: Sequence[Topic], answers: Sequence[Any], waiting: dict[Topic, list[Callable[[], object]]]
    ) -> None:
        ends = time.monotonic() + TIME_SLICE_SECONDS
        for topic, answer in zip(topics, answers, strict=True):
            if topic is self._ear.first or self._take_answer(topic, answer):
                for call in waiting.pop(topic):
                    call_and_log(call)
            if time.monotonic() > ends:
                _yield_on_greenlets()
                ends = time.monotonic() + TIME_SLICE_SECONDS

    def _take_when_looked(self, topic: Topic) -> list[Callable[[], object]]:
        with self._ear._lock:
            calls, topic.when_looked = topic.when_looked, []
        return calls

    def _question(self, topic: Topic) -> tuple[list[str], list[Any]]:
        own, known = topic.building or topic.log, self._ear.known(topic.name)
        if own is not None and known.epoch != own.epoch:
            known = topic.known
        arguments = look_arguments(
            new_epoch(), known, None if own is None else own.newest, lasts=topic is self._ear.first
        )
        return self._names.keys(topic.name), arguments

    def _note_clock(self, answers: Sequence[Any]) -> None:
        """The least that lies between the clocks is nearest to the truth: the rest of it is the way here."""
        now = SCHEDULER.clock()
        latest = next((answer for answer in reversed(answers) if isinstance(answer, list)), None)
        if latest is not None:  # else none was found
            skew = now - read_clock(latest)
            if skew < self._skew or now > self._skewed + CLOCK_HOLDS:
                self._skew, self._skewed = skew, now

    def _take_answer(self, topic: Topic, answer: Any) -> bool:
        """:return: whether all is known that there was."""
        try:
            if isinstance(answer, Exception):
                raise answer
            found = read_found(answer)
        except (redis.RedisError, OSError, ValueError) as error:
            self._look_later(topic)
            keys = self._names.keys(topic.name)
            if diagnose(error) is KEYS and topic is not self._ear.first:
                self._ear._health.channel_fails("reading", topic.name, keys, error)
            else:  # all others wait for the first one
                self._ear._health.fails("reading", error, keys)
            return False
        self._ear._health.channel_works("reading", topic.name)
        newest = self._find(topic, found)
        if newest < found.newest:  # there is more than one answer holds
            topic.is_behind = True
            self._behind[topic] = None
            return False
        topic.looked = time.monotonic()
        topic.is_behind = False
        topic.known = Known(found.epoch, found.newest, found.last, is_sure=True)
        if topic.building is not None:
            topic.log, topic.building = topic.building, None
            for listener in topic.listeners:
                call_and_log(partial(listener.started, Start(topic.log, topic.log.newest)))
        self._welcome(topic)
        return True

    def _look_later(self, topic: Topic) -> None:
        if not self._failed:
            self._look_again = time.monotonic() + LOOK_AGAIN
        self._failed[topic] = None

    def _find(self, topic: Topic, found: Found) -> int:
        """:return: the offset up to which this channel is known now."""
        own = topic.building or topic.log
        if own is None or not _goes_on(own, found):
            first = found.told[0].offset if found.told else found.newest + 1
            last = -math.inf if found.told or not found.last else found.last / 1000 + self._skew
            own = topic.building = Log(found.epoch, first - 1, SCHEDULER.clock, last, found.former)
        elif own.epoch != found.epoch:
            with own.guard:
                own.former = found.former  # first: until the next line, what is known so far is found as well
                own.epoch = found.epoch
        if own is topic.log:
            self._tell(topic, found.told, is_sure=True)
        else:
            for told in found.told:
                self._keep(topic, own, told, is_sure=True)
        return own.newest

    def _welcome(self, topic: Topic) -> None:
        if not topic.fresh:
            return
        with self._ear._lock:
            fresh, topic.fresh = topic.fresh, ()
            topic.listeners += fresh
        assert topic.log is not None
        for listener in fresh:
            call_and_log(partial(listener.started, Start(topic.log, topic.log.newest)))

    def _forget_old(self, now: float) -> None:
        """Go through the logs, some at a time."""
        some = int((now - self._tidied) / min(TIDY_EVERY, self._ear._look_every) * len(self._topics))
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
            look_every = self._ear._look_every if topic.known.offset else min(self._ear._look_every, LOOK_UNUSED_EVERY)
            if now - topic.looked > look_every and not topic.is_behind:
                self._behind[topic] = None
        del self._tidy[-some:]


def _goes_on(own: Log, found: Found) -> bool:
    """Whether what was found begins where this log ends."""
    first = found.told[0].offset if found.told else found.newest + 1
    is_same = found.epoch == own.epoch or any(epoch == own.epoch and own.newest <= end for epoch, end in found.former)
    return is_same and first == own.newest + 1


def _is_full(answer: Any) -> bool:
    """Whether a script could not write because Redis has no memory left; before version 7 it says so in its own way."""
    return isinstance(answer, redis.ResponseError) and "command not allowed when used memory" in str(answer)


def _yield_on_greenlets() -> None:
    """Where threads are greenlets, nobody else gets anywhere while there is always something to read."""
    if is_green():
        yield_now()
