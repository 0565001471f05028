"""``SseEmitter``: the public face of one client's stream."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar

from ..config import context
from ..config.settings import UNSET
from ..config.settings import checked as checked_setting
from ..errors import CloseReason, EmitterClosed, NotInitialized, SseError
from ..runtime.gevent_loop import yield_if_due
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..types import Drain, Duration, EndForNow, Overflow
from ..wire.event import Event, EventBuilder, as_event, event_of
from ..wire.frame import Frame, make_frame
from .pending.offer import offer, offer_in_time
from .pending.producer import StreamProducer
from .stream import Stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Response
    from flask.typing import HeadersValue

_Callback = TypeVar("_Callback", bound=Callable[[], object])
_ErrorCallback = TypeVar("_ErrorCallback", bound=Callable[[BaseException], object])


class SseEmitter:
    """One client's stream: make it in a view, return it, and send to it from anywhere.

    ::

        @app.get("/connect")
        def connect():
            emitter = SseEmitter(timeout=60)
            emitter.send("connected!")
            return emitter

    Every method and property may be used from any thread (not from a signal handler); none blocks, but for
    :meth:`send` with ``wait``. What is sent before the view returns is kept, in order, and written first.

    :param timeout: the whole lifetime, seconds (not milliseconds, as in Spring) or a timedelta, from now; then the
        stream ends and a browser reconnects. None takes ``SSE_TIMEOUT``, 0 means never.
    :param heartbeat: before so long without an event (seconds or a timedelta) a comment is written. None takes
        ``SSE_HEARTBEAT``, 0 means never.
    :param max_pending: how many events may wait for a slow client, from 1. None takes ``SSE_MAX_PENDING``.
    :param max_pending_bytes: how many bytes of them, from 1. None takes ``SSE_MAX_PENDING_BYTES``.
    :param overflow: what happens to an event beyond that: ``"close"`` ends the stream, ``"drop_oldest"`` makes room,
        ``"coalesce"`` first replaces the pending event of the same name. None takes ``SSE_OVERFLOW``.
    :param retry: how long the client waits before it reconnects, milliseconds; None tells it nothing. Left out, it is
        ``SSE_RETRY``.
    :param bare: write nothing but events without ids, and comments: for clients that take everything else for an event,
        as those of language models do. Where the end is none for good, the connection breaks.
    :param drain: what a worker that stops does with the stream: ``"end"`` it, or let it ``"finish"``. None is "end";
        with :meth:`send_from` "finish".
    :param end: how the stream ends where that is none for good (its lifetime is over, the worker stops, its reader's
        rights are revoked): ``"clean"``, or ``"cut"`` for clients that come back only then. None takes ``SSE_END``.
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
        retry: int | None = UNSET,
        bare: bool = False,
        drain: Drain | None = None,
        end: EndForNow | None = None,
    ) -> None:
        given = {
            "timeout": timeout,
            "heartbeat": heartbeat,
            "max_pending": max_pending,
            "max_pending_bytes": max_pending_bytes,
            "overflow": overflow,
            "bare": bare or None,
            "drain": drain,
            "end": end,
        }
        checked = {name: checked_setting(name, value) for name, value in given.items() if value is not None}
        if retry is not UNSET:
            checked["retry"] = checked_setting("retry", retry)
        if timeout is not None:
            context.check_lifetime(timeout)
        settings = context.current_settings()
        self._stream = Stream(settings.with_own(checked), context.last_event_id(), self._new_ones_scheduler)
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

    def send(
        self,
        data: Any,
        /,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        wait: Duration = 0,
    ) -> None:
        """Send data as an event, or one that is made already: an :class:`Event`, or a builder's.

        Blocks only with ``wait``: until there is room for the event, which the client makes as it reads. Others run
        meanwhile. A loop of such sends is never cut for ``OVERFLOW``, however slow the client is.

        :param event: the event's name; None is ``"message"``.
        :param id: of the event, which a client that reconnects sends back.
        :param retry: milliseconds that the client waits from now on before it reconnects.
        :param wait: for so long at most, seconds or a timedelta. Not in the view before it returns: only then the
            client begins to read.
        :raises InvalidEvent: where it cannot be written; the emitter is as before.
        :raises EmitterClosed: after the end; also where this event is one too many and ``overflow`` is "close".
        :raises TimeoutError: where there was no room in time. The event is not sent, and the emitter is open.
        """
        frame = self._frame(data, event, id, retry)
        stream, seconds = self._stream, checked_setting("timeout", wait, "wait") if wait else 0.0
        if seconds:
            is_sent = offer_in_time(stream, frame, seconds)
            yield_if_due()
        else:
            is_sent = offer(stream, frame)
        if not is_sent:
            assert stream.close_reason is not None
            raise EmitterClosed(stream.close_reason, stream.error)

    def try_send(
        self, data: Any, /, *, event: str | None = None, id: str | int | None = None, retry: int | None = None
    ) -> bool:
        """Send as :meth:`send` does, and never block, but return False where that raises :class:`EmitterClosed`."""
        return offer(self._stream, self._frame(data, event, id, retry))

    def send_from(
        self, items: Iterable[Any], *, done: Any = None, on_error: Callable[[Exception], Any] | None = None
    ) -> Self:
        """Send everything that an iterable gives, then ``done``, and end the stream for good. Never blocks.

        ::

            @app.post("/answers")
            def answer():
                return SseEmitter().send_from(words(request.json["question"]))

        A thread of its own (a greenlet under gevent) pulls the items from when the response begins. It asks for the
        next one only while the client keeps up: fewer than ``SSE_AHEAD`` events are pending, and less than 64 kB.
        Pulled in a request, they may use it, and the app's context, as with Flask's ``stream_with_context``: both are
        copies, which are torn down after the last item.

        Where the client leaves, callbacks run at once, and the iterable's ``close()`` is called on its thread, as soon
        as that is not waiting for an item. The same holds for any other end of the stream. Where the iterable raises,
        that is logged, and the connection breaks, so that no client takes a part for the whole.

        :param items: events, builders or data. Under gevent others run between two of them: one that computes for
            longer than some milliseconds should call ``time.sleep(0)`` at times.
        :param done: one more, after the last.
        :param on_error: is called with the exception that the iterable has raised, and returns the event that tells the
            client of it.
        :return: the emitter, so that a view may return what this returns.
        :raises TypeError: where the items are a str, bytes or asynchronous.
        :raises SseError: where it has been called before.
        """
        if isinstance(items, (str, bytes, Event, EventBuilder)):
            raise TypeError(f"send_from() takes an iterable of items, not one of them: {items!r}")
        if isinstance(items, AsyncIterable) or (not isinstance(items, Iterable) and not hasattr(items, "__getitem__")):
            raise TypeError(f"send_from() takes an iterable that a plain for loop can pull, not {items!r}")
        stream = self._stream
        producer = StreamProducer(stream, self.try_send, items, done, on_error, self._in_context)
        if not stream.produce(producer):
            raise SseError("send_from() has been called for this emitter before: make one for each iterable")
        return self

    def complete(self, final: bool = False) -> None:
        """End the stream after what is pending, and after what was published before to its channels.

        Idempotent: the first end counts. Never raises, and never waits: where the broker is away, the client gets what
        is missing, and the end, when it is back; without that at the end of its lifetime, or when the worker stops.

        :param final: it is over for good: the client is told so by an event named ``~end``, and where it comes back
            all the same, as a browser's ``EventSource`` does, it is answered 204, which stops it.
        """
        self._stream.complete(is_final=final)

    def abort(self, error: BaseException | None = None) -> None:
        """Break the connection after what is pending, so that no client takes a part for the whole.

        Idempotent: the first end counts. Never raises, and never waits.

        :param error: goes to the callbacks, with ``CloseReason.ERROR``, and not to the client.
        """
        self._stream.abort(SseError("the stream was aborted") if error is None else _as_error("abort", error))

    def complete_with_error(self, error: BaseException) -> None:
        """End the stream as :meth:`complete` does, with an error, which goes to the callbacks and not to the client."""
        self._stream.end(CloseReason.ERROR, _as_error("complete_with_error", error), awaits_channels=True)

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

    if TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            """Make an emitter one of the types that Flask's views return beside a status: the one least in the way."""

    if not TYPE_CHECKING:  # type checkers say it better where there is none

        def __iter__(self) -> NoReturn:
            # Of Response(emitter), say.
            raise TypeError("an emitter is not iterable: return it from the view as it is, or emitter.response()")

    def __repr__(self) -> str:
        state = "open" if self._stream.close_reason is None else self._stream.close_reason.name
        return f"<{type(self).__name__} {id(self):#x} {state}, {self.pending} pending>"

    def _frame(self, data: Any, event: str | None, id: str | int | None, retry: int | None) -> Frame:
        """Encode an event. What the lists have been sent before goes first."""
        stream = self._stream
        given = event_of(data, event, id, retry)
        if stream.settings.bare and type(given) is not str:
            given = replace(as_event(given), id=None)
        frame = make_frame(given, self._dumps, stream.settings.max_event_bytes)
        stream.take_queued()
        return frame

    def _in_context(self, call: Callable[[], object]) -> Callable[[], object]:
        return context.in_copied_context(call, lambda: self._stream.settings.context())

    def _dumps(self, data: Any) -> str | bytes:
        settings = self._stream.settings
        return (context.dumps() if settings.app_context is None else settings.dumps)(data)


def _as_error(method: str, error: object) -> BaseException:
    if isinstance(error, BaseException):
        return error
    return SseError(f"{method}() was called with {error!r}, which is not an exception")


def stream_of(emitter: SseEmitter) -> Stream:
    """Return the stream behind an emitter: for lists, writers and what belongs to the app."""
    return emitter._stream  # noqa: SLF001 - the one way to it for others
