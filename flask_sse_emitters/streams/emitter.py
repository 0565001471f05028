"""``SseEmitter``: the public face of one client's stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from ..config import context
from ..config.settings import Duration, Overflow
from ..config.settings import checked as checked_setting
from ..errors import CloseReason, EmitterClosed, NotInitialized, SseError
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..wire.event import EventBuilder
from ..wire.frame import make_frame
from .stream import Stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Response
    from flask.typing import HeadersValue

_NOTHING_GIVEN: dict[str, Any] = {}  # shared, and so not in the memory of each client

_Callback = TypeVar("_Callback", bound=Callable[[], object])
_ErrorCallback = TypeVar("_ErrorCallback", bound=Callable[[Any], object])


class SseEmitter:
    """One client's stream: make it in a view, return it, and send to it from anywhere.

    ::

        @app.get("/connect")
        def connect():
            emitter = SseEmitter(timeout=60)
            emitter.send("connected!")
            return emitter

    Every method and property may be used from any thread (not from a signal handler) and blocks none. What is sent
    before the view returns is kept, in order, and written first.

    :param timeout: the whole lifetime, seconds (not milliseconds, as in Spring) or a timedelta, from now; then the
        stream ends and a browser reconnects. None takes ``SSE_TIMEOUT``, 0 means never.
    :param heartbeat: before so long without an event (seconds or a timedelta) a comment is written. None takes
        ``SSE_HEARTBEAT``, 0 means never.
    :param max_pending: how many events may wait for a slow client, from 1. None takes ``SSE_MAX_PENDING``.
    :param max_pending_bytes: how many bytes of them, from 1. None takes ``SSE_MAX_PENDING_BYTES``.
    :param overflow: what happens to an event beyond that: ``"close"`` ends the stream, ``"drop_oldest"`` makes room,
        ``"coalesce"`` first replaces the pending event of the same name. None takes ``SSE_OVERFLOW``.
    :raises ValueError: names the parameter, and what it accepts.

    Outside an app the defaults hold until a view returns it; from then on that app's values. Attributes of your own,
    such as whose stream it is, may be set on it.
    """

    __slots__ = ("__dict__", "__weakref__", "_stream")

    #: Keeps the time of new emitters: tests have a subclass whose scheduler holds it still.
    _new_ones_scheduler: ClassVar[Scheduler] = SCHEDULER

    def __init__(
        self,
        timeout: Duration | None = None,
        *,
        heartbeat: Duration | None = None,
        max_pending: int | None = None,
        max_pending_bytes: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        given = {
            "timeout": timeout,
            "heartbeat": heartbeat,
            "max_pending": max_pending,
            "max_pending_bytes": max_pending_bytes,
            "overflow": overflow,
        }
        checked = {name: checked_setting(name, value) for name, value in given.items() if value is not None}
        if timeout is not None:
            context.check_lifetime(timeout)
        settings = context.current_settings()
        self._stream = Stream(
            replace(settings, **checked) if checked else settings,
            checked or _NOTHING_GIVEN,
            context.last_event_id(),
            self._new_ones_scheduler,
        )
        context.note_in_request(self)

    @staticmethod
    def event() -> EventBuilder:
        """Begin to build an event: ``SseEmitter.event().name("connect").data("connected!")``."""
        return EventBuilder()

    @property
    def is_open(self) -> bool:
        """Whether it takes events: False from the moment of its end, before any callback runs."""
        return self._stream.close_reason is None

    @property
    def close_reason(self) -> CloseReason | None:
        """How it ended; None while it is open."""
        return self._stream.close_reason

    @property
    def error(self) -> BaseException | None:
        """What ended it, where that was an error."""
        return self._stream.error

    @property
    def pending(self) -> int:
        """How many events wait for the client."""
        return self._stream.pending

    @property
    def dropped(self) -> int:
        """How many events ``overflow`` has dropped or replaced."""
        return self._stream.outgoing.backlog.dropped

    @property
    def last_event_id(self) -> str | None:
        """What the client sent as ``Last-Event-ID`` (WHATWG HTML, section 9.2.3) when it reconnected; else None."""
        return self._stream.last_event_id or None

    def send(self, event: Any) -> None:
        """Send an :class:`Event`, a builder's, or plain data. Never blocks.

        :raises InvalidEvent: where it cannot be written; the emitter is as before.
        :raises EmitterClosed: after the end; also where this event is one too many and ``overflow`` is "close".
        """
        if not self.try_send(event):
            assert self._stream.close_reason is not None
            raise EmitterClosed(self._stream.close_reason, self._stream.error)

    def try_send(self, event: Any) -> bool:
        """Send as :meth:`send` does, but give False where that raises :class:`EmitterClosed`."""
        stream = self._stream
        frame = make_frame(event, self._dumps, stream.settings.max_event_bytes)
        stream.take_queued()
        return stream.offer(frame)

    def complete(self) -> None:
        """End the stream after what is pending, and after what was published before to its channels.

        Idempotent: the first end counts. Never raises, and never waits: where the broker is away, the client gets what
        is missing, and the end, when it is back; without that at the end of its lifetime, or when the worker stops.
        """
        self._stream.end(CloseReason.COMPLETED, awaits_channels=True)

    def complete_with_error(self, error: BaseException) -> None:
        """End the stream as :meth:`complete` does, with an error, which goes to the callbacks and not to the client."""
        if not isinstance(error, BaseException):
            error = SseError(f"complete_with_error() was called with {error!r}, which is not an exception")
        self._stream.end(CloseReason.ERROR, error, awaits_channels=True)

    def on_completion(self, call: _Callback) -> _Callback:
        """Call this once the stream has ended, in whatever way, after the other callbacks. Usable as a decorator.

        Callbacks run in the background, in the order of their registration, with the app's context pushed where the
        emitter belongs to an app. They may block and raise (that is logged). One registered after the end runs, too.
        """
        self._stream.callbacks.add("completion", call)
        return call

    def on_timeout(self, call: _Callback) -> _Callback:
        """Call this once the lifetime is over, as :meth:`on_completion` does."""
        self._stream.callbacks.add("timeout", call)
        return call

    def on_error(self, call: _ErrorCallback) -> _ErrorCallback:
        """Call this with the error that ended the stream, as :meth:`on_completion` does.

        A client that leaves is an error here, as is one that is too slow (``OVERFLOW``).
        """
        self._stream.callbacks.add("error", call)
        return call

    def response(self, status: int | str = 200, headers: HeadersValue | None = None) -> Response:
        """Make the Flask response that carries this stream; a view may as well return the emitter itself.

        :raises NotInitialized: in an app that has no :class:`SSE`, or outside of one.
        :raises SseError: where a response carries it already: each client needs an emitter of its own.
        """
        state = context.app_state()
        if state is None:
            raise NotInitialized("this app has no SSE: call SSE(app) or sse.init_app(app) where the app is made")
        return state.respond(self, status, headers)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as a WSGI application, which makes an emitter a valid view result for type checkers."""
        return self.response()(environ, start_response)

    if not TYPE_CHECKING:  # type checkers say it better where there is none

        def __iter__(self) -> NoReturn:
            # Of Response(emitter), say.
            raise TypeError("an emitter is not iterable: return it from the view as it is, or emitter.response()")

    def __repr__(self) -> str:
        state = "open" if self._stream.close_reason is None else self._stream.close_reason.name
        return f"<{type(self).__name__} {id(self):#x} {state}, {self.pending} pending>"

    def _dumps(self, data: Any) -> str | bytes:
        settings = self._stream.settings
        return (context.dumps() if settings.app_context is None else settings.dumps)(data)


def stream_of(emitter: SseEmitter) -> Stream:
    """Return the stream behind an emitter: for lists, writers and what belongs to the app."""
    return emitter._stream  # noqa: SLF001 - the one way to it for others
