"""What a client has missed: read from the logs of its channels as it can take it, until lists have it.

Nothing is queued meanwhile. The client has a place in each channel's list from the beginning, and the list passes over
it; once everything that the list has ever been given has been read from the log, the place goes live, which the list
confirms under its own lock. So there is no seam, and a backlog of any length costs a client one position a channel.

What must be announced is a hole: a position that is not of this log, or one after which something is gone. It may also
open while a slow client reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from typing import NamedTuple

from ..broadcast.delivery import Delivery
from ..broadcast.member import Member, MemberState
from ..brokers.event_ids import MAX_ID_LENGTH, read_ids
from ..brokers.event_log import Log
from ..runtime.calls import Countdown
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..streams.emitter import SseEmitter, stream_of
from ..streams.interfaces import Output
from ..wire.event import Event
from ..wire.frame import BATCH_BYTES, Frame, count_events
from .subscription import ChannelSubscription

#: A page that nobody has asked for in so many seconds is let go.
PAGE_SECONDS = 5.0

#: So many pages are kept at most.
PAGES_KEPT = 64

#: The name of the event that tells a client that it has missed some; no other event of a channel has it.
GAP = "gap"

#: Times of events, in seconds, that come from another clock may be wrong by so much.
CLOCK_ERROR = 0.002


class Cursor:
    """How far a stream is in its channels, as the ids of its events say. Its emitter's lock guards it."""

    __slots__ = ("ids",)

    def __init__(self, count: int) -> None:
        self.ids = [b""] * count

    @property
    def size(self) -> int:
        """How many bytes the line of ids has that comes with each event."""
        return len(b"id: \n") + sum(map(len, self.ids)) + len(self.ids) - 1

    def stamp(self, index: int, frame: Frame) -> Frame:
        """The frame of one of the channels, as it is written to this client."""
        if not frame.offset:
            return frame
        self.ids[index] = frame.payload[len(b"id: ") : frame.body - 1]
        line = b"id: %b\n" % b",".join(self.ids)
        return Frame(line + frame.payload[frame.body :], frame.name, frame.offset, len(line), frame.at)


class Place(Member):
    """The place that a stream of several channels has in one of them."""

    __slots__ = ("_cursor", "_index")

    has_own_ids = True

    def __init__(self, emitter: SseEmitter, list: Delivery, cursor: Cursor, index: int) -> None:
        super().__init__(emitter, list, MemberState.REPLAYING)
        self._cursor = cursor
        self._index = index

    def with_ids(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        return [self._cursor.stamp(self._index, frame) for frame in frames]


class Page(NamedTuple):
    """Some of what is missed, as all who come from the same position get it."""

    taken: Output
    offsets: tuple[int, ...]  #: where it ends
    upto: tuple[int, ...]  #: where it had to end


class Pages:
    """Pages by where they begin, for as long as they are asked for. Any thread may call, and none waits."""

    def __init__(self, scheduler: Scheduler = SCHEDULER) -> None:
        self._lock = native_lock()
        self._scheduler = scheduler
        self._pages: dict[object, tuple[Page, float]] = {}  # by when they were last asked for
        self.built = 0  #: pages, since the beginning

    def __len__(self) -> int:
        return len(self._pages)

    def get(self, key: object, upto: tuple[int, ...]) -> Page | None:
        """The page that begins here, if it holds all up to there, or as much as a page can."""
        with self._lock:
            page, _ = self._pages.get(key, (None, 0.0))
            if page is None or (page.upto != upto and len(page.taken.payload) < BATCH_BYTES // 2):
                return None
            del self._pages[key]
            self._pages[key] = page, self._scheduler.clock()
            return page

    def put(self, key: object, page: Page) -> None:
        now = self._scheduler.clock()
        with self._lock:
            first = not self._pages
            self._pages.pop(key, None)
            self._pages[key] = page, now
            self.built += 1
            if len(self._pages) > PAGES_KEPT:
                del self._pages[next(iter(self._pages))]
        if first:
            self._scheduler.call_at(now + PAGE_SECONDS, self._let_go)

    def _let_go(self) -> None:
        now = self._scheduler.clock()
        with self._lock:
            while self._pages:
                key, (_, asked) = next(iter(self._pages.items()))
                if asked + PAGE_SECONDS > now:
                    break
                del self._pages[key]
            again = bool(self._pages)
        if again:
            self._scheduler.call_at(now + PAGE_SECONDS, self._let_go)


class _Found(NamedTuple):
    """What a process knows of a channel."""

    log: Log
    newest: int  #: the offset of the newest event that the channel's list has been given
    first: int  #: of the newest event when the list began


class Replay:
    """What one client has missed: the source of its emitter.

    :param feeds: of the channels of its stream, each once.
    :param requested: the ``Last-Event-ID`` of the client; None where it has none, and begins with what comes.
    """

    __slots__ = (
        "__weakref__",
        "_asking",
        "_came",
        "_cursor",
        "_emitter",
        "_feeds",
        "_found",
        "_logs",
        "_lost",
        "_members",
        "_offsets",
        "_pages",
        "_prepared",
        "_requested",
        "_stream",
        "_upto",
        "has_more",
    )

    def __init__(
        self, emitter: SseEmitter, feeds: Sequence[ChannelSubscription], requested: str | None, pages: Pages
    ) -> None:
        self.has_more = False
        self._emitter = emitter
        self._stream = stream_of(emitter)
        self._feeds = feeds
        self._pages = pages
        self._requested = requested
        self._came = SCHEDULER.clock()
        self._asking: Countdown | None = None  # ends when the broker has answered
        self._cursor = Cursor(len(feeds))  # how far the client will be with what has been taken
        self._members = {index: self._member(index) for index in range(len(feeds))}  # those that are not live yet
        self._logs: list[Log] = []  # empty until all channels are known
        self._found: list[_Found] = []  # what was known of them when the stream had ended, and had no position yet
        self._offsets: list[int] = []  # how far the logs have been read
        self._lost: str | None = None  # an id that leads nowhere, which is still to be announced
        self._upto: tuple[int, ...] | None = None  # nothing beyond, once the stream has ended
        self._prepared: Output | Callable[[], Output] | None = None

    def begin(self) -> None:
        """Take the stream's places in its channels' lists, and have its emitter read from here what they do not bring.

        The emitter must be new: nothing has been sent to it.
        """
        for index, member in self._members.items():
            feed = self._feeds[index]
            feed.enlist(member)
            newest = feed.newest()
            self._offsets.append(-1 if newest is None else newest)  # where one begins that comes without an id
        if self._is_known() and not (self._lost is not None and self._behind(self._list_offsets())):
            head = self._head()  # now: what lists bring once it is live comes after this position
            self._go_live()
            self._stream.prepend(head.payload, head.gap)
        if self._members:
            self._stream.replay_from(self)

    def end(self, *, is_synced: bool) -> None:
        if is_synced and not self._logs:
            self._found = self._find()
        self._upto = tuple(log.newest for log in self._logs or [found.log for found in self._found])

    def prepare(self) -> bool | None:
        if not self._logs:
            if not self._is_known():
                return None if self._upto is not None else False
            if self._lost is None:
                head = self._head()
                self._prepared = head if head.payload else None
        while self._prepared is None:
            ended = self._upto is not None
            if not ended and self._lost is None:
                self._go_live()
            upto = self._upto or self._list_offsets()
            behind = self._behind(upto)
            if behind or self._lost is not None:
                self._prepared = self._next(behind, upto)
            elif ended or not self._members:
                return None
            elif self._is_ahead():
                return False
        return True

    def take(self) -> Output:
        prepared, self._prepared = self._prepared, None
        assert prepared is not None
        return prepared if isinstance(prepared, Output) else prepared()

    def _member(self, index: int) -> Member:
        feed, cursor = self._feeds[index], self._cursor
        one = len(self._feeds) == 1
        return Member(self._emitter, feed, MemberState.REPLAYING) if one else Place(self._emitter, feed, cursor, index)

    def _is_known(self) -> bool:
        """Whether all channels are known, so that the stream has its position; else it is stirred later."""
        found = self._found
        if not found and self._upto is None:
            for feed in self._feeds:
                if feed.log is None:
                    feed.notify_later(self._stream)
            found = self._find()
            if found and self._is_asking(found):
                return False
        if not found:
            return False
        self._find_position(found)
        self._logs = [each.log for each in found]
        return True

    def _find(self) -> list[_Found]:
        """What this process knows of the channels; nothing where it does not know all of them."""
        found = [_Found(feed.log, feed.offset, feed.start_offset) for feed in self._feeds if feed.log is not None]
        return found if len(found) == len(self._feeds) else []

    def _is_asking(self, found: Sequence[_Found]) -> bool:
        """Whether the client may know more than this process, as it came from another one, and the broker is asked."""
        if self._requested is None:
            return False
        if self._asking is None:
            asked = read_ids(self._requested, len(found)) or ()
            unknown = [
                feed
                for feed, (log, _, _), position in zip(self._feeds, found, asked, strict=bool(asked))
                if log.find(position) is None
            ]
            self._asking = Countdown(len(unknown), self._stream.notify_replay)
            for feed in unknown:
                feed.sync(self._asking)
        return not self._asking.is_over

    def _find_position(self, found: Sequence[_Found]) -> None:
        asked = None if self._requested is None else read_ids(self._requested, len(self._feeds))
        for index, (log, newest, first) in enumerate(found):
            reached = None if asked is None else log.find(asked[index])
            oldest = log.oldest
            if self._requested is None:
                offset = self._offsets[index]
                if offset < 0:  # what came after the client did is not to be missed, though this process knew of none
                    offset, is_known = log.before(self._came - CLOCK_ERROR)
                    offset = min(offset, first)
                    self._lost = self._lost if is_known else ""
            elif reached is not None and reached >= min(oldest - 1, newest):  # the list brings the rest
                offset = reached
            else:
                offset = min(oldest - 1, newest)
                self._lost = self._requested
            self._offsets[index] = offset
            self._set_cursor(index, log, offset)

    def _list_offsets(self) -> tuple[int, ...]:
        return tuple(feed.offset for feed in self._feeds)

    def _behind(self, upto: Sequence[int]) -> list[int]:
        """The channels of whose logs something is to be read."""
        return [index for index in self._members if self._offsets[index] < upto[index]]

    def _go_live(self) -> None:
        for index, member in list(self._members.items()):
            if self._feeds[index].go_live(member, self._offsets[index]):
                del self._members[index]

    def _is_ahead(self) -> bool:
        """Whether the client has seen more of all its channels than this process has been told of; else look again."""
        for index in self._members:
            self._feeds[index].notify_later(self._stream)
        return all(self._offsets[index] > self._feeds[index].offset for index in self._members)

    def _next(self, behind: Sequence[int], upto: tuple[int, ...]) -> Output | Callable[[], Output]:
        """What comes next of these channels' logs; before it, the announcement of what is gone.

        Both at once: a gap that is announced before it is known what follows may grow meanwhile.
        """
        alone = len(self._members) == len(self._feeds)  # no list brings anything between
        places = tuple(zip([feed.name for feed in self._feeds], self._logs, self._offsets, strict=True))
        if alone and self._lost is None and all(log.oldest <= offset + 1 for _, log, offset in places):
            page = self._pages.get(places, upto)
            if page is not None:
                for index in behind:
                    self._offsets[index] = page.offsets[index]
                    self._set_cursor(index, self._logs[index], page.offsets[index])
                return page.taken
        frames, gone = self._read_on(behind, upto)
        lost, self._lost = self._lost, None
        if gone or lost is not None or not alone:  # what lists bring may be written before: ids are found out then
            return partial(self._written, frames, lost, gone)
        page = Page(self._written(frames, None, {}), tuple(self._offsets), upto)
        self._pages.put(places, page)
        return page.taken

    def _read_on(self, behind: Sequence[int], upto: Sequence[int]) -> tuple[list[tuple[int, Frame]], dict[int, int]]:
        """The next events of these channels, in the order in which they were published; the positions move on.

        :return: with the offset before the first of each channel that lacks some before it.
        """
        found: list[Iterator[tuple[int, Frame]]] = []
        gone: dict[int, int] = {}
        ids = self._cursor.size if len(self._feeds) > 1 else 0
        share = BATCH_BYTES // max(1, len(behind))  # of the page: all that it may need of each would be far too much
        for index in behind:
            frames = self._logs[index].after(self._offsets[index], upto[index], share, ids)
            first = frames[0].offset if frames else upto[index] + 1
            if first > self._offsets[index] + 1:
                gone[index] = self._offsets[index] = first - 1
            found.append(self._read_further(index, frames, upto[index], share if len(behind) > 1 else 0, ids))
        taken: list[tuple[int, Frame]] = []
        room = BATCH_BYTES
        for index, frame in merge(*found, key=lambda each: each[1].at):
            room -= ids + len(frame.payload)
            if room < 0 and taken:
                break
            taken.append((index, frame))
            self._offsets[index] = frame.offset
        return taken, gone

    def _read_further(
        self, index: int, frames: list[Frame], upto: int, room: int, extra: int
    ) -> Iterator[tuple[int, Frame]]:
        """These events of a channel and those that follow, read as far as they are asked for.

        Where the next one is gone meanwhile, this is the end: the next page says so.

        :param room: bytes that are read at a time; one event in any case.
        :param extra: bytes that are written with each event.
        """
        while frames:
            for frame in frames:
                yield index, frame
            offset = frame.offset
            frames = self._logs[index].after(offset, upto, room, extra)
            if frames and frames[0].offset > offset + 1:
                return

    def _written(self, frames: Sequence[tuple[int, Frame]], lost: str | None, gone: Mapping[int, int]) -> Output:
        gap = None
        if gone or lost is not None:
            gap = self._ids() if lost is None else lost
        for index, offset in gone.items():
            self._set_cursor(index, self._logs[index], offset)
        written = [] if gap is None else [self._gap(gap)]
        if len(self._feeds) > 1:
            written += [self._cursor.stamp(index, frame).payload for index, frame in frames]
        else:
            written += [frame.payload for _, frame in frames]
            for index, frame in frames[-1:]:
                self._set_cursor(index, self._logs[index], frame.offset)
        return Output(b"".join(written), count_events([frame for _, frame in frames]), gap, is_replay=True)

    def _head(self) -> Output:
        """What a client is to know before anything comes: that it has missed something, and where it is now."""
        lost, self._lost = self._lost, None
        if lost is not None:
            return Output(self._gap(lost), 0, lost)
        return Output(b"" if self._requested is not None else self._position(), 0)

    def _gap(self, requested: str) -> bytes:
        known = list(read_ids(self._ids(), len(self._feeds)) or ())
        oldest = [str(log.position(at.offset + 1)) for log, at in zip(self._logs, known, strict=bool(known))]
        newest = [str(log.position(log.newest)) for log in self._logs]
        gap = {"requested": requested[:MAX_ID_LENGTH], "oldest": ",".join(oldest), "newest": ",".join(newest)}
        return Event(gap, event=GAP).encode() + self._position()

    def _position(self) -> bytes:
        """No event, but clients remember it: so they come back to it although they have had no event since."""
        return b"id: %b\n\n" % self._ids().encode()

    def _ids(self) -> str:
        return b",".join(self._cursor.ids).decode()

    def _set_cursor(self, index: int, log: Log, offset: int) -> None:
        self._cursor.ids[index] = str(log.position(offset)).encode()
