"""What a client has missed: read from the logs of its channels as it can take it, until lists have it.

Nothing is queued meanwhile. The client has a place in each channel's list from the beginning, and the list passes over
it; once everything that the list has ever been given has been read from the log, the place goes live, which the list
confirms under its own guard. So there is no seam, and a backlog of any length costs a client one position a channel.

What must be announced is a hole: a position that is not of this log, or one after which something is gone. It may also
open while a slow client reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import merge
from typing import NamedTuple

from .emitter import SseEmitter
from .emitters import Member, SseEmitters
from .event import Event
from .feed import Feed
from .frames import BATCH, Frame
from .history import LONGEST_ID, Log, Position, read_ids
from .neighbours import CATCHING_UP
from .parking import guard
from .scheduler import SCHEDULER, Scheduler

#: A page that nobody has asked for in so many seconds is let go.
PAGE_SECONDS = 5.0

#: So many pages are kept at most.
PAGES_KEPT = 64


class Cursor:
    """How far a stream of several channels is, as the ids of its events say. Its emitter's guard guards it."""

    __slots__ = ("ids",)

    def __init__(self, count: int) -> None:
        self.ids = [b""] * count

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

    is_plain = False

    def __init__(self, emitter: SseEmitter, list: SseEmitters, cursor: Cursor, index: int) -> None:
        super().__init__(emitter, list)
        self._cursor = cursor
        self._index = index

    def stamped(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        return [self._cursor.stamp(self._index, frame) for frame in frames]


class Page(NamedTuple):
    """Some of what is missed, as all who come from the same position get it."""

    payload: bytes
    offsets: tuple[int, ...]  #: where it ends
    upto: tuple[int, ...]  #: where it had to end


class Pages:
    """Pages by where they begin, for as long as they are asked for. Any thread may call, and none waits."""

    def __init__(self, scheduler: Scheduler = SCHEDULER) -> None:
        self._guard = guard()
        self._scheduler = scheduler
        self._pages: dict[object, tuple[Page, float]] = {}  # by when they were last asked for
        self.built = 0  #: pages, since the beginning

    def __len__(self) -> int:
        return len(self._pages)

    def get(self, key: object, upto: tuple[int, ...]) -> Page | None:
        """The page that begins here, if it holds all up to there, or as much as a page can."""
        with self._guard:
            page, _ = self._pages.get(key, (None, 0.0))
            if page is None or (page.upto != upto and len(page.payload) < BATCH // 2):
                return None
            del self._pages[key]
            self._pages[key] = page, self._scheduler.clock()
            return page

    def put(self, key: object, page: Page) -> None:
        now = self._scheduler.clock()
        with self._guard:
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
        with self._guard:
            while self._pages:
                key, (_, asked) = next(iter(self._pages.items()))
                if asked + PAGE_SECONDS > now:
                    break
                del self._pages[key]
            again = bool(self._pages)
        if again:
            self._scheduler.call_at(now + PAGE_SECONDS, self._let_go)


class Replay:
    """What one client has missed: the source of its emitter.

    :param feeds: of the channels of its stream, each once.
    :param requested: the ``Last-Event-ID`` of the client; None where it has none, and begins with what comes.
    """

    __slots__ = (
        "_cursor",
        "_emitter",
        "_feeds",
        "_logs",
        "_members",
        "_offsets",
        "_pages",
        "_prepared",
        "_requested",
        "_upto",
        "stirred",
    )

    def __init__(self, emitter: SseEmitter, feeds: Sequence[Feed], requested: str | None, pages: Pages) -> None:
        self.stirred = False
        self._emitter = emitter
        self._feeds = feeds
        self._pages = pages
        self._requested = requested
        self._cursor = Cursor(len(feeds)) if len(feeds) > 1 else None
        self._members = {index: self._member(index) for index in range(len(feeds))}  # those that are not live yet
        self._logs: list[Log] = []  # empty until all channels have begun
        self._offsets: list[int] = []
        self._upto: tuple[int, ...] | None = None  # nothing beyond, once the stream has ended
        self._prepared: bytes | Callable[[], bytes] = b""

    def begin(self) -> None:
        """Take the stream's places in its channels' lists, and have its emitter read from here what they do not bring.

        The emitter must be new: nothing has been sent to it.
        """
        for index, member in self._members.items():
            self._feeds[index].enlist(member)
        if self._is_started():  # what lists bring from now on comes after the position
            self._emitter._hand(self.take())
            self._go_live()
        if self._members:
            self._emitter._follow(self)

    def end(self) -> None:
        self._upto = tuple(log.newest for log in self._logs)

    def prepare(self) -> bool | None:
        if not self._logs and (self._upto is not None or not self._is_started()):
            return None if self._upto is not None else False
        while not self._prepared:
            ended = self._upto is not None
            if not ended:
                self._go_live()
            upto = self._upto or tuple(feed.offset for feed in self._feeds)
            behind = [index for index in self._members if self._offsets[index] < upto[index]]
            if behind:
                self._prepared = self._announced(behind, upto) or self._missed(behind, upto)
            elif ended or not self._members:
                return None
            elif self._is_ahead():
                return False
        return True

    def take(self) -> bytes:
        prepared, self._prepared = self._prepared, b""
        return prepared if isinstance(prepared, bytes) else prepared()

    def _member(self, index: int) -> Member:
        feed, cursor = self._feeds[index], self._cursor
        member = Member(self._emitter, feed) if cursor is None else Place(self._emitter, feed, cursor, index)
        member.served = CATCHING_UP
        return member

    def _is_started(self) -> bool:
        """Whether all channels have begun to be told, so that the stream has its position; else it is stirred later."""
        for feed in self._feeds:
            if feed.log is None:
                feed.wake_later(self._emitter)
        logs = [feed.log for feed in self._feeds]
        if None in logs:
            return False
        self._logs = [log for log in logs if log is not None]
        self._prepared = self._find_position()
        return True

    def _find_position(self) -> bytes:
        """Where to begin, and what the client is to know of that: what it may have missed, and where it is now."""
        asked = None if self._requested is None else read_ids(self._requested, len(self._feeds))
        hole = False
        for index, (feed, log) in enumerate(zip(self._feeds, self._logs, strict=True)):
            position = None if asked is None else asked[index]
            oldest = log.oldest
            offset = min(oldest - 1, feed.offset)
            if self._requested is None:
                offset = feed.offset
            elif position is not None and position.epoch == log.epoch and oldest - 1 <= position.offset <= log.newest:
                offset = position.offset
            else:
                hole = True
            self._offsets.append(offset)
            self._set_cursor(index)
        if hole:
            return self._gap(str(self._requested)) + self._position()
        return self._position() if self._requested is None else b""

    def _go_live(self) -> None:
        for index, member in list(self._members.items()):
            if self._feeds[index].go_live(member, self._offsets[index]):
                del self._members[index]

    def _is_ahead(self) -> bool:
        """Whether the client has seen more of all its channels than this process has been told of; else look again."""
        for index in self._members:
            self._feeds[index].wake_later(self._emitter)
        return all(self._offsets[index] > self._feeds[index].offset for index in self._members)

    def _announced(self, behind: Sequence[int], upto: Sequence[int]) -> Callable[[], bytes] | None:
        """The announcement of what is gone since the client was here, and is passed over; None where nothing is."""
        to = {
            index: min(oldest - 1, upto[index])
            for index in behind
            if (oldest := self._logs[index].oldest) > self._offsets[index] + 1
        }

        def announce() -> bytes:
            requested = self._ids()
            for index, offset in to.items():
                self._offsets[index] = offset
                self._set_cursor(index)
            return self._gap(requested) + self._position()

        return announce if to else None

    def _missed(self, behind: Sequence[int], upto: tuple[int, ...]) -> bytes | Callable[[], bytes]:
        """Some of what comes next; nothing where it has just gone."""
        if self._cursor is not None and len(self._members) < len(self._feeds):
            # Lists serve the others, and what they bring may be written before this: so the ids are found out then.
            frames = self._read_on(behind, upto)
            return partial(self._written, frames) if frames else b""
        places = zip(self._feeds, self._logs, self._offsets, strict=True)
        key = tuple((feed.name, log.epoch, offset) for feed, log, offset in places)
        page = self._pages.get(key, upto)
        if page is None:
            frames = self._read_on(behind, upto)
            if not frames:
                return b""
            page = Page(self._written(frames), tuple(self._offsets), upto)
            self._pages.put(key, page)
        for index in behind:
            self._offsets[index] = page.offsets[index]
            self._set_cursor(index)
        return page.payload

    def _read_on(self, behind: Sequence[int], upto: Sequence[int]) -> list[tuple[int, Frame]]:
        """The next events of these channels, in the order in which they were published. Their positions move on."""
        found: list[list[tuple[int, Frame]]] = []
        for index in behind:
            frames = self._logs[index].after(self._offsets[index], upto[index])
            if frames and frames[0].offset == self._offsets[index] + 1:  # else a hole has just opened
                found.append([(index, frame) for frame in frames])
        taken: list[tuple[int, Frame]] = []
        room = BATCH
        for index, frame in merge(*found, key=lambda each: each[1].at):
            room -= len(frame.payload)
            if room < 0 and taken:
                break
            taken.append((index, frame))
            self._offsets[index] = frame.offset
        return taken

    def _written(self, frames: Sequence[tuple[int, Frame]]) -> bytes:
        cursor = self._cursor
        return b"".join([(cursor.stamp(index, each) if cursor else each).payload for index, each in frames])

    def _gap(self, requested: str) -> bytes:
        lost = {
            "requested": requested[:LONGEST_ID],
            "oldest": self._joined([offset + 1 for offset in self._offsets]),
            "newest": self._joined([log.newest for log in self._logs]),
        }
        return Event(lost, event="gap").encode()

    def _position(self) -> bytes:
        """No event, but clients remember it: so they come back to it although they have had no event since."""
        return b"id: %b\n\n" % self._ids().encode()

    def _ids(self) -> str:
        return self._joined(self._offsets) if self._cursor is None else b",".join(self._cursor.ids).decode()

    def _joined(self, offsets: Sequence[int]) -> str:
        return ",".join(str(Position(log.epoch, offset)) for log, offset in zip(self._logs, offsets, strict=True))

    def _set_cursor(self, index: int) -> None:
        if self._cursor is not None:
            self._cursor.ids[index] = str(Position(self._logs[index].epoch, self._offsets[index])).encode()
