"""Whom an emitter knows: the outlet that writes it to its client, and its places in lists."""

from __future__ import annotations

from typing import Any, Protocol

from .frames import Batch, Frame


class Outlet(Protocol):
    """What writes a stream to its client. Neither method may block; both may be called from any thread."""

    def wake(self) -> None:
        """There is something to take. Called once after each time that there was nothing."""

    def cut(self) -> None:
        """Let go of the client at once, though a write to it be under way."""

    def unsent(self) -> int | None:
        """How many bytes that were written the client has not acknowledged yet; None where nobody can tell."""


class DirectOutlet(Outlet, Protocol):
    """An outlet that need not be woken, but can write at once."""

    def write(self, batch: Batch) -> None:
        """Write all of it, or keep what the client does not take now and call :meth:`SseEmitter._keep_back`.

        Only on the main loop (see :func:`.parking.on_main_loop`), where nothing comes between.
        """


class Membership(Protocol):
    """An emitter's place in one list."""

    list: Any
    served: int  #: the number of the last errand of the list that the emitter has been given
    when: float  #: when something of the list was last written at once

    def leave(self) -> None:
        """The emitter has ended."""

    def outstanding(self) -> list[tuple[int, Frame | None]]:
        """What the list was given and may not have delivered yet: a number each, and no frame for the end."""
