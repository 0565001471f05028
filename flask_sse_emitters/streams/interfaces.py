"""How a stream sees its neighbours: its writer, its places in lists, its replay, and the registry of its app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..wire.frame import Frame

if TYPE_CHECKING:
    from .registry.thread_use import ThreadUse
    from .registry.traffic import Traffic


class Output(NamedTuple):
    """What a writer is given to write."""

    payload: bytes
    events: int
    gap: str | None = None  #: the id that the client came with, where this tells it of a gap
    is_replay: bool = False  #: the events come from what is kept of channels


class Writer(Protocol):
    """Writes a stream to its client. No method may block; all but :meth:`wake_with` may be called from any thread."""

    declined: str | None  #: why the client was not handed off; None where it was, or that is not decided

    def wake(self) -> None:
        """Ask the stream for its next output. Called once after each time that there was nothing."""

    def wake_with(self, payload: bytes) -> None:
        """Write this, then ask for the next output. Only on the main loop (see :func:`.on_main_loop`)."""

    def cut(self) -> None:
        """Let go of the client at once, even amid a write to it."""

    def unsent(self) -> int | None:
        """Return how many bytes that were written the client has not acknowledged; None where that is unknown."""

    def acknowledged(self) -> int | None:
        """Return how many bytes the client has acknowledged, of all; None where that is unknown."""


class Client(Protocol):
    """A socket that never blocks."""

    def send(self, data: bytes, /) -> int:
        """Write some of the data, and return how much. BlockingIOError: it is full; other OSErrors: it is gone."""


class DirectWriter(Writer, Protocol):
    """A writer whose client lists may write to themselves, while nothing else is to be written.

    Only on the thread that writes (see :meth:`.Scheduler.is_writer`), where nothing comes between.
    """

    @property
    def client(self) -> Client | None:
        """The socket, which takes chunks; None where it does not."""

    def beat(self, payload: bytes) -> None:
        """Write a heartbeat, while nothing else is to be written."""

    def keep(self, data: bytes, sent: int) -> None:
        """Write the rest of the data, beyond what was sent, once the client takes more."""

    def lose(self, error: OSError) -> None:
        """End the stream: the client cannot be written to any more."""


class Producer(Protocol):
    """Pulls items into the stream, on a thread of its own."""

    def start(self) -> None:
        """Begin to pull; where the stream has ended, only to let go of the items. Idempotent; never blocks."""


class ReplaySource(Protocol):
    """Reads what a client has missed, whenever there is nothing else to write."""

    has_more: bool  #: guarded by the stream's lock: there may be more since the source was last asked

    def prepare(self) -> bool | None:
        """Return whether there is something to take now; None once lists bring everything, and it is not needed."""

    def take(self) -> Output:
        """Return what was prepared. Under the stream's lock."""

    def end(self, *, is_synced: bool) -> None:
        """Give no more than what this process has received until now: the stream has ended. Under the stream's lock.

        :param is_synced: that is all that was published before the end.
        """


class MemberList(Protocol):
    """A list that a stream is a member of."""

    @property
    def name(self) -> str | None:
        """The name of its channel, where it has one."""

    @property
    def awaits_broker(self) -> bool:
        """Whether what was published before may still be on its way from the broker."""

    def leave(self, member: Any) -> None:
        """Take the member out: its stream has ended."""

    def queued_after(self, number: int) -> Sequence[tuple[int, Frame | None]]:
        """Return what was sent and not delivered after this number: with its numbers, and None for the end."""

    def sync(self, done: Callable[[], object]) -> None:
        """Call ``done`` once all that was published before has arrived here. From any thread; never blocks."""


class Member(Protocol):
    """A stream's place in one list."""

    @property
    def list(self) -> MemberList:
        """The list that it is in."""

    client: Client | None  #: the list may write to it at once
    written_at: float  #: when the list last did

    @property
    def has_ended(self) -> bool:
        """Whether the list has ended the stream."""

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended for good, as its channels have."""

    @property
    def has_own_ids(self) -> bool:
        """Whether its client gets other bytes than all others."""

    @property
    def queued_events(self) -> int:
        """How many events the list has been sent, and has not delivered to it."""

    @property
    def given_events(self) -> int:
        """How many events the list has given it."""

    def take_queued(self) -> None:
        """Give the stream now what the list has been sent, and not delivered yet."""


class Registry(Protocol):
    """Counts the open streams of an app."""

    traffic: Traffic  #: what they have been given
    thread_use: ThreadUse  #: which of them hold a thread of the server

    def leave(self, stream: Any) -> None:
        """Count the stream as over, and its client as gone. Idempotent."""

    def note_moved_out(self, stream: Any) -> None:
        """Count the stream as given to another process."""

    def note_gap(self, stream: Any, requested: str) -> None:
        """Count that the client, which came with this id, is told that it has missed something for good."""
