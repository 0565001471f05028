"""The end of a stream on a worker that stops: a ``retry:`` of its own, and nothing after it."""

from __future__ import annotations

import re
import socket

from tests.support.client import Client, get, post
from tests.support.servers import Server
from tests.support.waiting import until

_CLOSING = re.compile(rb"retry: (\d+)\n\n\Z")


def closing_of(client: Client) -> tuple[bytes, int]:
    """Return what the client still gets up to a clean end, and its last ``retry:`` apart."""
    rest = client.rest()
    match = _CLOSING.search(rest)
    assert match is not None, rest
    return rest[: match.start()], int(match[1])


def fill(server: Server, clients: int, app: str = "") -> None:
    """Send to the clients until more is pending for each than its socket can hold."""
    until(lambda: len(get(server, f"{app}/pending")) == clients, "the clients")
    while min(get(server, f"{app}/pending")) < 25:
        post(server, f"{app}/send", "x" * 200_000)


def read_to_the_end(raw: socket.socket) -> bytes:
    """Read everything up to the last chunk or a reset."""
    pieces: list[bytes] = []
    try:
        while piece := raw.recv(1_000_000):
            pieces.append(piece)
            if piece.endswith(b"\r\n0\r\n\r\n"):
                break
    except ConnectionResetError:
        pass
    return b"".join(pieces)
