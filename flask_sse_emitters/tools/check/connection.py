"""A connection to a target, made and read by a deadline that holds however slowly bytes drip."""

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
    """There was no answer.

    :ivar name: of the finding.
    """

    def __init__(self, name: str, seen: str) -> None:
        super().__init__(seen)
        self.name = name


class Wire(io.RawIOBase):
    """A connected socket as :mod:`http.client` wants one. No call lasts longer than until the deadline.

    A timeout of the socket itself begins anew with each byte.

    :ivar ends: the deadline, by ``time.monotonic``.
    :ivar received: so many bytes.
    """

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self.ends = ends
        self.received = 0
        self._socket = connected

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_time_left(self.ends))
        count = self._socket.recv_into(buffer)
        self.received += count
        return count

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_time_left(self.ends))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Leave the socket open: it is read after its HTTPConnection has let go of it, and its maker closes it."""


def seconds_until(ends: float) -> float:
    return max(0.0, ends - time.monotonic())


def _time_left(ends: float) -> float:
    left = seconds_until(ends)
    if not left:
        raise TimeoutError
    return left


def look_up(target: Target) -> Addresses:
    """Find the addresses of the target's host. The system decides how long that may take.

    :raises Unreachable: where there is none.
    """
    try:
        return socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Unreachable("unreachable", f"No address is known of {target.host}: {error.strerror}.") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable("unreachable", f"No address is known of {target.host}: {told(error)}") from error


def connect(
    target: Target, addresses: Addresses, ends: float, protocols: Sequence[str] = ("http/1.1",)
) -> socket.socket:
    """Connect to the first address that answers, and shake hands by TLS where the target asks for it.

    :param ends: when all of it must be done, by ``time.monotonic``.
    :param protocols: to offer by ALPN, RFC 7301.
    :raises Unreachable: where there is no connection.
    """
    try:
        connected = _connect_to_any(addresses, ends)
    except OSError as error:
        raise Unreachable("unreachable", f"No connection to {target.host}:{target.port}: {told(error)}") from error
    if not target.is_tls:
        return connected
    context = ssl.create_default_context()
    if not target.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    try:
        connected.settimeout(_time_left(ends))  # of the whole handshake
        return context.wrap_socket(connected, server_hostname=target.host)
    except (OSError, ValueError) as error:
        connected.close()
        raise Unreachable("tls", f"TLS with {target.host}:{target.port} failed: {told(error)}") from error


def _connect_to_any(addresses: Addresses, ends: float) -> socket.socket:
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(_time_left(ends) / (len(addresses) - number))  # so that each has its turn
            connected.connect(address)
        except BaseException as error:
            connected.close()
            if not isinstance(error, OSError) or number == len(addresses) - 1:
                raise
        else:
            return connected
    raise OSError("it has no address")


def plain(text: str, most: int = 200) -> str:
    """What a server said, as it can be shown in a terminal."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[:most] + "..."


def told(error: Exception) -> str:
    """Say what is wrong, as a sentence that can be shown in a terminal."""
    if isinstance(error, TimeoutError):
        return "nothing came back in time."
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}."
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{plain(text)}."
