"""Ending streams whose readers have lost the right to them, in every process.

Revocations go the way of events: the broker numbers them, keeps them, and tells every process that has streams of
channels. So a process that was away reads what it has missed, before any event that came after it; and where that is no
longer to be had, it sends all its clients back, who are asked anew who they are.

A request that has asked its rule, and has no stream yet, is not missed either: it is told what is revoked meanwhile.
"""

from __future__ import annotations

import json
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from itertools import count
from typing import NamedTuple

from ..brokers import Broker, Start
from ..brokers.event_log import Bounds, Log, new_epoch
from ..config.settings import DEFAULTS
from ..errors import BrokerUnavailable
from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import yield_now
from ..runtime.locks import native_lock
from ..runtime.scheduler import RULES, SCHEDULER
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from ..wire.decoder import decode
from ..wire.event import Event
from ..wire.frame import Frame, make_frame

log = logging.getLogger("flask_sse_emitters.revocation")

#: No channel can have this name.
NAME = "!revoked"

#: What a process may miss for so long, and so many of them, it gets when it is back.
KEPT = Bounds(10_000, 300.0)

#: Seconds by which times that come from another clock may be wrong. Who is ended though it was asked anew comes back.
CLOCK_ERROR = 1.0

#: A broker that is first reached so many seconds after it was to be listened to may have lost something before that.
LATE = 5.0

#: So many streams are ended in one go: then others get the processor for a moment.
AT_ONCE = 20

#: What the request that asks its rule here is told. A rule that revokes does not mean the stream that it decides about.
_heard_here: ContextVar[list[Revocation] | None] = ContextVar("flask_sse_emitters.heard_here", default=None)


class Revocation(NamedTuple):
    """Of what is revoked, each None is for all."""

    identity: str | None
    channel: str | None
    asks: bool = False  #: the rule is asked again, and may say yes

    def hits(self, stream: Stream) -> bool:
        """Return whether it means this stream."""
        reader = stream.reader
        if self.identity is not None and (reader is None or self.identity not in reader.identities):
            return False
        if self.channel is None:
            return True
        channels = [member.list.name for member in stream.outgoing.members] if reader is None else reader.channels
        return self.channel in channels


EVERYTHING = Revocation(None, None)


class Revocations:
    """Those of one app. Every method may be called from any thread.

    :param members: gives the streams of a channel here; of all channels, where that is None.
    :param ask_again: asks the rule of these streams again, and ends those that it denies. May block.
    """

    def __init__(
        self,
        broker: Broker,
        streams: StreamRegistry,
        members: Callable[[str | None], Iterable[Stream]],
        ask_again: Callable[[Sequence[Stream]], None],
    ) -> None:
        self._broker = broker
        self._streams = streams
        self._members = members
        self._ask_again = ask_again
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._process = new_epoch() + new_epoch()
        self._ear: _Ear | None = None
        self._asking: dict[int, list[Revocation]] = {}
        self._numbers = count()

    def listen(self) -> None:
        """Begin to hear what other processes revoke; again is nothing. Never waits.

        To be called before the first stream of a channel, and before its rule is asked.
        """
        if self._ear is not None or not self._broker.is_shared:
            return
        ear = _Ear(self)
        start = self._broker.subscribe_first(NAME, ear)
        if start is not None:
            ear.started(start)
        with self._lock:
            first = self._ear is None
            if first:
                self._ear = ear
        if not first:  # another thread was as quick: until here both listened
            self._broker.unsubscribe(NAME, ear)

    @contextmanager
    def asking(self) -> Iterator[Callable[[Stream], None]]:
        """While a request asks its rule, and begins its stream.

        :return: is to be called with the stream, once a revocation would find it.
        """
        self.listen()
        heard: list[Revocation] = []
        number = next(self._numbers)
        with self._lock:
            self._asking[number] = heard

        def check(stream: Stream) -> None:
            for revocation in heard.copy():
                if revocation.hits(stream):
                    stream.end_with_retry(drops_pending=True)

        here = _heard_here.set(heard)
        try:
            yield check
        finally:
            _heard_here.reset(here)
            with self._lock:
                self._asking.pop(number, None)

    def revoke(self, revocation: Revocation) -> None:
        """End what it hits here, at once, and in all other processes.

        :raises BrokerUnavailable: where those cannot be reached; here it is done.
        """
        self._apply(revocation, _heard_here.get())
        if self._broker.is_shared:
            said = Event([self._process, *revocation])
            try:
                self._broker.publish(NAME, make_frame(said, json.dumps, DEFAULTS.max_event_bytes), KEPT)
            except BrokerUnavailable as error:
                raise BrokerUnavailable(
                    "this process has done it, and others may not have, because they could not be told: call it again "
                    f"({error.__cause__ or error})"
                ) from error

    def _hear(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            said = _read(frame)
            if said is not None and said[0] != self._process:
                self._apply(said[1])

    def _apply(self, revocation: Revocation, but: list[Revocation] | None = None) -> None:
        with self._lock:
            for heard in self._asking.values():
                if heard is not but:
                    heard.append(revocation)
        found = self._find(revocation)
        if revocation.asks:
            if found:
                SCHEDULER.run(partial(self._ask_again, found), RULES)
            return
        for number, stream in enumerate(found, 1):
            stream.end_with_retry(drops_pending=True)
            if not number % AT_ONCE:
                yield_now()

    def _find(self, revocation: Revocation) -> list[Stream]:
        if revocation.identity is None:
            return [stream for stream in self._members(revocation.channel) if revocation.hits(stream)]
        return [stream for stream in self._streams.streams_of(revocation.identity) if revocation.hits(stream)]


class _Ear:
    """Listens to the revocations, for as long as the process lives, or the app: it does not keep the app alive."""

    clients = 0

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = weakref.ref(revocations)
        self._since = SCHEDULER.clock()
        self._log: Log | None = None

    def started(self, start: Start) -> None:
        revocations = self._revocations()
        if revocations is None:
            return
        again, self._log = self._log is not None, start.log
        offset, is_known = start.log.before(self._since - CLOCK_ERROR)
        begins_late = not offset and SCHEDULER.clock() > self._since + LATE
        if again or begins_late or not is_known:
            log.info("revocations may have been missed: all streams end, so that their clients are asked again")
            revocations._apply(EVERYTHING)
        else:
            revocations._hear(start.log.after(offset, start.newest, math.inf))

    def arrived(self, frames: Sequence[Frame]) -> None:
        revocations = self._revocations()
        if revocations is not None:
            revocations._hear(frames)


def _read(frame: Frame) -> tuple[str, Revocation] | None:
    with suppress(ValueError, TypeError):
        [event] = decode(frame.payload)
        process, identity, channel, asks = json.loads(event.data or "")
        revocation = Revocation(identity, channel, asks)
        if _is_revocation(revocation):
            return process, revocation
    _note_foreign(frame.payload[:100])
    return None


def _is_revocation(said: Revocation) -> bool:
    """Whether its parts have the right types. Applying another one would raise, and those after it would be lost."""
    are_names = all(name is None or isinstance(name, str) for name in (said.identity, said.channel))
    return are_names and isinstance(said.asks, bool) and not (said.asks and said.identity is None)


@lru_cache(maxsize=1000)  # each once
def _note_foreign(payload: bytes) -> None:
    log.warning("something else than this package revokes: %r", payload)
