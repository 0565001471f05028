"""Connect to a target, and read from it, before a deadline that also holds when bytes arrive one by one."""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from .target import Target

Addresses: TypeAlias = Sequence[tuple[Any, ...]]  # as socket.getaddrinfo gives them


class Unreachable(Exception):
    """The target did not answer.

    :ivar name: the name of the finding.
    """

    def __init__(self, name: str, seen: str) -> None:
        super().__init__(seen)
        self.name = name


class DeadlineSocket(io.RawIOBase):
    """A connected socket for :mod:`http.client`. A call that lasts until the deadline raises TimeoutError.

    The timeout of a plain socket restarts with each byte.

    :ivar deadline: by ``time.monotonic``.
    :ivar received: how many bytes were received.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.deadline = deadline
        self.received = 0
        self._socket = connected

    def readable(self) -> bool:
        """Return True: see :class:`io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive into the buffer, and return how many bytes: see :class:`io.RawIOBase`."""
        self._socket.settimeout(_time_left(self.deadline))
        count = self._socket.recv_into(buffer)
        self.received += count
        return count

    def sendall(self, data: bytes) -> None:
        """Send all of the data."""
        self._socket.settimeout(_time_left(self.deadline))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a buffered reader of this socket."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """Leave the socket open: its owner closes it, and reads it after HTTPConnection has called this."""


def seconds_until(deadline: float) -> float:
    """Return the seconds until a deadline by ``time.monotonic``, at least 0."""
    return max(0.0, deadline - time.monotonic())


def _time_left(deadline: float) -> float:
    left = seconds_until(deadline)
    if not left:
        raise TimeoutError
    return left


def look_up(target: Target) -> Addresses:
    """Look up the addresses of the target's host. Blocks for as long as the system's resolver does.

    :raises Unreachable: where there are none.
    """
    try:
        return socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Unreachable("unreachable", f"No address is known of {target.host}: {error.strerror}.") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable("unreachable", f"No address is known of {target.host}: {describe_error(error)}") from error


def connect(
    target: Target, addresses: Addresses, deadline: float, protocols: Sequence[str] = ("http/1.1",)
) -> socket.socket:
    """Connect to the first address that answers, with TLS where the target uses it. Blocks until the deadline.

    :param deadline: by ``time.monotonic``, for all of it.
    :param protocols: what to offer by ALPN (RFC 7301).
    :raises Unreachable: where there is no connection.
    """
    try:
        connected = _connect_to_any(addresses, deadline)
    except OSError as error:
        raise Unreachable(
            "unreachable", f"No connection to {target.host}:{target.port}: {describe_error(error)}"
        ) from error
    if not target.is_tls:
        return connected
    context = ssl.create_default_context()
    if not target.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    try:
        connected.settimeout(_time_left(deadline))  # of the whole handshake
        return context.wrap_socket(connected, server_hostname=target.host)
    except (OSError, ValueError) as error:
        connected.close()
        raise Unreachable("tls", f"TLS with {target.host}:{target.port} failed: {describe_error(error)}") from error


def _connect_to_any(addresses: Addresses, deadline: float) -> socket.socket:
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(_time_left(deadline) / (len(addresses) - number))  # so that every address is tried
            connected.connect(address)
        except BaseException as error:
            connected.close()
            if not isinstance(error, OSError) or number == len(addresses) - 1:
                raise
        else:
            return connected
    raise OSError("it has no address")


def printable(text: str, most: int = 200) -> str:
    """Make a server's text safe and short enough to show in a terminal.

    :param most: how many characters to keep.
    """
    shown = "".join(each if each.isprintable() else " " for each in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[:most] + "..."


def describe_error(error: Exception) -> str:
    """Return what is wrong, as a sentence for a terminal."""
    if isinstance(error, TimeoutError):
        return "nothing came back in time."
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}."
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{printable(text)}."
