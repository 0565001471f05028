"""Requests as a browser would send them, and what came of each, piece by piece, with its time.

One request is read on one thread, which nobody ever waits for longer than he wants to: what hangs is left behind.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

from .target import Target

#: Seconds for each step until the headers of the answer are there: a connection, TLS, the headers themselves.
STEP_SECONDS = 10.0

#: More is not read of any answer.
MOST_BYTES = 4_000_000

End: TypeAlias = Literal["open", "enough", "late", "clean", "closed", "cut", "cancelled"]


class Unreachable(Exception):
    """There was no answer.

    :ivar name: of the finding.
    """

    def __init__(self, name: str, seen: str) -> None:
        super().__init__(seen)
        self.name = name


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
    """

    def __init__(
        self,
        target: Target,
        headers: dict[str, str],
        enough: Callable[[Answer], bool],
        seconds: Callable[[Answer], float],
        method: str = "GET",
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
        self._socket: socket.socket | None = None
        self._is_cancelled = False
        self._size = 0  # of what was read
        self._has_head = threading.Event()
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="sse-check", daemon=True).start()

    def await_head(self) -> None:
        """Wait for the headers.

        :raises Unreachable: where they do not come.
        """
        if not self._has_head.wait(3 * STEP_SECONDS):
            self.cancel()
            raise Unreachable("unreachable", f"There was no answer in {3 * STEP_SECONDS:g} s.")
        if isinstance(self.error, Unreachable):
            raise self.error

    def await_end(self, seconds: float) -> None:
        """Wait until enough is there, or the time for it is over."""
        if not self._is_over.wait(seconds):
            self.cancel()

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
            self._socket = connect(self._target)
            self._read(self._ask(self._socket))
        except Exception as error:
            self.error = error if isinstance(error, Unreachable) else Unreachable("unreachable", _told(error))
        finally:
            self.ended = time.monotonic() - self._began
            if self._socket is not None:
                self._socket.close()
            self._has_head.set()
            self._is_over.set()

    def _ask(self, connected: socket.socket) -> http.client.HTTPResponse:
        target = self._target
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = connected
        connection.putrequest(self._method, target.path, skip_host=target.has("Host"), skip_accept_encoding=True)
        for name, value in self._request_headers():
            connection.putheader(name, value.encode())
        self._began = time.monotonic()
        connection.endheaders()
        try:
            response = connection.getresponse()
        except TimeoutError:
            raise Unreachable("no-byte", f"Not even headers came in {STEP_SECONDS:g} s.") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable("unreachable", f"There was no answer in HTTP: {_told(error)}") from error
        self.status, self.reason, self.headers = response.status, response.reason, response.headers.items()
        return response

    def _request_headers(self) -> list[tuple[str, str]]:
        usual = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate", "Cache-Control": "no-cache"}
        wanted = {**usual, **self.sent_headers}
        return [(name, value) for name, value in wanted.items() if not self._target.has(name)] + [*self._target.headers]

    def _read(self, response: http.client.HTTPResponse) -> None:
        self.ended = time.monotonic() - self._began
        ends = time.monotonic() + self._seconds(self)
        is_framed = response.chunked or response.length is not None
        decoder = _decoder(self.value("Content-Encoding"))
        self._has_head.set()
        while self.end == "open":
            self.end, data = self._next(response, ends, is_framed)
            if data:
                self._size += len(data)
                self.pieces.append(Piece(time.monotonic() - self._began, decoder(data)))

    def _next(self, response: http.client.HTTPResponse, ends: float, is_framed: bool) -> tuple[End, bytes]:
        left = ends - time.monotonic()
        if self._enough(self) or self._size > MOST_BYTES:
            return "enough", b""
        if left <= 0:
            return "late", b""
        assert self._socket is not None
        self._socket.settimeout(left)
        try:
            data = response.read1(65_536)
        except TimeoutError:
            return "late", b""
        except (OSError, http.client.HTTPException):
            return "cancelled" if self._is_cancelled else "cut", b""
        if data:
            return "open", data
        return "cancelled" if self._is_cancelled else "clean" if is_framed else "closed", b""


def connect(target: Target, protocols: Sequence[str] = ("http/1.1",)) -> socket.socket:
    """
    :param protocols: to offer by ALPN, RFC 7301.
    :raises Unreachable: where there is no connection.
    """
    try:
        connected = socket.create_connection((target.host, target.port), STEP_SECONDS)
    except socket.gaierror as error:
        raise Unreachable("unreachable", f"No address is known of {target.host}: {error.strerror}.") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable("unreachable", f"No connection to {target.host}:{target.port}: {_told(error)}") from error
    if not target.is_tls:
        return connected
    context = ssl.create_default_context()
    if not target.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    try:
        return context.wrap_socket(connected, server_hostname=target.host)
    except (OSError, ValueError) as error:
        connected.close()
        raise Unreachable("tls", f"TLS with {target.host}:{target.port} failed: {_told(error)}") from error


def speaks_http2(target: Target) -> bool:
    """Whether the server takes it, if it is offered, by TLS.

    :raises Unreachable: where there is no connection.
    """
    with connect(target, ("h2", "http/1.1")) as connected:
        return isinstance(connected, ssl.SSLSocket) and connected.selected_alpn_protocol() == "h2"


def plain(text: str, most: int = 200) -> str:
    """What a server said, as it can be shown in a terminal."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[:most] + "..."


def _told(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came back in {STEP_SECONDS:g} s."
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}."
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{plain(told)}."


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
