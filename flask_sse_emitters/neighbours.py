"""Whom an emitter knows: the outlet that writes it to its client, and its places in lists."""

from __future__ import annotations

import math
from typing import Any, Protocol

from .frames import Frame

#: How far a member has been served that is not in the list yet, and one whose list has ended: beyond all errands.
JOINING, ENDED = 2.0**62, math.inf


class Outlet(Protocol):
    """What writes a stream to its client. No method may block; all but one may be called from any thread."""

    def wake(self) -> None:
        """There is something to take. Called once after each time that there was nothing."""

    def give(self, payload: bytes) -> None:
        """Wake up, and write this first. Only on the main loop (see :func:`.parking.on_main_loop`)."""

    def cut(self) -> None:
        """Let go of the client at once, though a write to it be under way."""

    def unsent(self) -> int | None:
        """How many bytes that were written the client has not acknowledged yet; None where nobody can tell."""


class Client(Protocol):
    """A socket that never blocks."""

    def send(self, data: bytes, /) -> int:
        """Write some of it: how much that was. BlockingIOError where it is full, other OSErrors where it is gone."""


class DirectOutlet(Outlet, Protocol):
    """An outlet whose client whoever delivers may write to, while there is nothing else to write.

    Only on the main loop (see :func:`.parking.on_main_loop`), where nothing comes between.
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

    def leave(self) -> None:
        """The emitter has ended."""

    def outstanding(self) -> list[tuple[int, Frame | None]]:
        """What the list was given and may not have delivered yet: a number each, and no frame for the end."""
