"""Whom an emitter knows: the outlet that writes it to its client, its places in lists, and where it catches up from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..wire.frame import Frame
from .traffic import Traffic

#: How far a member has been served that gets everything from its source for now, one that is not in the list yet, and
#: one whose list has ended: beyond all errands.
CATCHING_UP, JOINING, ENDED = 2.0**61, 2.0**62, math.inf


class Outlet(Protocol):
    """What writes a stream to its client. No method may block; all but one may be called from any thread."""

    declined: str | None  #: why it is not one that needs neither thread nor greenlet

    def wake(self) -> None:
        """There is something to take. Called once after each time that there was nothing."""

    def give(self, payload: bytes) -> None:
        """Wake up, and write this first. Only on the main loop (see :func:`.runtime.parking.on_main_loop`)."""

    def cut(self) -> None:
        """Let go of the client at once, though a write to it be under way."""

    def unsent(self) -> int | None:
        """How many bytes that were written the client has not acknowledged yet; None where nobody can tell."""

    def acknowledged(self) -> int | None:
        """How many it has acknowledged, of all; None where nobody can tell."""


class Client(Protocol):
    """A socket that never blocks."""

    def send(self, data: bytes, /) -> int:
        """Write some of it: how much that was. BlockingIOError where it is full, other OSErrors where it is gone."""


class Taken(NamedTuple):
    """What a client is given."""

    payload: bytes
    events: int
    gap: str | None = None  #: the id that it came with, where this tells it of a gap
    is_replay: bool = False  #: the events come from what is kept of channels


class Source(Protocol):
    """Where a stream takes what its client has missed, when there is nothing else to write."""

    stirred: bool  #: guarded by the emitter: there may be more since it was last asked

    def prepare(self) -> bool | None:
        """Whether there is something to take now; None once lists have the client, and nothing more will come."""

    def end(self, *, is_told: bool) -> None:
        """Give no more than what this process has been told until now: the stream has ended. Under the emitter's guard.

        :param is_told: that is all that was published before the end.
        """

    def take(self) -> Taken:
        """What has been prepared, and is written next. Under the emitter's guard."""


class Register(Protocol):
    """Where open streams are counted."""

    traffic: Traffic  #: what they have been given

    def left(self, emitter: Any) -> None:
        """This one is over, and its client let go. May be said again."""

    def told_of_gap(self, emitter: Any, requested: str) -> None:
        """This one's client, which came with that id, is told that it has missed something for good."""


class DirectOutlet(Outlet, Protocol):
    """An outlet whose client whoever delivers may write to, while there is nothing else to write.

    Only on the main loop (see :func:`.runtime.parking.on_main_loop`), where nothing comes between.
    """

    @property
    def client(self) -> Client | None:
        """What takes chunks; None where it does not."""

    def beat(self, payload: bytes) -> None:
        """Write this, which nobody misses, while there is nothing else to write."""

    def keep(self, data: bytes, sent: int) -> None:
        """The client has taken only so much of this: write the rest when it can take more."""

    def lose(self, error: OSError) -> None:
        """The client cannot be written to any more."""


class Membership(Protocol):
    """An emitter's place in one list. The emitter's guard guards it.

    It holds all that delivering to a client needs where that is quick, so that little memory is touched for each.
    """

    list: Any
    served: float  #: the number of the last errand of the list that the emitter has been given
    client: Client | None  #: may be written to at once
    when: float  #: when that was last done
    is_plain: bool  #: what is written to the client is what is written to all

    def stamped(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """The frames as they are written to this client, in the order in which they are."""

    def leave(self) -> None:
        """The emitter has ended."""

    def outstanding(self) -> list[tuple[int, Frame | None]]:
        """What the list was given and may not have delivered yet: a number each, and no frame for the end."""
