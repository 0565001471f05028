"""What one client is still to be written, and what its writer is doing. Without locks, time and I/O."""

from __future__ import annotations

from enum import Enum

from ..wire.frame import BATCH_BYTES
from .ends import Pending
from .interfaces import DirectWriter, Member, Output, ReplaySource, Writer
from .pending.backlog import Backlog


class WriterState(Enum):
    """What a writer is doing."""

    IDLE = "idle"  #: it has taken all there was, and sleeps until it is woken
    AWAKE = "awake"  #: it is going to ask for the next output; so is one that has not begun
    WRITING = "writing"  #: it has taken an output, and not asked for the next one


IDLE, AWAKE, WRITING = WriterState  # as plain names, which Python finds in half the time

#: What a writer is given where there is nothing.
NOTHING = Output(b"", 0)


class Outgoing:
    """The queue of one stream: first the backlog, then what replay reads, at the end the closing.

    While the writer is idle and can be written to directly, the lists of the stream have its client. Not thread-safe:
    the stream's lock guards all of it.
    """

    __slots__ = (
        *("_gap", "_given", "_lists_may_write", "backlog", "closing", "direct", "is_needless", "members", "replay"),
        *("state", "writer"),
    )

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.closing = b""  #: the last thing that is written
        self.is_needless = False  #: the client has all that there will ever be, and is told that in place of a stream
        self.members: tuple[Member, ...] = ()  #: the stream's places in lists
        self.replay: ReplaySource | None = None
        self.writer: Writer | None = None
        self.direct: DirectWriter | None = None  #: the writer, where lists may write to its client
        self.state: WriterState = AWAKE
        self._given = 0  # so many events have come otherwise than from the lists of which it is a member
        self._gap: str | None = None  # the id that came with what was prepended, where it tells of a gap
        self._lists_may_write = False

    @property
    def given_events(self) -> int:
        """How many events it was given, which were written, dropped, or are still to be written."""
        return self._given + sum(member.given_events for member in self.members)

    @property
    def tells_gap(self) -> bool:
        """Whether what was prepended tells the client of a gap, and has not been taken."""
        return self._gap is not None

    def begin(self, writer: Writer) -> None:
        """Have this writer take what there is.

        :raises RuntimeError: where there is a writer already.
        """
        if self.writer is not None:
            raise RuntimeError("illegal step: this stream has a writer, which begins once")
        self.writer = writer

    def take_over(self, writer: DirectWriter, max_pending_bytes: int) -> None:
        """Have this writer go on in place of the first one.

        :raises RuntimeError: where there is none, or it has been taken over from.
        """
        if self.writer is None or self.direct is not None:
            raise RuntimeError("illegal step: a client is taken over once, from the writer that has begun")
        self.state = AWAKE
        self.writer = self.direct = writer
        self._lists_may_write = max_pending_bytes >= BATCH_BYTES

    def add_member(self, member: Member) -> None:
        """Note one more place in a list, which may write to the client if all others may now."""
        self.members += (member,)
        if self.state is IDLE:
            self._give_client_to_lists()

    def keep_members(self, staying: tuple[Member, ...]) -> tuple[Member, ...]:
        """Forget all places in lists but these, and return those that were forgotten."""
        left = tuple(each for each in self.members if each not in staying)
        for member in left:
            member.client = None
            self._given += member.given_events
        self.members = staying
        return left

    def note_given(self) -> None:
        """Count an event that comes from no list."""
        self._given += 1

    def wake(self, state: WriterState = AWAKE) -> Writer | None:
        """Return the writer where it is idle, and has to be woken once the lock is left; else None.

        :param state: what it does then: it is awake, or writing, where it is woken with something to write.
        """
        if self.state is not IDLE:
            return None
        self.state = state
        if self.direct is not None:
            self._take_client_from_lists()
        return self.writer

    def rest(self, *, sleeps: bool) -> Output:
        """Note that there is nothing to take, and return that.

        :param sleeps: the writer waits to be woken. Else it asks again by itself, and counts as writing until then.
        """
        if not sleeps:
            self.state = WRITING
        elif self.writer is None:
            self.state = AWAKE
        else:
            self.state = IDLE
            if self.direct is not None:
                self._give_client_to_lists()
        return NOTHING

    def stall(self) -> None:
        """Note that the writer is still at what it was given, though it was idle."""
        self.state = WRITING
        self._take_client_from_lists()

    def prepend(self, payload: bytes, gap: str | None) -> None:
        """Have this written before all that was sent; nothing has been taken yet.

        :param gap: the id that the client came with, where this tells it of a gap.
        """
        self.backlog.prepend(payload)
        self._gap = gap

    def take_pending(self) -> Output:
        """Take what is pending: there is something."""
        gap, self._gap = self._gap, None
        payload, events = self.backlog.take()
        self.state = WRITING
        return Output(payload, events, gap)

    def take_replayed(self, source: ReplaySource) -> Output:
        """Take what the source has prepared."""
        self.state = WRITING
        output = source.take()
        self._given += output.events
        return output

    def take_closing(self) -> Output | None:
        """Take the last thing that is written; None where that was taken, or there is none."""
        closing, self.closing = self.closing, b""
        self.state = WRITING if closing else AWAKE
        return Output(closing, 0) if closing else None

    def drop(self, pending: Pending) -> None:
        """Drop what has not been taken, as an end says."""
        if pending == "drop":
            if self.backlog.is_amid:  # the closing would make an event of the part that was written
                self.closing = b""
            self.backlog.clear()
            self.replay = None
        elif pending == "keep_first":
            self.backlog.keep_first()
            self.replay = None

    def release(self) -> None:
        """Let go of the writer and of all that was to be written."""
        self.writer = self.direct = self.replay = None
        self.backlog.clear()

    def _give_client_to_lists(self) -> None:
        client = self.direct.client if self.direct is not None and self._lists_may_write else None
        for member in self.members:
            member.client = None if member.has_own_ids else client

    def _take_client_from_lists(self) -> None:
        for member in self.members:
            member.client = None
