"""A client that may move to another process: its writer stops, and goes on there, or here."""

from __future__ import annotations

from ..errors import CloseReason
from ..runtime.socket_monitor import SOCKET_MONITOR
from ..streams.stream import Stream
from .socket_writer import SocketState, SocketWriter


class MovableWriter(SocketWriter):
    """Writes a stream to the socket of its client, until that moves. All methods only on the thread that writes."""

    __slots__ = ()

    @property
    def descriptor(self) -> int:
        """Of the client's socket."""
        return self._client.fileno()

    @property
    def is_chunked(self) -> bool:
        """Whether the body is sent in chunks."""
        return self._chunked

    @property
    def can_move(self) -> bool:
        """Whether nothing in this process waits for the end of the response."""
        return self._state is SocketState.OPEN and not self._when_over

    def freeze(self, most: int) -> bytes | None:
        """Write nothing more, as the client is to move to another process: see :meth:`take_more`."""
        if self._state is not SocketState.OPEN:
            return None
        SOCKET_MONITOR.forget(self._watch)  # it would go on reporting as long as the other process has the client
        self._state = SocketState.MOVING
        return self.take_more(most)

    def take_more(self, most: int) -> bytes | None:
        """Take all that there is for a client that is to move, and write none of it.

        :param most: a client that is to be written more bytes than this stays here, and is written to again.
        :return: what is taken and not written, as it is on the wire; None where the client stays here.
        """
        stream, ends = self._stream, False
        stream.stall()  # from now on lists keep what they have for it
        stream.take_queued()
        while len(self._rest) <= most and not ends:
            payload = stream.next_output(sleeps=False)
            if not payload:
                ends = payload is None
                break
            self._rest = bytes(self._rest) + self._framed(payload)
        if not ends and len(self._rest) <= most:
            return bytes(self._rest)
        self.thaw()
        if ends:
            self._finish()
        return None

    def thaw(self) -> None:
        """Go on writing: the client stays here."""
        self._open()
        self.wake()

    def let_go(self) -> None:
        """Let go of the client, which another process has; but end the connection if that does not know all of it.

        Then its client comes back.
        """
        if _give_away(self._stream):
            self._state = SocketState.CLOSED
            self._rest = b""
            self._client.close()
        else:
            self.give_up()

    def give_up(self) -> None:
        """End the connection, also for a process that may have the client: it is not known which of the two has it."""
        self._state = SocketState.OPEN
        self._close()

    def go_on(self, rest: bytes, *, has_output: bool = True) -> None:
        """Write to a client that another process has given: first what it had taken for it.

        :param has_output: whether the stream has something for it. Else lists wake the writer, as it is idle.
        """
        self._rest = rest
        if rest:
            self._stream.stall()  # until that is written lists keep what they have for it
        self._open()
        if rest or has_output:
            self.wake()

    def _open(self) -> None:
        self._state = SocketState.OPEN
        self._watch = SOCKET_MONITOR.watch(self._client.fileno(), self)


def _give_away(stream: Stream) -> bool:
    """Note that another process has the client from now on.

    Return False where that does not know of what has happened meanwhile: the stream has ended, or the app has sent it
    an event that is of no channel. What a named list has sent meanwhile is for its other members alone.
    """
    outgoing = stream.outgoing
    with stream.lock:
        is_of_channels = all(member.list.awaits_broker for member in outgoing.members)
        if stream.close_reason is not None or (is_of_channels and outgoing.backlog.has_unnumbered):
            return False
        stream.close_reason, stream.client_sees = CloseReason.SHUTDOWN, "nothing"
    if stream.registry is not None:
        stream.registry.note_moved_out(stream)
    stream.release(ConnectionAbortedError("another process has the client"))
    return True
