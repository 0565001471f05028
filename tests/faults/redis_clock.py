"""A Redis whose scripts see another time: a proxy changes their text on the way. (libfaketime does not bear Redis.)"""

from __future__ import annotations

import hashlib
import socket
import socketserver
import threading
from contextlib import suppress
from io import BufferedIOBase
from types import TracebackType

from tests.support.redis_server import RedisServer

_TIME = b"redis.call('TIME')"


class OtherClock:
    """A port of its own that leads to a Redis, in a ``with`` block. Its scripts' time differs by :attr:`offset`."""

    def __init__(self, redis: RedisServer) -> None:
        self.offset = 0  #: seconds
        self.changed = 0  #: number of scripts that were sent with another time
        self._digests: dict[bytes, bytes] = {}  # of the text as it was sent to Redis, by that of the original
        clock = self

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", redis.port)) as there, suppress(OSError):
                    back = threading.Thread(target=_copy, args=(there, self.connection), daemon=True)
                    back.start()
                    while command := _read_command(self.rfile):
                        there.sendall(_encoded(clock._translated(command)))

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"redis://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> OtherClock:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def set(self, seconds: int) -> None:
        """Set the clock this many seconds away from the true time: all scripts must be loaded again."""
        self.offset = seconds
        self._digests.clear()

    def _translated(self, command: list[bytes]) -> list[bytes]:
        name, *arguments = command
        if name.upper() == b"EVALSHA" and self.offset:
            return [name, self._digests.get(arguments[0], b"0" * 40), *arguments[1:]]
        place = {b"EVAL": 1, b"SCRIPT": 2}.get(name.upper())
        if place is None or not self.offset or _TIME not in command[place]:
            return command
        text = command[place]
        later = text.replace(_TIME, b"{redis.call('TIME')[1] + %d, redis.call('TIME')[2]}" % self.offset)
        self._digests[_digest(text)] = _digest(later)
        self.changed += 1
        return [*command[:place], later, *command[place + 1 :]]


def _digest(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def _read_command(stream: BufferedIOBase) -> list[bytes]:
    """Read an array of bulk strings, as clients send it; ``[]`` at the end."""
    head = stream.readline()
    parts = []
    for _ in range(int(head[1:] or 0)):
        size = int(stream.readline()[1:])
        parts.append(stream.read(size + 2)[:-2])
    return parts


def _encoded(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
