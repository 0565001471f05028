"""Requests as a browser would send them, and what came of each, piece by piece, with its time.

Each request is sent and read on a thread of its own, by a deadline that holds however slowly the bytes drip. Looking up
a name cannot be stopped: a thread that hangs there is left behind.
"""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

from .connection import Addresses, Unreachable, Wire, connect, look_up, seconds_until, told
from .target import Target

#: Seconds until the headers of an answer are there, for all of it: the address, a connection, TLS, the headers.
STEP_SECONDS = 10.0

#: Seconds that a thread which has reached its deadline is given to say so.
GRACE = 0.5

#: More is not read of any answer.
MOST_BYTES = 4_000_000

End: TypeAlias = Literal["open", "enough", "late", "clean", "closed", "cut", "cancelled"]


class Piece(NamedTuple):
    """What was there at once.

    :ivar at: seconds since the request was sent.
    """

    at: float
    data: bytes


class Answer:
    """One request, which a thread sends and reads the answer of, from now on.

    :param headers: of this request alone.
    :param enough: whether what is there is enough; asked after the headers and each piece.
    :param seconds: how long to read on after the headers, at most; asked once they are there.
    :param ends: when the headers must be there, by ``time.monotonic``; by default after :data:`STEP_SECONDS`.
    """

    def __init__(
        self,
        target: Target,
        headers: dict[str, str],
        enough: Callable[[Answer], bool],
        seconds: Callable[[Answer], float],
        method: str = "GET",
        ends: float | None = None,
    ) -> None:
        self.status = 0  #: until the headers are there
        self.reason = ""
        self.headers: Sequence[tuple[str, str]] = ()
        self.pieces: list[Piece] = []
        self.end: End = "open"
        self.ended = 0.0  #: seconds since the request was sent
        self.error: Exception | None = None  #: why there was no answer
        self.sent_headers = headers
        self._target = target
        self._enough = enough
        self._seconds = seconds
        self._method = method
        self._began = time.monotonic()
        self.ends = self._began + STEP_SECONDS if ends is None else ends  #: of the headers, then of the body
        self._addresses: Addresses | None = None  #: until they are known
        self._socket: socket.socket | None = None
        self._is_cancelled = False
        self._size = 0  # of what was read
        self._has_head = threading.Event()
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="sse-check", daemon=True).start()

    def await_head(self) -> None:
        """Wait for the headers.

        :raises Unreachable: where they do not come in time.
        """
        if not self._has_head.wait(seconds_until(self.ends) + GRACE):
            self.cancel()
            raise _late(self._target, self._addresses)
        if isinstance(self.error, Unreachable):
            raise self.error

    def await_end(self) -> None:
        """Wait until enough is there, or the time for the headers or the body is over."""
        with suppress(Unreachable):
            self.await_head()
            if not self._is_over.wait(seconds_until(self.ends) + GRACE):
                self.cancel()

    @property
    def at_most(self) -> int:
        """The most seconds that :meth:`await_end` takes from now on."""
        until_head = 0.0 if self._has_head.is_set() else seconds_until(self.ends)
        return math.ceil(until_head + self._seconds(self))

    def cancel(self) -> None:
        """Read no more."""
        self._is_cancelled = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def body(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)

    @property
    def first_at(self) -> float | None:
        """When the first byte of the body came."""
        return self.pieces[0].at if self.pieces else None

    def values(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def value(self, name: str) -> str:
        return ", ".join(self.values(name))

    def moments(self, apart: float = 0.2) -> list[float]:
        """When something came, as far as a reader could tell these times apart."""
        moments: list[float] = []
        for piece in self.pieces:
            if not moments or piece.at >= moments[-1] + apart:
                moments.append(piece.at)
        return moments

    def quiet_before(self, index: int) -> float:
        """Seconds without a byte before this piece, or, beyond the last one, before the end."""
        at = self.pieces[index].at if index < len(self.pieces) else self.ended
        return at - (self.pieces[index - 1].at if index else 0.0)

    def _run(self) -> None:
        try:
            self._addresses = look_up(self._target)
            self._socket = connect(self._target, self._addresses, self.ends)
            wire = Wire(self._socket, self.ends)
            self._read(self._ask(wire), wire)
        except Exception as error:
            self.error = error if isinstance(error, Unreachable) else Unreachable("unreachable", told(error))
        finally:
            self.ended = time.monotonic() - self._began
            if self._socket is not None:
                self._socket.close()
            self._has_head.set()
            self._is_over.set()

    def _ask(self, wire: Wire) -> http.client.HTTPResponse:
        target = self._target
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = wire
        connection.putrequest(self._method, target.path, skip_host=target.has("Host"), skip_accept_encoding=True)
        for name, value in self._request_headers():
            connection.putheader(name, value.encode())
        self._began = time.monotonic()
        try:
            connection.endheaders()
            response = connection.getresponse()
        except TimeoutError:
            if wire.received:
                raise Unreachable("unreachable", f"The headers did not end within {STEP_SECONDS:g} s.") from None
            raise Unreachable("no-byte", f"Not even headers came in {STEP_SECONDS:g} s.") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable("unreachable", f"There was no answer in HTTP: {told(error)}") from error
        self.status, self.reason, self.headers = response.status, response.reason, response.headers.items()
        return response

    def _request_headers(self) -> list[tuple[str, str]]:
        usual = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate", "Cache-Control": "no-cache"}
        wanted = {**usual, **self.sent_headers}
        return [(name, value) for name, value in wanted.items() if not self._target.has(name)] + [*self._target.headers]

    def _read(self, response: http.client.HTTPResponse, wire: Wire) -> None:
        self.ended = time.monotonic() - self._began
        self.ends = wire.ends = time.monotonic() + self._seconds(self)
        is_framed = response.chunked or response.length is not None
        decoder = _decoder(self.value("Content-Encoding"))
        self._has_head.set()
        while self.end == "open":
            self.end, data = self._next(response, is_framed)
            if data:
                data = decoder(data)
                self._size += len(data)
                self.pieces.append(Piece(time.monotonic() - self._began, data))

    def _next(self, response: http.client.HTTPResponse, is_framed: bool) -> tuple[End, bytes]:
        if self._enough(self) or self._size > MOST_BYTES:
            return "enough", b""
        if seconds_until(self.ends) <= 0:
            return "late", b""
        try:
            data = response.read1(65_536)
        except TimeoutError:
            return "late", b""
        except (OSError, http.client.HTTPException):
            return "cancelled" if self._is_cancelled else "cut", b""
        if data:
            return "open", data
        return "cancelled" if self._is_cancelled else "clean" if is_framed else "closed", b""


def speaks_http2(target: Target) -> bool:
    """Find out whether the server takes HTTP/2, if it is offered by TLS, within :data:`STEP_SECONDS`.

    :raises Unreachable: where there is no connection.
    """
    ends = time.monotonic() + STEP_SECONDS
    found: list[bool | Unreachable] = []

    def ask() -> None:
        try:
            with connect(target, look_up(target), ends, ("h2", "http/1.1")) as connected:
                found.append(isinstance(connected, ssl.SSLSocket) and connected.selected_alpn_protocol() == "h2")
        except Unreachable as error:
            found.append(error)

    thread = threading.Thread(target=ask, name="sse-check", daemon=True)
    thread.start()
    thread.join(STEP_SECONDS + GRACE)
    result = found[0] if found else _late(target, None)
    if isinstance(result, Unreachable):
        raise result
    return result


def _late(target: Target, addresses: Addresses | None) -> Unreachable:
    if addresses is None:
        return Unreachable("unreachable", f"No address of {target.host} was found in {STEP_SECONDS:g} s.")
    return Unreachable("unreachable", f"There was no answer in {STEP_SECONDS:g} s.")


def _decoder(encoding: str) -> Callable[[bytes], bytes]:
    """What is not compressed, or not so that it can be read here, stays as it is."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return bytes
    decompress = zlib.decompressobj(32 + zlib.MAX_WBITS)

    def decode(data: bytes) -> bytes:
        try:
            return decompress.decompress(data, MOST_BYTES)
        except zlib.error:
            return data

    return decode
