"""What a process that stops gives to another one, and what it has that one do from then on.

Channel after channel is *frozen* and given. What changes a frozen channel is asked of the process that has it now, in
the order in which it is done here. That one tells what channels get from then on, which is kept here as well: streams
that have not moved yet go on, and some come to their end in this process. Where the other one is gone, channels go on
here, in new epochs: it may have published something with the next ids, and a client that has these must get a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ....errors import BrokerUnavailable
from ....runtime.gevent_loop import in_hub
from ....runtime.scheduler import Sleeper
from ....wire.frame import Frame
from ...base import MemberChange, Publication, Published
from ...event_log import Bounds, former_of
from ..record import Record
from ..record_members import RecordMembers
from ..record_state import RecordState
from ..records import Records

#: A process that has taken over answers in this time, or the publisher is told that it may have been in vain.
ANSWER_SECONDS = 2.0


Do: TypeAlias = Literal[
    "publish_many", "start_run", "renew_run", "cancel_run", "renew_members", "tell_members", "members"
]


class Request(NamedTuple):
    """What is to be done: see the method of :class:`.Broker` that has the same name."""

    do: Do
    channel: str = ""
    publications: Sequence[Publication] = ()
    run: str = ""
    seconds: float = 0.0
    bounds: Bounds | None = None
    change: MemberChange | None = None
    until: float = math.inf  #: as that of :meth:`.RecordMembers.change`; it does not travel


#: What comes of it: for events what :meth:`.Broker.publish_many` returns; for a new run the epoch, for a cancelled one
#: the id of the end, "" where there is none; the members.
Answer: TypeAlias = "Sequence[Published | Exception] | Sequence[str] | str | bool"

#: What one hears of it: None where the successor is gone.
Reply: TypeAlias = "Answer | BrokerUnavailable | None"


class Successor(Protocol):
    """The process that has taken over."""

    def ask(self, request: Request, done: Callable[[Reply], object]) -> None:
        """Have it do this, after all that it was asked before. From any thread; never blocks.

        :param done: is called with the reply, in the order in which it was done.
        """


class Handover:
    """The channels that this process has given away. Any thread may call; :meth:`ask` alone waits."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.successor: Successor | None = None  #: has some of the channels already

    def states(self, successor: Successor) -> Iterator[RecordState]:
        """Freeze all channels, and yield what each has. What is done with one from then on, the successor is asked."""
        self.successor = successor
        while found := self._records.not_frozen():
            for record in found:
                if self.successor is not successor:
                    return
                if (state := record.freeze()) is not None:
                    yield state

    def end(self) -> None:
        """Let channels go on here: the successor is gone. Idempotent."""
        if self.successor is not None:
            self.successor = None
            self._records.thaw()

    def ask(self, request: Request) -> Answer | None:
        """Have the successor do this, and wait for its answer; None where there is none any more.

        :raises BrokerUnavailable: where it does not answer in time.
        """
        successor = self.successor
        if successor is None:
            return None
        if in_hub():
            raise BrokerUnavailable("the worker stops, and its event loop cannot wait", may_be_published=False)
        replies: list[Reply] = []
        sleeper = Sleeper()

        def done(reply: Reply) -> None:
            self._note(request, reply)
            replies.append(reply)
            sleeper.wake()

        successor.ask(request, done)
        sleeper.sleep(ANSWER_SECONDS)
        if not replies:
            raise BrokerUnavailable(f"the worker that has taken over has not answered in {ANSWER_SECONDS:g} s")
        if isinstance(replies[0], BrokerUnavailable):
            raise replies[0]
        return replies[0]

    def follow(self, channel: str, frame: Frame, event_id: str) -> None:
        """Keep and deliver an event that a channel has got from the successor, as long as that is there."""
        record = None if self.successor is None else self._records.get(channel)
        if record is not None:
            record.follow(frame, event_id)
            self._records.go_on(record)

    def _note(self, request: Request, reply: Reply) -> None:
        """Note what no event tells."""
        record = self._records.get(request.channel)
        if record is None or not reply or isinstance(reply, BrokerUnavailable):
            return
        if request.change is not None:
            _note_members(record, request.change, request.until)
        if request.do == "start_run" and isinstance(reply, str):
            _note_run(record, reply)


def _note_run(record: Record, epoch: str) -> None:
    with record.log.guard:
        if record.log.is_complete:
            record.log.go_on_in(epoch, former_of(record.log))
        record.log.has_run = True


def _note_members(record: Record, change: MemberChange, until: float) -> None:
    with record.log.guard:
        members = record.members = record.members or RecordMembers()
        members.change(change, until)
