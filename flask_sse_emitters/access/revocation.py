"""Revocations end the streams of readers who have lost their right to them, in every process.

They travel as events do: the broker numbers and keeps them, and delivers them to every process that has streams of
channels. So a process that was away reads the revocations that it has missed before any later event. Where the broker
no longer has them, that process ends all its streams, and its clients are asked again who they are.

A request that has asked its rule and has no stream yet is covered too: see :meth:`Revocations.pending_request`.
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
from ..brokers.event_ids import new_epoch
from ..brokers.event_log import Bounds, Log
from ..channels.names import check_name
from ..config.settings import DEFAULTS
from ..errors import BrokerUnavailable
from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import yield_now
from ..runtime.locks import native_lock
from ..runtime.scheduler import RULES, SCHEDULER
from ..streams.registry.identity import check_identity
from ..streams.registry.open_streams import StreamRegistry
from ..streams.stream import Stream
from ..wire.decoder import decode
from ..wire.event import Event
from ..wire.frame import Frame, make_frame

log = logging.getLogger("flask_sse_emitters.revocation")

#: Revocations travel on this channel. No other can have its name.
CHANNEL = "!revoked"

#: The broker keeps so many revocations, for so many seconds, for processes that are away.
HISTORY_BOUNDS = Bounds(10_000, 300.0)

#: The clocks of two machines may differ by so much. A stream that is ended too often only has to come back.
CLOCK_ERROR_SECONDS = 1.0

#: A broker that is first reached so long after :meth:`Revocations.listen` may have lost revocations before that.
LATE_SECONDS = 5.0

#: So many streams are ended before other greenlets may run.
STREAMS_PER_SLICE = 20

#: The revocations received for the request that asks its rule in this context. A rule that revokes does not mean the
#: stream that it is about to admit.
_received_here: ContextVar[list[Revocation] | None] = ContextVar("flask_sse_emitters.received_here", default=None)


class Revocation(NamedTuple):
    """Revokes the streams of an identity, of a channel, or those that have both. None stands for any."""

    identity: str | None
    channel: str | None
    is_recheck: bool = False  #: the rule is asked again, and may admit the stream

    def applies_to(self, stream: Stream) -> bool:
        """Return whether this revokes the stream."""
        reader = stream.reader
        if self.identity is not None and (reader is None or self.identity not in reader.identities):
            return False
        if self.channel is None:
            return True
        channels = [member.list.name for member in stream.outgoing.members] if reader is None else reader.channels
        return self.channel in channels


EVERYTHING = Revocation(None, None)


def make_revocation(identity: str | None, channel: str | None = None, *, is_recheck: bool = False) -> Revocation:
    """Return the revocation of what these name, checked.

    :raises TypeError: where the identity is not a str.
    :raises ValueError: where the identity, or the name of the channel, is invalid.
    """
    return Revocation(
        None if identity is None else check_identity(identity),
        None if channel is None else check_name(channel),
        is_recheck,
    )


class Revocations:
    """Sends and receives the revocations of one app. Every method may be called from any thread.

    :param members: returns this process's streams of a channel, or of all channels for None.
    :param recheck: asks the rule about these streams again, and ends those that it denies. May block.
    """

    def __init__(
        self,
        broker: Broker,
        streams: StreamRegistry,
        members: Callable[[str | None], Iterable[Stream]],
        recheck: Callable[[Sequence[Stream]], None],
    ) -> None:
        self._broker = broker
        self._streams = streams
        self._members = members
        self._recheck = recheck
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._process = new_epoch() + new_epoch()
        self._listener: _Listener | None = None
        self._pending: dict[int, list[Revocation]] = {}
        self._numbers = count()

    def listen(self) -> None:
        """Begin to receive the revocations of other processes. Idempotent; never waits.

        Call it before the first stream of a channel begins, and before the rule is asked about it.
        """
        if self._listener is not None or not self._broker.is_shared:
            return
        listener = _Listener(self)
        start = self._broker.subscribe_first(CHANNEL, listener)
        if start is not None:
            listener.started(start)
        with self._lock:
            first = self._listener is None
            if first:
                self._listener = listener
        if not first:  # another thread was faster; both have listened until here
            self._broker.unsubscribe(CHANNEL, listener)

    @contextmanager
    def pending_request(self) -> Iterator[Callable[[Stream], None]]:
        """Collect revocations while a request asks its rule and begins its stream.

        :return: a function that ends the stream if it was revoked meanwhile. Call it once the stream is registered.
        """
        self.listen()
        received: list[Revocation] = []
        number = next(self._numbers)
        with self._lock:
            self._pending[number] = received

        def end_if_revoked(stream: Stream) -> None:
            for revocation in received.copy():
                if revocation.applies_to(stream):
                    stream.end_with_retry(drops_pending=True)

        token = _received_here.set(received)
        try:
            yield end_if_revoked
        finally:
            _received_here.reset(token)
            with self._lock:
                self._pending.pop(number, None)

    def revoke(self, revocation: Revocation) -> None:
        """End the streams that it applies to: here before this returns, and in all other processes.

        May wait for the broker.

        :raises BrokerUnavailable: where other processes cannot be reached; here it is done.
        """
        self.apply(revocation, _received_here.get())
        if self._broker.is_shared:
            event = Event([self._process, *revocation])
            try:
                self._broker.publish(CHANNEL, make_frame(event, json.dumps, DEFAULTS.max_event_bytes), HISTORY_BOUNDS)
            except BrokerUnavailable as error:
                raise BrokerUnavailable(
                    "this process has done it, and others may not have, as they could not be reached: call it again "
                    f"({error.__cause__ or error})"
                ) from error

    def receive(self, frames: Sequence[Frame]) -> None:
        """Apply the revocations of other processes."""
        for frame in frames:
            read = _read(frame)
            if read is not None and read[0] != self._process:
                self.apply(read[1])

    def apply(self, revocation: Revocation, sender: list[Revocation] | None = None) -> None:
        """End the streams here that it applies to, and those of pending requests, without telling other processes.

        :param sender: the list of the pending request that revokes, which is left out.
        """
        with self._lock:
            for received in self._pending.values():
                if received is not sender:
                    received.append(revocation)
        found = self._find(revocation)
        if revocation.is_recheck:
            if found:
                SCHEDULER.run(partial(self._recheck, found), RULES)
            return
        for number, stream in enumerate(found, 1):
            stream.end_with_retry(drops_pending=True)
            if not number % STREAMS_PER_SLICE:
                yield_now()

    def _find(self, revocation: Revocation) -> list[Stream]:
        if revocation.identity is None:
            return [stream for stream in self._members(revocation.channel) if revocation.applies_to(stream)]
        return [stream for stream in self._streams.streams_of(revocation.identity) if revocation.applies_to(stream)]


class _Listener:
    """Receives the app's revocations until the process ends, or the app is dropped, which it does not keep alive."""

    clients = 0

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = weakref.ref(revocations)
        self._since = SCHEDULER.clock()
        self._log: Log | None = None

    def started(self, start: Start) -> None:
        revocations = self._revocations()
        if revocations is None:
            return
        is_restart, self._log = self._log is not None, start.log
        offset, is_known = start.log.before(self._since - CLOCK_ERROR_SECONDS)
        is_late = not offset and SCHEDULER.clock() > self._since + LATE_SECONDS
        if is_restart or is_late or not is_known:
            log.info("revocations may have been missed: all streams end, so that their clients are asked again")
            revocations.apply(EVERYTHING)
        else:
            revocations.receive(start.log.after(offset, start.newest, math.inf))

    def arrived(self, frames: Sequence[Frame]) -> None:
        revocations = self._revocations()
        if revocations is not None:
            revocations.receive(frames)


def _read(frame: Frame) -> tuple[str, Revocation] | None:
    with suppress(ValueError, TypeError):
        [event] = decode(frame.payload)
        process, identity, channel, is_recheck = json.loads(event.data or "")
        revocation = Revocation(identity, channel, is_recheck)
        if _is_revocation(revocation):
            return process, revocation
    _note_foreign(frame.payload[:100])
    return None


def _is_revocation(read: Revocation) -> bool:
    """Return whether its fields have the right types. To apply another one would raise, and lose those after it."""
    are_names = all(name is None or isinstance(name, str) for name in (read.identity, read.channel))
    return are_names and isinstance(read.is_recheck, bool) and not (read.is_recheck and read.identity is None)


@lru_cache(maxsize=1000)  # once for each payload
def _note_foreign(payload: bytes) -> None:
    log.warning("ignoring a revocation that this package did not publish: %r", payload)
