"""The connection of two workers, by which messages and descriptors pass. Nothing here waits, and nothing is patched.

Each side sees the other's user, which the kernel notes as they connect, and has nothing to do with another one.
"""

from __future__ import annotations

import _socket
import array
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from ...runtime.fork import reset_after_fork
from ..protocol.messages import MAX_STREAMS, Message, Offer, decode
from .folder import Folder

#: A message has so many bytes at most: half of what a socket takes by default, so that one always fits.
MAX_MESSAGE_BYTES = 100_000

#: So many workers may wait for one to accept them: more than ever stop at once.
_BACKLOG = 64

_CREDENTIALS = struct.Struct("3i")  # the peer's process, user and group
_DESCRIPTOR = array.array("i").itemsize


class LinkLost(ConnectionError):
    """The other side is gone, or has not kept to the protocol: nothing more is to be had from it."""


class Link:
    """A connection to another worker. Not thread-safe.

    :param connection: which the link closes.
    :param user: whom the other side must belong to; None for the user of this process.
    :raises LinkLost: where it belongs to another.
    """

    def __init__(self, connection: _socket.socket, user: int | None = None) -> None:
        self._connection = connection
        connection.setblocking(False)
        try:
            self.peer = _check_peer(connection, os.geteuid() if user is None else user)  #: its process
        except OSError:
            connection.close()
            raise
        reset_after_fork(self.close)

    def fileno(self) -> int:
        """Return its descriptor, which becomes readable; -1 once it is closed."""
        return self._connection.fileno()

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Send a message and descriptors, which stay open here as well. Return False where there is no room now.

        :raises LinkLost: where that cannot be.
        """
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._connection.sendmsg([packet], passed, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkLost(str(error)) from error
        return True

    def receive(self) -> tuple[Message, list[int]] | None:
        """Receive a message, and its descriptors, which the caller closes; None where there is none now.

        An offer that comes without descriptors is one of which some could not be opened here.

        :raises LinkLost: where the other side has closed, or what came is no message. No descriptor is left open then.
        """
        room = socket.CMSG_SPACE(MAX_STREAMS * _DESCRIPTOR)
        try:
            packet, ancillary, flags, _ = self._connection.recvmsg(
                MAX_MESSAGE_BYTES, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkLost(str(error)) from error
        descriptors = _passed(ancillary)
        is_short = bool(flags & socket.MSG_CTRUNC)
        try:
            if not packet:
                raise LinkLost("the other worker has closed the connection")
            if flags & socket.MSG_TRUNC:
                raise LinkLost(f"a message has more than {MAX_MESSAGE_BYTES} bytes")
            message = _decode(packet)
            wanted = len(message.streams) if isinstance(message, Offer) else 0
            if not is_short and len(descriptors) != wanted:
                raise LinkLost(f"a message came with {len(descriptors)} descriptors, not {wanted}")
        except LinkLost:
            close_all(descriptors)
            raise
        if is_short:
            close_all(descriptors)
            descriptors = []
        return message, descriptors

    def close(self) -> None:
        """Close it. Idempotent."""
        self._connection.close()


class Listener:
    """The socket by which other workers find this one. Not thread-safe.

    :param user: see :class:`Link`.
    :raises OSError: where there cannot be one.
    """

    def __init__(self, folder: Folder, user: int | None = None) -> None:
        self._folder = folder
        self._user = user
        self._name = str(os.getpid())
        hidden = f".{self._name}"
        folder.remove(hidden)  # of a process that was killed, and had the same id
        self._socket = _new_socket()
        try:
            self._socket.bind(folder.address(hidden))
            self._socket.listen(_BACKLOG)
            folder.rename(hidden, self._name)  # only now: one that refuses is taken for a dead one, and removed
        except OSError:
            self._socket.close()
            raise
        reset_after_fork(self._release)

    def fileno(self) -> int:
        """Return its descriptor, which becomes readable; -1 once it is closed."""
        return self._socket.fileno()

    def accept(self) -> Link | None:
        """Return the next worker that has connected; None where there is none now.

        :raises LinkLost: where it is none of this user's.
        :raises OSError: where no more files can be opened.
        """
        try:
            descriptor, _ = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - the native class has no other
        except BlockingIOError:
            return None
        return Link(_socket.socket(fileno=descriptor), self._user)

    def leave(self) -> None:
        """Be found no more, and have all see that this worker stops. Idempotent."""
        if self._socket.fileno() >= 0:
            self._release()
            with suppress(OSError):  # somebody has removed it
                self._folder.rename(self._name, leaving(self._name))

    def close(self) -> None:
        """Remove what shows this worker. Idempotent."""
        self.leave()
        self._folder.remove(leaving(self._name))

    def _release(self) -> None:
        self._socket.close()


def leaving(name: str) -> str:
    """Return the name that the socket of a worker has once that stops."""
    return f".leaving-{name}"


def connect(folder: Folder, name: str, user: int | None = None) -> Link | None:
    """Connect to a worker; None where it is gone, or too many wait for it now.

    :param user: see :class:`Link`.
    :raises LinkLost: where it belongs to another user.
    """
    connection = _new_socket()
    try:
        connection.connect(folder.address(name))
    except ConnectionRefusedError:  # it was killed
        connection.close()
        folder.remove(name)
        return None
    except OSError:
        connection.close()
        return None
    return Link(connection, user)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors; what they stand for goes on where another process has them."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _new_socket() -> _socket.socket:
    made = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    return made


def _check_peer(connection: _socket.socket, user: int) -> int:
    noted = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, its_user, _ = _CREDENTIALS.unpack(noted)
    if its_user != user:
        raise LinkLost(f"the process {process} belongs to the user {its_user}, not to {user}")
    return int(process)


def _passed(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) // _DESCRIPTOR * _DESCRIPTOR])
    return descriptors.tolist()


def _decode(packet: bytes) -> Message:
    try:
        return decode(packet)
    except ValueError as error:
        raise LinkLost(f"what came is no message: {error}") from error
