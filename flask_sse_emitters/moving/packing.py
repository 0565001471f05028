"""A stream as a record, and a stream made from a record.

All of it happens on the thread that writes.
"""

from __future__ import annotations

import _socket
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..broadcast.member import Member
from ..broadcast.named import NamedDelivery, find_list, list_names
from ..channels.process_subscription import ProcessSubscription
from ..channels.replay.machine import Replay
from ..runtime.scheduler import SCHEDULER
from ..runtime.socket_monitor import Watch
from ..streams.emitter import SseEmitter, stream_of
from ..streams.machine import STREAMING
from ..streams.registry.identity import Reader
from ..streams.stream import Stream
from ..writers.movable_writer import MovableWriter
from .app import MovingApp
from .protocol.messages import Reason
from .protocol.stream_record import ReaderRecord, StreamRecord

#: A client that is to be written more bytes than this does not move: it is slow, and comes back.
MOST_REST = 32 * 1024

#: So often the position of a stream is looked for while its channels get events.
TRIES = 5


class Packed(NamedTuple):
    """A stream that is frozen, and what describes it."""

    stream: Stream
    writer: MovableWriter
    record: StreamRecord


def pack(stream: Stream) -> Packed | str:
    """Freeze a stream, and describe it; or return why it stays here, as ``sse.stats()`` names that."""
    writer = stream.outgoing.direct
    if stream.phase is not STREAMING or not isinstance(writer, MovableWriter):
        return "not handed off" if stream.phase is STREAMING else "ended"
    members = [member for member in stream.outgoing.members if isinstance(member, Member)]
    reason = _obstacle(stream, members, writer)
    if reason is not None:
        return reason
    rest = writer.freeze(MOST_REST)
    if rest is None:
        return "slow"
    positions = _positions(stream, members, writer, rest)
    if positions is None:
        writer.thaw()
        return "catching up"
    channels, rest = positions
    return Packed(stream, writer, _record(stream, members[0].emitter, writer, channels, rest))


def _obstacle(stream: Stream, members: Sequence[Member], writer: MovableWriter) -> str | None:
    if stream.settings.drain == "finish" or stream.producer is not None:
        return "it is to finish"
    if stream.callbacks.are_there or stream.room is not None or not writer.can_move:
        return "callbacks"
    reader = stream.reader
    if reader is not None and reader.identities and reader.asked and reader.request is None:
        return "reader"  # its request is too large to be kept: the rule cannot be asked again
    if not members or list_names(stream) is None:
        return "list"
    emitter = members[0].emitter
    if type(emitter) is not SseEmitter or not _is_json(vars(emitter)) or not _is_json(stream.settings.own):
        return "attributes"
    return None


def _is_json(values: Mapping[str, Any]) -> bool:
    try:
        return not values or json.loads(json.dumps(dict(values), allow_nan=False)) == values
    except (TypeError, ValueError, RecursionError):
        return False


def _positions(
    stream: Stream, members: Sequence[Member], writer: MovableWriter, rest: bytes
) -> tuple[tuple[tuple[str, str], ...], bytes] | None:
    """Return the position of a frozen stream in each of its channels, and what is still to be written before that."""
    for _ in range(TRIES):
        found = [_position(member) for member in members]
        with stream.lock:
            is_settled = not stream.outgoing.backlog.size and stream.outgoing.replay is None
        if is_settled and None not in found:
            return tuple(each for each in found if each), rest
        more = writer.take_more(MOST_REST)
        if more is None:
            return None
        rest = more
    return None


def _position(member: Member) -> tuple[str, str] | tuple[()] | None:
    """Return the channel and the id that its client has, or nothing for another list; None where it lacks something."""
    subscription = member.list
    if not isinstance(subscription, ProcessSubscription):
        return () if not member.queued_events else None
    with subscription.lock:
        number, offset, log = subscription.number, subscription.offset, subscription.log
    if log is None or not member.has_all_upto(number):
        return None
    return subscription.name, str(log.position(offset))


def _record(
    stream: Stream, emitter: SseEmitter, writer: MovableWriter, channels: tuple[tuple[str, str], ...], rest: bytes
) -> StreamRecord:
    deadlines, reader, ahead = stream.deadlines, stream.reader, time.time() - SCHEDULER.clock()
    return StreamRecord(
        channels=channels,
        lists=list_names(stream) or (),
        is_chunked=writer.is_chunked,
        rest=rest,
        born=deadlines.born + ahead,
        lifetime_part=deadlines.lifetime_part,
        ends_by=None if deadlines.ends_by == math.inf else deadlines.ends_by + ahead,
        written=max([deadlines.written, *(member.written_at for member in stream.outgoing.members)]) + ahead,
        address=stream.address,
        reader=_reader_record(reader),
        own=stream.settings.own,
        attributes=vars(emitter),
    )


def _reader_record(reader: Reader | None) -> ReaderRecord | None:
    if reader is None:
        return None
    return ReaderRecord(
        identities=reader.identities,
        channels=reader.channels,
        asked=reader.asked,
        request=reader.request,
        by_channel=reader.by_channel,
    )


class Adoption:
    """A stream that another process gives, on its way into this one."""

    def __init__(self, app: MovingApp, record: StreamRecord, client: _socket.socket) -> None:
        self._app = app
        self._record = record
        self._client = client
        self._emitter = SseEmitter()
        self._replay: Replay | None = None  # of its channels, if it has any
        self._lists: list[NamedDelivery] = []
        self._ahead = time.time() - SCHEDULER.clock()
        self.refused: Reason | None = None
        self.stream: Stream | None = None  #: once it is decided, and it is adopted

    def begin(self) -> None:
        """Make the stream, and look for its position in its channels."""
        record, stream = self._record, stream_of(self._emitter)
        self._lists = [found for name in record.lists if (found := find_list(name)) is not None]
        if len(self._lists) < len(record.lists):
            self.refuse("list")
            return
        stream.attach(self._app.settings, self._app.streams)
        stream.settings = stream.deadlines.settings = self._app.settings.with_own(record.own)
        vars(self._emitter).update(record.attributes)
        if (reader := record.reader) is not None:
            stream.reader = Reader(reader.identities, reader.channels, reader.asked, reader.request, reader.by_channel)
            self._app.streams.enlist(stream)
        if record.channels:
            names, ids = zip(*record.channels, strict=True)
            self._replay = self._app.channels.resume(self._emitter, names, ",".join(ids))

    @property
    def is_decided(self) -> bool:
        """Whether it is known what becomes of it."""
        return self.refused is not None or self.stream is not None

    def decide(self, *, is_late: bool) -> None:
        """Adopt the stream once its position is found here, or refuse it.

        :param is_late: there is no more time to find it.
        """
        if self.is_decided:
            return
        replay = self._replay
        if replay is not None and replay.misses_events is None:
            replay.prepare()
        misses = False if replay is None else replay.misses_events
        if misses is None and not is_late:
            return
        refused: Reason | None = "history"
        if misses is False:
            refused = self._app.streams.adopt(self._emitter, self._record.address)
        if refused is not None:
            self.refuse(refused)
        else:
            self._begin()

    def refuse(self, reason: Reason) -> None:
        """Leave the stream to the process that has given it."""
        self.refused = reason
        self._client.close()
        stream_of(self._emitter).release(ConnectionAbortedError("it stays in the process that it is from"))

    def _begin(self) -> None:
        stream = stream_of(self._emitter)
        for each in self._lists:
            each.add(self._emitter)
        writer = MovableWriter(stream, self._client, self._record.is_chunked, Watch(-1, None), ())
        stream.begin(writer)
        has_output = stream.take_over(writer)
        self._set_times(stream)
        writer.go_on(self._record.rest, has_output=has_output)
        self.stream = stream

    def _set_times(self, stream: Stream) -> None:
        record, ahead, deadlines = self._record, self._ahead, stream.deadlines
        with stream.lock:
            deadlines.born = record.born - ahead
            deadlines.lifetime_part = record.lifetime_part
            deadlines.begin_streaming(record.written - ahead)
            deadlines.ends_by = math.inf if record.ends_by is None else record.ends_by - ahead
        deadlines.set_timer(stream)
