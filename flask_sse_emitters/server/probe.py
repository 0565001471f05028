"""Measurements of the way to a deployed stream for ``flask sse check``: how the proxy asks, and whether it buffers.

A request asks for them with ``Sse-Check: NONCE``. The response has a header of this name with the same nonce; another
nonce shows that a cache has answered. After ``NONCE; comments``, small comments are written at known times, and then a
large one, which pushes out what a proxy still buffers. One of them says who writes the stream: that is decided once the
headers are out.

Nothing about the app's data or its clients is revealed.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING

from ..config.settings import CHANCE
from ..runtime.fork import reset_after_fork
from ..runtime.gevent_loop import is_green
from ..runtime.locks import native_lock
from ..streams.emitter import SseEmitter, stream_of
from ..streams.outgoing import WriterState
from ..wire.event import Event

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.datastructures import Headers

#: The header's name, and its key in the environ.
HEADER, ENVIRON_KEY = "Sse-Check", "HTTP_SSE_CHECK"

#: A comment is written at this interval, so many times.
INTERVAL_SECONDS, COMMENTS = 0.5, 6

#: The length of the last comment: more than nginx buffers of a response, and too random to compress to less.
PADDING_BYTES = 65_536

#: So many streams of a process get comments at a time; others get the header alone.
MAX_PROBES = 4

_ASKED = re.compile(r"([A-Za-z0-9]{8,64})(; *comments)?", re.ASCII)

_CONNECTION = ("close", "keep-alive", "upgrade")


def add_check_header(emitter: SseEmitter, environ: WSGIEnvironment, headers: Headers) -> None:
    """Add a header that describes the request as it arrived here, and begin to write comments, if it asks for them."""
    asked = _ASKED.fullmatch(environ[ENVIRON_KEY])
    if asked is None:
        return
    wants_comments = asked[2] and environ["REQUEST_METHOD"] == "GET" and emitter.is_open
    comments = COMMENTS if wants_comments and PROBES.begin(emitter) else 0
    values = {
        "protocol": "HTTP/1.0" if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" else "HTTP/1.1",
        "connection": _connection(environ.get("HTTP_CONNECTION", "")),
        "last-event-id": "yes" if environ.get("HTTP_LAST_EVENT_ID") else "no",
        "heartbeat": f"{stream_of(emitter).settings.heartbeat:g}",
        "comments": str(comments),
        "every": f"{INTERVAL_SECONDS:g}",
    }
    headers[HEADER] = "; ".join([asked[1], *(f"{name}={value}" for name, value in values.items())])


class Probes:
    """Writes the comments of streams that are being checked. Any thread may call."""

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._count = 0

    def begin(self, emitter: SseEmitter) -> bool:
        """Begin to write comments to the stream. Return False where too many others get comments now. Never blocks."""
        with self._lock:
            if self._count >= MAX_PROBES:
                return False
            self._count += 1
        self._write_later(emitter, 1, tells=True)
        return True

    def _write_later(self, emitter: SseEmitter, number: int, *, tells: bool) -> None:
        scheduler = stream_of(emitter).scheduler
        scheduler.call_at(scheduler.clock() + INTERVAL_SECONDS, partial(self._write, emitter, number, tells=tells))

    def _write(self, emitter: SseEmitter, number: int, *, tells: bool) -> None:
        is_last = number == COMMENTS
        continues = False
        try:
            if emitter.is_open:
                about = _about_writer(emitter) if tells else ""
                told = _send_comment(emitter, f"{about}check {number}", is_padded=is_last)
                tells = tells and not (told and about)
            continues = not is_last and emitter.is_open
        finally:
            if not continues:
                with self._lock:
                    self._count -= 1
        if continues:
            self._write_later(emitter, number + 1, tells=tells)


PROBES = Probes()


def _about_writer(emitter: SseEmitter) -> str:
    """Return a line of a comment that says who writes the stream; empty before that is decided."""
    stream = stream_of(emitter)
    writer, registry = stream.outgoing.writer, stream.registry
    declined = None if writer is None else writer.declined
    if registry is None or (stream.outgoing.direct is None and declined is None):
        return ""
    use = registry.thread_use
    by = "handoff" if declined is None else "greenlet" if is_green() else "thread"
    values = {"by": by, "server": use.server, "threads": use.threads or "", "why": declined or ""}
    fields = (f"{name}={' '.join(str(value).replace(';', ',').split())}" for name, value in values.items())
    return f"written {'; '.join(fields)}\n"


def _send_comment(emitter: SseEmitter, text: str, *, is_padded: bool) -> bool:
    """Send a comment, unless the stream has other bytes to write. Return whether it was sent."""
    stream = stream_of(emitter)
    settings = stream.settings
    if stream.outgoing.state is not WriterState.IDLE:
        return False
    if is_padded and min(settings.max_pending_bytes, settings.max_event_bytes) >= 2 * PADDING_BYTES:
        text += "\n" + b64encode(CHANCE.randbytes(PADDING_BYTES // 4 * 3)).decode()
    return emitter.try_send(Event(comment=text))


def _connection(sent: str) -> str:
    tokens = [token.strip().lower() for token in sent.split(",")]
    return next((token for token in _CONNECTION if token in tokens), "")
