"""Send a request as a browser does, and record what arrives, piece by piece, with the times.

Each request is sent and read on its own thread, before a deadline that also holds when bytes arrive one by one. A name
lookup cannot be stopped: a thread that hangs in one is left behind.
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

from ...wire.frame import FINAL_BLOCK
from .connection import Addresses, DeadlineSocket, Unreachable, connect, describe_error, look_up, seconds_until
from .target import Target

#: Seconds for all that comes before the body: the name lookup, the connection, TLS, the headers.
STEP_SECONDS = 10.0

#: Seconds that a thread has, after its deadline, to report its result.
GRACE_SECONDS = 0.5

#: How many bytes of an answer are read.
MAX_BYTES = 4_000_000

End: TypeAlias = Literal["open", "enough", "late", "clean", "closed", "cut", "cancelled"]


class Piece(NamedTuple):
    """Bytes that arrived together.

    :ivar at: seconds since the request was sent.
    """

    at: float
    data: bytes


class Answer:
    """One request and its answer. Making one starts a thread, which sends the request and reads the answer.

    Another thread may read the attributes at any time, once :meth:`await_head` has returned.

    :param headers: of this request alone.
    :param is_enough: returns whether reading can stop; called after the headers and each piece.
    :param seconds: returns how long to read after the headers, at most; called once they have arrived.
    :param deadline: for the headers, by ``time.monotonic``; by default in :data:`STEP_SECONDS`.
    :ivar status: 0 until the headers have arrived.
    :ivar pieces: the body.
    :ivar ended: seconds from the request to the end.
    :ivar error: why there was no answer.
    :ivar deadline: of the headers, then of the body.
    """

    def __init__(
        self,
        target: Target,
        headers: dict[str, str],
        is_enough: Callable[[Answer], bool],
        seconds: Callable[[Answer], float],
        method: str = "GET",
        deadline: float | None = None,
    ) -> None:
        self.status = 0
        self.reason = ""
        self.headers: Sequence[tuple[str, str]] = ()
        self.pieces: list[Piece] = []
        self.end: End = "open"
        self.ended = 0.0
        self.error: Exception | None = None
        self.sent_headers = headers
        self._target = target
        self._is_enough = is_enough
        self._seconds = seconds
        self._method = method
        self._began = time.monotonic()
        self.deadline = self._began + STEP_SECONDS if deadline is None else deadline
        self._addresses: Addresses | None = None  # not yet known
        self._socket: socket.socket | None = None
        self._is_cancelled = False
        self._bytes_read = 0
        self._has_head = threading.Event()
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="sse-check", daemon=True).start()

    def await_head(self) -> None:
        """Wait for the headers.

        :raises Unreachable: where they do not arrive in time.
        """
        if not self._has_head.wait(seconds_until(self.deadline) + GRACE_SECONDS):
            self.cancel()
            raise _no_answer(self._target, self._addresses)
        if isinstance(self.error, Unreachable):
            raise self.error

    def await_end(self) -> None:
        """Wait until enough has arrived, or the time for the headers or the body is over."""
        with suppress(Unreachable):
            self.await_head()
            if not self._is_over.wait(seconds_until(self.deadline) + GRACE_SECONDS):
                self.cancel()

    @property
    def at_most(self) -> int:
        """The seconds that :meth:`await_end` takes at most, from now on."""
        until_head = 0.0 if self._has_head.is_set() else seconds_until(self.deadline)
        return math.ceil(until_head + self._seconds(self))

    def cancel(self) -> None:
        """Stop reading. From any thread."""
        self._is_cancelled = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def body(self) -> bytes:
        """All bytes of the body so far."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended for good, as its last block says."""
        return self.body.endswith(FINAL_BLOCK)

    @property
    def first_at(self) -> float | None:
        """Seconds from the request to the first byte of the body; None before it."""
        return self.pieces[0].at if self.pieces else None

    def values(self, name: str) -> list[str]:
        """Return the values of a header, one for each line."""
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def value(self, name: str) -> str:
        """Return the value of a header, joined by commas; empty where it is missing."""
        return ", ".join(self.values(name))

    def moments(self, apart: float = 0.2) -> list[float]:
        """Return the times at which pieces arrived, without those less than ``apart`` seconds after another."""
        moments: list[float] = []
        for piece in self.pieces:
            if not moments or piece.at >= moments[-1] + apart:
                moments.append(piece.at)
        return moments

    def quiet_before(self, index: int) -> float:
        """Return the seconds of silence before this piece, or, beyond the last piece, before the end."""
        at = self.pieces[index].at if index < len(self.pieces) else self.ended
        return at - (self.pieces[index - 1].at if index else 0.0)

    def _run(self) -> None:
        try:
            self._addresses = look_up(self._target)
            self._socket = connect(self._target, self._addresses, self.deadline)
            connected_socket = DeadlineSocket(self._socket, self.deadline)
            self._read(self._ask(connected_socket), connected_socket)
        except Exception as error:
            self.error = error if isinstance(error, Unreachable) else Unreachable("unreachable", describe_error(error))
        finally:
            self.ended = time.monotonic() - self._began
            if self._socket is not None:
                self._socket.close()
            self._has_head.set()
            self._is_over.set()

    def _ask(self, connected_socket: DeadlineSocket) -> http.client.HTTPResponse:
        target = self._target
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = connected_socket
        connection.putrequest(self._method, target.path, skip_host=target.has("Host"), skip_accept_encoding=True)
        for name, value in self._request_headers():
            connection.putheader(name, value.encode())
        self._began = time.monotonic()
        try:
            connection.endheaders()
            response = connection.getresponse()
        except TimeoutError:
            if connected_socket.received:
                raise Unreachable("unreachable", f"The headers did not end within {STEP_SECONDS:g} s.") from None
            raise Unreachable("no-byte", f"Not even headers came in {STEP_SECONDS:g} s.") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable("unreachable", f"There was no answer in HTTP: {describe_error(error)}") from error
        self.status, self.reason, self.headers = response.status, response.reason, response.headers.items()
        return response

    def _request_headers(self) -> list[tuple[str, str]]:
        usual = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate", "Cache-Control": "no-cache"}
        wanted = {**usual, **self.sent_headers}
        return [(name, value) for name, value in wanted.items() if not self._target.has(name)] + [*self._target.headers]

    def _read(self, response: http.client.HTTPResponse, connected_socket: DeadlineSocket) -> None:
        self.ended = time.monotonic() - self._began
        self.deadline = connected_socket.deadline = time.monotonic() + self._seconds(self)
        is_framed = response.chunked or response.length is not None
        decoder = _decoder(self.value("Content-Encoding"))
        self._has_head.set()
        while self.end == "open":
            self.end, data = self._next(response, is_framed)
            if data:
                data = decoder(data)
                self._bytes_read += len(data)
                self.pieces.append(Piece(time.monotonic() - self._began, data))

    def _next(self, response: http.client.HTTPResponse, is_framed: bool) -> tuple[End, bytes]:
        if self._is_enough(self) or self._bytes_read > MAX_BYTES:
            return "enough", b""
        if seconds_until(self.deadline) <= 0:
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
    """Return whether the server accepts HTTP/2 in the TLS handshake. Blocks for :data:`STEP_SECONDS` at most.

    :raises Unreachable: where there is no connection.
    """
    deadline = time.monotonic() + STEP_SECONDS
    found: list[bool | Unreachable] = []

    def ask() -> None:
        try:
            with connect(target, look_up(target), deadline, ("h2", "http/1.1")) as connected:
                found.append(isinstance(connected, ssl.SSLSocket) and connected.selected_alpn_protocol() == "h2")
        except Unreachable as error:
            found.append(error)

    thread = threading.Thread(target=ask, name="sse-check", daemon=True)
    thread.start()
    thread.join(STEP_SECONDS + GRACE_SECONDS)
    result = found[0] if found else _no_answer(target, None)
    if isinstance(result, Unreachable):
        raise result
    return result


def _no_answer(target: Target, addresses: Addresses | None) -> Unreachable:
    if addresses is None:
        return Unreachable("unreachable", f"No address of {target.host} was found in {STEP_SECONDS:g} s.")
    return Unreachable("unreachable", f"There was no answer in {STEP_SECONDS:g} s.")


def _decoder(encoding: str) -> Callable[[bytes], bytes]:
    """Return what decompresses the body; bytes that cannot be decompressed stay as they are."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return bytes
    decompress = zlib.decompressobj(32 + zlib.MAX_WBITS)

    def decode(data: bytes) -> bytes:
        try:
            return decompress.decompress(data, MAX_BYTES)
        except zlib.error:
            return data

    return decode
