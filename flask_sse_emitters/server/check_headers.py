"""What a deployed stream tells ``flask sse check`` of the way to it: how the proxy speaks, and whether it passes on at
once what it gets.

A request asks for that in ``Sse-Check: NONCE``. The answer has a header of this name, with the same nonce: another one
shows that a cache answered. After ``NONCE; comments`` small comments are written at known times, and then a large one,
which pushes out of a proxy's buffers what it holds back.

Nothing is told of the app's data, nor of its clients.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING

from ..config.settings import CHANCE
from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..streams.emitter import SseEmitter, stream_of
from ..streams.outgoing import WriterState
from ..wire.event import Event

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.datastructures import Headers

#: In the environ, and on the wire.
KEY, HEADER = "HTTP_SSE_CHECK", "Sse-Check"

#: Every so many seconds a comment is written, so many times.
SECONDS, COMMENTS = 0.5, 6

#: Bytes that follow: more than nginx buffers of a response, and too random to be compressed to less than that.
PADDING = 65_536

#: So many streams of a process have comments at a time; others have the header alone.
AT_ONCE = 4

_ASKED = re.compile(r"([A-Za-z0-9]{8,64})(; *comments)?", re.ASCII)

_CONNECTION = ("close", "keep-alive", "upgrade")


def answer(emitter: SseEmitter, environ: WSGIEnvironment, headers: Headers) -> None:
    """Say in the headers of a stream's response what this request looks like here; and have its comments written."""
    asked = _ASKED.fullmatch(environ[KEY])
    if asked is None:
        return
    comments = COMMENTS if asked[2] and environ["REQUEST_METHOD"] == "GET" and PROBES.begin(emitter) else 0
    said = {
        "protocol": "HTTP/1.0" if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" else "HTTP/1.1",
        "connection": _connection(environ.get("HTTP_CONNECTION", "")),
        "last-event-id": "yes" if environ.get("HTTP_LAST_EVENT_ID") else "no",
        "heartbeat": f"{stream_of(emitter).settings.heartbeat:g}",
        "comments": str(comments),
        "every": f"{SECONDS:g}",
    }
    headers[HEADER] = "; ".join([asked[1], *(f"{name}={value}" for name, value in said.items())])


class Probes:
    """The streams that have comments written now. Any thread may call."""

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()
        self._count = 0

    def begin(self, emitter: SseEmitter) -> bool:
        """Have comments written from now on; False where that is done for too many streams."""
        with self._lock:
            if self._count >= AT_ONCE:
                return False
            self._count += 1
        self._write_later(emitter, 1)
        return True

    def _write_later(self, emitter: SseEmitter, number: int) -> None:
        scheduler = stream_of(emitter).scheduler
        scheduler.call_at(scheduler.clock() + SECONDS, partial(self._write, emitter, number))

    def _write(self, emitter: SseEmitter, number: int) -> None:
        last = number == COMMENTS
        goes_on = False
        try:
            if emitter.is_open:
                _remark(emitter, f"check {number}", padded=last)
            goes_on = not last and emitter.is_open
        finally:
            if not goes_on:
                with self._lock:
                    self._count -= 1
        if goes_on:
            self._write_later(emitter, number + 1)


PROBES = Probes()


def _remark(emitter: SseEmitter, text: str, *, padded: bool) -> None:
    """Write a comment, unless there is something better to write."""
    stream = stream_of(emitter)
    settings = stream.settings
    if stream.outgoing.state is not WriterState.IDLE:
        return
    if padded and min(settings.max_pending_bytes, settings.max_event_bytes) >= 2 * PADDING:
        text += "\n" + b64encode(CHANCE.randbytes(PADDING // 4 * 3)).decode()
    emitter.try_send(Event(comment=text))


def _connection(sent: str) -> str:
    tokens = [token.strip().lower() for token in sent.split(",")]
    return next((token for token in _CONNECTION if token in tokens), "")
