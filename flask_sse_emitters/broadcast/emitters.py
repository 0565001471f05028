"""A list of clients, and the way of an event to all of them.

``send`` puts an errand in the list's outbox and returns. One walker at a time carries the outbox to the clients: on one
walk over them all that waits, so that what is sent faster than it can be carried goes in fewer and larger pieces. The
first few clients are served on the sender's own thread, so small lists need nobody else; a helper in the background
serves the rest, in slices, with breaks for others between them.

Each client's place in the list notes the last errand that it was given. So a client that cannot wait for the walker,
because something else is to be done with it, catches up by itself, and the walker passes over it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from ..config import settings as surroundings
from ..config.settings import Settings
from ..runtime.parking import SLICE, begin_anew_in_child, give_way_in_time, guard, on_main_loop, pause
from ..runtime.scheduler import SCHEDULER
from ..streams.emitter import SseEmitter
from ..streams.interfaces import JOINING, Client, DirectOutlet, Register
from ..wire.frame import BATCH, Batch, Frame, make_frame
from .copy_on_write import CopyOnWriteList

#: A sender serves so many clients by itself, and leaves the others to the background.
OWN_SHARE = 100

#: The clock is looked at after so many clients.
STRIDE = 25

#: Where more events than this, or bytes of them, wait in a list, they are sent faster than this process can deliver
#: them, and senders wait: a millisecond for each so many.
CROWD, CROWD_BYTES = 1_000, 16 * 1024 * 1024

_E = TypeVar("_E", bound=SseEmitter)


class SseEmitters:
    """A thread-safe list of emitters, one for each purpose, which send the same events to many clients.

    ::

        emitters = SseEmitters()

        @app.get("/connect")
        def connect():
            return emitters.add(SseEmitter())

        @app.post("/notices")
        def post():
            emitters.send(SseEmitter.event().name("notice").data(request.json))
            return "", 204

    An emitter leaves the list by itself when it ends, in whatever way. Every method may be called from any thread (not
    from a signal handler), and none raises because another thread changed the list. All clients get its events in one
    order. No method waits for a client. Where events are sent faster than this process can deliver them, ``send`` and
    ``complete`` wait a moment: a millisecond for each 1,000 events, or 16 MiB, that are still to be delivered. In a
    greenlet they let others run after each millisecond of sending.

    For those in this list only: it knows nothing of other processes.
    """

    __slots__ = (
        "__weakref__",
        "_apart",
        "_batch",
        "_bytes",
        "_carried",
        "_guard",
        "_last_end",
        "_members",
        "_number",
        "_offset",
        "_outbox",
        "_position",
        "_removals",
        "_to",
        "_walking",
    )

    #: Of its channel, where it is the list of one.
    name: str | None = None

    #: Whether what was put in before may come later: it is the list of a channel, and a broker brings it.
    is_told_later = False

    _members: CopyOnWriteList[Member]
    _outbox: deque[_Errand]

    def __init__(self) -> None:
        self._begin_anew()
        begin_anew_in_child(self)

    def _begin_anew(self) -> None:
        self._guard = guard()
        self._members = CopyOnWriteList()
        self._outbox = _EMPTY
        self._bytes = 0  # that are in the outbox
        self._number = 0  # of the newest errand
        self._last_end = 0  # the number of the last errand that ends streams
        self._offset = 0  # of the newest event that has one: all up to there are with their clients, or on their way
        self._removals = 0  # so many emitters are being taken out
        self._apart = (
            0  # the number of the newest errand that one of them may have been there for, and not caught up with
        )
        self._walking = False  # somebody carries the outbox: whoever else puts something in leaves it to them
        self._batch = _NOTHING  # what is being carried
        self._carried = 0  # the number of the newest errand that has been
        self._to: tuple[Member, ...] = ()  # and to whom
        self._position = 0  # so many of them have been served

    def add(self, emitter: _E) -> _E:
        """Put an emitter in the list, until it ends. Again is nothing.

        :return: the emitter, so that a view may return what this returns.
        """
        if not isinstance(emitter, SseEmitter):
            raise TypeError(f"add() takes an SseEmitter, not {emitter!r}")
        member = Member(emitter, self)
        if self._enlist(member):
            with self._guard:
                member.served = self._number  # every later errand goes to it
        return emitter

    def remove(self, emitter: SseEmitter) -> None:
        """Take an emitter out of the list, and leave its stream open. That it is not there is no error."""
        member = self._member(emitter)
        if member is None:
            return
        with self._guard:
            self._removals += 1
        try:
            emitter._catch_up()
            emitter._part(member)
            self._leave(member)
        finally:
            with self._guard:
                self._removals -= 1
                self._apart = self._number

    def send(self, event: Any) -> int:
        """Send an event, a builder's or plain data to every emitter in the list; encoded once for all of them.

        :return: how many open emitters were in the list.
        :raises InvalidEvent: where it cannot be written; then nobody gets anything.
        """
        reached = self._put([make_frame(event, self._dumps, self._settings().max_event_bytes)])
        self._give_way()
        return reached

    def complete(self) -> None:
        """End every stream of the list, after all that was sent before. The list can be used on.

        Streams of channels end as after :meth:`SseEmitter.complete`, which waits for what was published to them.
        """
        self._put([None])
        self._give_way()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, emitter: object) -> bool:
        return isinstance(emitter, SseEmitter) and self._member(emitter) is not None

    def __iter__(self) -> Iterator[SseEmitter]:
        """Over a snapshot: what other threads do meanwhile does not show."""
        return iter([member.emitter for member in self._members])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def _member(self, emitter: SseEmitter) -> Member | None:
        mine = (each for each in emitter._memberships if each.list is self and isinstance(each, Member))
        return next(mine, None)

    def _enlist(self, member: Member) -> bool:
        """Put it in the list, where it is served nothing yet. False where its emitter is there, or has ended."""
        joins = member.emitter._join(member)
        if joins:
            self._members.add(member)
            with self._guard:
                member.joined = self._number
            if not member.emitter.is_open:  # its end may have come before the list had it
                self._leave(member)
        return joins

    def _leave(self, member: Member) -> None:
        self._members.remove(member)

    def _go_live(self, member: Member, offset: int) -> bool:
        """Serve the member from now on, if the list has just got to this offset, up to which it has everything."""
        with self._guard:
            if offset != self._offset:
                return False
            # An end that it was there for is still to come to it.
            member.served = self._number
            if self._last_end > member.joined:
                ends = (each.number for each in self._outbox if each.frame is None and each.number > member.joined)
                member.served = next(ends, self._number + 1) - 1
            return True

    def _settings(self) -> Settings:
        """Those of the app that is at hand; where there is none, of the app that the emitters have."""
        if surroundings.app_state() is None:
            own = (member.emitter._settings for member in self._members)
            settings = next((each for each in own if each.app_context is not None), None)
            if settings is not None:
                return settings
        return surroundings.current()

    def _dumps(self, data: Any) -> str | bytes:
        settings = self._settings()
        return (surroundings.dumps() if settings.app_context is None else settings.dumps)(data)

    def _put(self, frames: Sequence[Frame | None]) -> int:
        with self._guard:
            members = self._members.snapshot()
            if frames[-1] is not None and frames[-1].offset:
                self._offset = frames[-1].offset
            if not members:
                return 0
            for frame in frames:
                self._append(frame, members)
            mine, self._walking = not self._walking, True
        if mine:
            self._carry_own_share()
        return len(members)

    def _append(self, frame: Frame | None, members: tuple[Member, ...]) -> None:
        if self._outbox is _EMPTY:
            outbox: deque[_Errand] = deque()
            if self._outbox is _EMPTY:
                self._outbox = outbox
        errand = _Errand(self._number + 1, frame, members)
        while errand.number != self._number + 1:  # the garbage collector has run a finalizer, which sent as well
            errand = _Errand(self._number + 1, frame, members)
        self._number = errand.number
        self._outbox.append(errand)
        if frame is None:
            self._last_end = errand.number
        else:
            self._bytes += len(frame.payload)

    def _give_way(self) -> None:
        """Let others run, and wait where events are sent faster than they are delivered."""
        if seconds := self._crowding():
            pause(seconds)
        else:
            give_way_in_time()

    def _crowding(self) -> float:
        """Seconds that a sender should wait, so that the delivery gets on: mostly 0, and more the more there waits."""
        crowd = max(len(self._outbox) / CROWD, self._bytes / CROWD_BYTES)
        return crowd / 1000 if crowd > 1 else 0.0

    def _carry_own_share(self) -> None:
        more = True
        try:
            more = not on_main_loop() or self._walk(OWN_SHARE)
        finally:  # also after an interrupt of the sender's thread
            if more:
                SCHEDULER.call_soon(self._carry_slice)

    def _carry_slice(self) -> bool:
        try:
            return self._walk()
        except BaseException:
            SCHEDULER.call_soon(self._carry_slice)  # the others shall not be forgotten
            raise

    def _walk(self, most: float = float("inf")) -> bool:
        """Carry the outbox to so many clients at most, for a slice of time. Only on the main loop.

        :return: whether there is more to carry.
        """
        slice_ends = monotonic() + SLICE
        while most > 0:
            if self._position >= len(self._to) and not self._begin_walk():
                return False
            block = self._to[self._position : self._position + STRIDE]
            if self._batch.frames:
                _deliver(self._batch, block)
            else:
                for member in block:
                    member.emitter._complete_for(self._batch, member)
            self._position += len(block)
            most -= len(block)
            if monotonic() > slice_ends:
                break
        return self._position < len(self._to) or self._begin_walk()

    def _begin_walk(self) -> bool:
        """Take up all that goes on one walk next. False where there is nothing, and nobody walks any more."""
        with self._guard:
            self._carried = max(self._carried, self._batch.last)
            while self._outbox and self._outbox[0].number <= self._carried:
                carried = self._outbox.popleft().frame
                self._bytes -= 0 if carried is None else len(carried.payload)
            are_same = self._removals > 0 or self._carried < self._apart
            errands = _first_batch(self._outbox, are_same=are_same)
            self._batch, self._to, self._position = _NOTHING, (), 0
            self._walking = bool(errands)
            if not errands:
                self._outbox = _EMPTY
                return False  # from here on somebody else may walk
        frames = [errand.frame for errand in errands if errand.frame is not None]
        self._batch = Batch(frames, errands[-1].number, SCHEDULER.clock())
        self._to = errands[-1].members
        return True


#: An outbox that has nothing in it, and takes nothing. A list has one of its own only while there is something to
#: carry: an empty deque is large beside a list of one client.
_EMPTY: deque[Any] = deque(maxlen=0)

#: What is carried when there is nothing to carry.
_NOTHING = Batch((), 0, 0.0)


class _Errand(NamedTuple):
    """What is to be done for those who were in the list when it was asked for."""

    number: int
    frame: Frame | None  #: None means that their streams are to end
    members: tuple[Member, ...]


class Member:
    """One emitter's place in one list."""

    __slots__ = ("client", "emitter", "guard", "joined", "list", "served", "when")

    is_plain = True

    def __init__(self, emitter: SseEmitter, list: SseEmitters) -> None:
        self.emitter = emitter
        self.guard = emitter._guard
        self.list = list
        self.served = JOINING
        self.joined = 0  # the number of the last errand before it was in the list
        self.client: Client | None = None
        self.when = 0.0

    def stamped(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        return frames

    def leave(self) -> None:
        self.list._leave(self)

    def outstanding(self) -> list[tuple[int, Frame | None]]:
        if not self.list._outbox:
            return []
        with self.list._guard:
            outbox = self.list._outbox
            known = self.served + 1 - outbox[0].number if outbox else 0  # their numbers follow each other
            begin = int(max(0, min(known, len(outbox))))
            return [(errand.number, errand.frame) for errand in islice(outbox, begin, None)]


def _deliver(batch: Batch, members: tuple[Member, ...]) -> None:
    """Give each what it lacks of the batch: to a client that waits for it at once, as one write of ready-made bytes."""
    data, size = batch.chunk, len(batch.chunk)
    written, register = 0, None  # who counts what was written: mostly one for all of them
    for member in members:
        client = None
        if member.client is not None and batch.is_small:
            with member.guard:
                if member.served < batch.first and (client := member.client) is not None:
                    member.served = batch.last
                    member.when = batch.when
        if client is None:
            member.emitter._deliver(batch, member)
            continue
        try:
            sent = client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            _outlet(member).lose(error)
            continue
        if sent < size:
            _outlet(member).keep(data, sent)
        if register is not member.emitter._register:
            _count(batch, written, register)
            written, register = 0, member.emitter._register
        written += 1
    _count(batch, written, register)


def _count(batch: Batch, clients: int, register: Register | None) -> None:
    if register is not None:
        register.traffic.count(clients * batch.events, clients * len(batch.payload))


def _outlet(member: Member) -> DirectOutlet:
    outlet = member.emitter._direct
    assert outlet is not None  # only it gives up a client, and on this very thread
    return outlet


def _first_batch(outbox: deque[_Errand], *, are_same: bool) -> list[_Errand]:
    """The first errands that one walk can carry to the clients of the last of them: events, or an end.

    Who came after the first of them counts as served up to where it came, and who has left caught up as it did. Were it
    only what goes to the very same clients, a list whose clients come and go all the time would never gather anything.

    :param are_same: only what goes to the very same clients, as somebody who is taken out may lack some of it.
    """
    first = next(iter(outbox), None)
    if first is None or first.frame is None:
        return [] if first is None else [first]
    room = BATCH
    taken: list[_Errand] = []
    for errand in outbox:
        if errand.frame is None or (are_same and errand.members is not first.members):
            break
        room -= len(errand.frame.payload)
        if room < 0 and taken:
            break
        taken.append(errand)
    return taken
