"""One client's stream, as a state machine without I/O.

An emitter is in one of four states, and only ever goes forwards:

* *waiting*: made, and taking events, but no response carries them yet. The attach deadline runs.
* *streaming*: an outlet has the client, and calls :meth:`SseEmitter._take` for what to write until there is nothing;
  :meth:`.Outlet.wake` has it go on. Where it is a :class:`.DirectOutlet`, lists write to its client themselves while it
  sleeps. Heartbeats run, and the deadline of a client that takes nothing.
* *ended*: ``close_reason`` is set, once. Whoever set it has told the lists, woken the outlet, and sent the callbacks
  to the scheduler. The outlet may still be writing what was pending before. After ``complete()`` the emitter stays in
  the lists of channels until its broker has told all that was published before (``_memberships`` is not empty), for
  its lifetime at most; meanwhile there are heartbeats, and a client that leaves is let go.
* *drained*: the outlet has been told that nothing more will come.

While there is nothing else to write, the outlet is given what comes from the *source*, if there is one: a log that
holds what the client has missed. It is read only when the client can take more, and let go once the client has caught
up and gets everything from lists.

Lists have others deliver what is sent to them. So whatever is done with one emitter first catches up with what its
lists were given before that: nobody can tell that it had not been delivered yet.

The lifetime runs from the beginning. One timer carries all deadlines: it fires no later than the nearest, and finds out
then what is due, so no event ever has to move it.

Everything below ``_guard`` is a few statements; callbacks, outlets, lists and the scheduler are called without it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from ..config import settings as surroundings
from ..config.settings import Duration, Overflow, Settings
from ..errors import CloseReason, EmitterClosed, NotInitialized, SseError
from ..runtime.parking import shared_guard
from ..runtime.scheduler import SCHEDULER, Scheduler, Timer
from ..wire.event import Event, EventBuilder
from ..wire.frame import BATCH, Batch, Frame, make_frame
from .backlog import Backlog
from .callbacks import Callbacks, Countdown
from .deadlines import Deadlines, Due
from .interfaces import CATCHING_UP, ENDED, DirectOutlet, Membership, Outlet, Register, Source, Taken

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Response
    from flask.typing import HeadersValue

log = logging.getLogger("flask_sse_emitters.emitter")

HEARTBEAT = b":\n\n"

_NOTHING_GIVEN: dict[str, Any] = {}  # shared, and so not in the memory of each client

_NOTHING = Taken(b"", 0)

# The ends after which nothing more is written, not even what was pending.
_CUT = (CloseReason.DISCONNECTED, CloseReason.OVERFLOW)

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
    :param heartbeat: after so long without an event (seconds or a timedelta) a comment is written. None takes
        ``SSE_HEARTBEAT``, 0 means never.
    :param max_pending: how many events may wait for a slow client, from 1. None takes ``SSE_MAX_PENDING``.
    :param max_pending_bytes: how many bytes of them, from 1. None takes ``SSE_MAX_PENDING_BYTES``.
    :param overflow: what happens to an event beyond that: ``"close"`` ends the stream, ``"drop_oldest"`` makes room,
        ``"coalesce"`` first replaces the pending event of the same name. None takes ``SSE_OVERFLOW``.
    :raises ValueError: names the parameter, and what it accepts.

    Outside an app the defaults hold until a view returns it; from then on that app's values. Attributes of your own,
    such as whose stream it is, may be set on it.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_attached",
        "_backlog",
        "_callbacks",
        "_deadlines",
        "_direct",
        "_error",
        "_farewell",
        "_given",
        "_guard",
        "_handed",
        "_idle",
        "_last_event_id",
        "_memberships",
        "_outlet",
        "_reason",
        "_register",
        "_scheduler",
        "_settings",
        "_source",
        "_timer",
    )

    #: Keeps the time of new ones: tests have a subclass with one that holds it still.
    _new_ones_scheduler: ClassVar[Scheduler] = SCHEDULER

    #: What counts it besides its app, where there are limits.
    _quotas: tuple[Any, ...] = ()

    #: Whose stream it is, where a rule or a view has said so.
    _reader: Any = None

    #: What leads tells its client of a gap after this id.
    _leading_gap: str | None = None

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
        self._given = {
            name: surroundings.checked(name, value) for name, value in given.items() if value is not None
        } or _NOTHING_GIVEN
        if timeout is not None:
            surroundings.check_lifetime(timeout)
        settings = surroundings.current()
        self._settings: Settings = replace(settings, **self._given) if self._given else settings
        self._last_event_id = surroundings.last_event_id()
        self._guard = shared_guard()
        self._backlog = Backlog()
        self._scheduler = scheduler = self._new_ones_scheduler
        self._callbacks = Callbacks(scheduler, self._guard)
        self._reason: CloseReason | None = None
        self._error: BaseException | None = None
        self._memberships: tuple[Membership, ...] = ()
        self._source: Source | None = None
        self._farewell = b""  # the last thing that is written
        self._register: Register | None = None
        self._attached = False  # a response carries it
        self._outlet: Outlet | None = None
        self._idle = False  # the outlet has taken all there was, and sleeps
        self._direct: DirectOutlet | None = None  # the same one, where it can write by itself
        self._handed = False  # the outlet has taken something, and is at writing it
        self._deadlines = Deadlines(scheduler.clock(), self._settings)
        self._timer: Timer | None = None
        self._set_timer()
        surroundings.note_in_request(self)

    @staticmethod
    def event() -> EventBuilder:
        """Begin to build an event: ``SseEmitter.event().name("connect").data("connected!")``."""
        return EventBuilder()

    @property
    def is_open(self) -> bool:
        """Whether it takes events: False from the moment of its end, before any callback runs."""
        return self._reason is None

    @property
    def close_reason(self) -> CloseReason | None:
        """How it ended; None while it is open."""
        return self._reason

    @property
    def error(self) -> BaseException | None:
        """What ended it, where that was an error."""
        return self._error

    @property
    def pending(self) -> int:
        """How many events wait for the client."""
        errands = [frame for membership in self._memberships for _, frame in membership.outstanding()]
        return len(self._backlog) + sum(frame is not None for frame in errands)

    @property
    def dropped(self) -> int:
        """How many events ``overflow`` has dropped or replaced."""
        return self._backlog.dropped

    @property
    def last_event_id(self) -> str | None:
        """What the client sent as ``Last-Event-ID`` (WHATWG HTML, section 9.2.3) when it reconnected; else None."""
        return self._last_event_id or None

    def send(self, event: Any) -> None:
        """Send an :class:`Event`, a builder's, or plain data. Never blocks.

        :raises InvalidEvent: where it cannot be written; the emitter is as before.
        :raises EmitterClosed: after the end; also where this event is one too many and ``overflow`` is "close".
        """
        if not self.try_send(event):
            assert self._reason is not None
            raise EmitterClosed(self._reason, self._error)

    def try_send(self, event: Any) -> bool:
        """Send as :meth:`send` does, but give False where that raises :class:`EmitterClosed`."""
        frame = make_frame(event, self._dumps, self._settings.max_event_bytes)
        self._catch_up()
        return self._offer(frame)

    def complete(self) -> None:
        """End the stream after what is pending, and after what was published before to its channels.

        Idempotent: the first end counts. Never raises, and never waits: where the broker is away, the client gets what
        is missing, and the end, when it is back; without that at the end of its lifetime, or when the worker stops.
        """
        self._catch_up()
        self._end(CloseReason.COMPLETED, awaits_channels=True)

    def complete_with_error(self, error: BaseException) -> None:
        """End the stream as :meth:`complete` does, with an error, which goes to the callbacks and not to the client."""
        if not isinstance(error, BaseException):
            error = SseError(f"complete_with_error() was called with {error!r}, which is no exception")
        self._catch_up()
        self._end(CloseReason.ERROR, error, awaits_channels=True)

    def on_completion(self, call: _Callback) -> _Callback:
        """Call this once the stream has ended, in whatever way, after the other callbacks. Usable as a decorator.

        Callbacks run in the background, in the order of their registration, with the app's context pushed where the
        emitter belongs to an app. They may block and raise (that is logged). One registered after the end runs, too.
        """
        self._callbacks.add("completion", call)
        return call

    def on_timeout(self, call: _Callback) -> _Callback:
        """Call this once the lifetime is over, as :meth:`on_completion` does."""
        self._callbacks.add("timeout", call)
        return call

    def on_error(self, call: _ErrorCallback) -> _ErrorCallback:
        """Call this with the error that ended the stream, as :meth:`on_completion` does.

        A client that leaves is an error here, as is one that is too slow (``OVERFLOW``).
        """
        self._callbacks.add("error", call)
        return call

    def response(self, status: int | str = 200, headers: HeadersValue | None = None) -> Response:
        """The Flask response that carries this stream; a view may as well return the emitter itself.

        :raises NotInitialized: in an app that has no :class:`SSE`, or outside of one.
        :raises SseError: where a response carries it already: each client needs an emitter of its own.
        """
        state = surroundings.app_state()
        if state is None:
            raise NotInitialized("this app has no SSE: call SSE(app) or sse.init_app(app) where the app is made")
        return state.respond(self, status, headers)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Flask takes a callable for a WSGI application, which makes an emitter a valid view result for type checkers.
        return self.response()(environ, start_response)

    if not TYPE_CHECKING:  # type checkers say it better where there is none

        def __iter__(self) -> NoReturn:
            # Of Response(emitter), say.
            raise TypeError("an emitter is no iterable: return it from the view as it is, or emitter.response()")

    def __repr__(self) -> str:
        state = "open" if self._reason is None else self._reason.name
        return f"<{type(self).__name__} {id(self):#x} {state}, {self.pending} pending>"

    # What follows is for the rooms above: lists, responses and outlets.

    def _offer(self, frame: Frame) -> bool:
        """Give the client one more; False where it does not take it, and has ended."""
        with self._guard:
            if self._reason is not None:
                return False
            kept = self._backlog.push(frame, self._settings)
            sleeper = self._to_wake() if kept else None
        if sleeper is not None:
            sleeper.wake()
        if not kept:
            self._overflow()
        return kept

    def _deliver(self, batch: Batch, membership: Membership) -> None:
        """Give the client what a list sent, unless it has it already. Only on the main loop."""
        sleeper = None
        with self._guard:
            fits = batch.is_small and batch.largest <= self._settings.max_pending_bytes
            if fits and self._idle and membership.served < batch.last:
                if membership.served < batch.first:
                    payload, events = batch.payload_for(membership), batch.events
                else:  # it came amid the batch, or has caught up with a part
                    rest = batch.rest_for(membership)
                    payload, events = rest.payload, rest.events
                membership.served = batch.last
                membership.when = batch.when
                sleeper = self._to_wake()
                self._handed = True
        if sleeper is not None:
            sleeper.give(payload)
            self._count(events, len(payload))
        else:
            self._keep(batch, membership)

    def _keep(self, batch: Batch, membership: Membership) -> None:
        kept = True
        with self._guard:
            if membership.served >= batch.last:
                return
            batch = batch.rest_for(membership)
            membership.served = batch.last
            if self._takes:
                kept = self._backlog.push_all(batch, self._settings)
            sleeper = self._to_wake()
        if sleeper is not None:
            sleeper.wake()
        if not kept:
            self._overflow()

    def _complete_for(self, batch: Batch, membership: Membership) -> None:
        """End the stream because the list of this membership is to end, unless that was before."""
        with self._guard:
            if membership.served >= batch.last and membership.served != CATCHING_UP:
                return
            membership.served = ENDED
        self._catch_up()
        self._end(CloseReason.COMPLETED, awaits_channels=True)

    def _catch_up(self) -> None:
        """Deliver now what lists have been given, and end if one of them is to end."""
        memberships = self._memberships
        for membership in memberships:
            if errands := membership.outstanding():
                self._take_errands(errands, membership)
        if any(membership.served == ENDED for membership in memberships):
            self._end(CloseReason.COMPLETED, awaits_channels=True)

    def _take_errands(self, errands: list[tuple[int, Frame | None]], membership: Membership) -> None:
        frames: list[Frame] = []
        with self._guard:
            if not self._takes:
                return
            for number, frame in errands:
                if number > membership.served:
                    membership.served = ENDED if frame is None else number
                    frames += [] if frame is None else membership.stamped([frame])
            sleeper = self._to_wake() if frames else None
            if sleeper is not None:  # which would have been given them without asking whether they are too many
                self._backlog.hand(frames)
            kept = sleeper is not None or all(self._backlog.push(frame, self._settings) for frame in frames)
        if sleeper is not None:
            sleeper.wake()
        if not kept:
            self._overflow()

    def _overflow(self) -> None:
        bounds = f"max_pending={self._settings.max_pending}, max_pending_bytes={self._settings.max_pending_bytes}"
        self._end(CloseReason.OVERFLOW, SseError(f"more events pending for the client than {bounds} allow"))

    def _dumps(self, data: Any) -> str | bytes:
        own = self._settings.app_context is not None
        return (self._settings.dumps if own else surroundings.dumps())(data)

    def _follow(self, source: Source) -> None:
        """Take from this source what the client has missed."""
        with self._guard:
            if self._reason is None:
                self._source = source

    def _lead_with(self, payload: bytes, gap: str | None) -> None:
        """Begin with this, before all that has been sent; nothing has been taken yet.

        :param gap: the id that the client came with, where this tells it of one.
        """
        with self._guard:
            self._backlog.lead_with(payload)
        if gap is not None:
            self._leading_gap = gap

    def _stir(self) -> None:
        """The source may have more to give."""
        with self._guard:
            if self._source is None:
                return
            self._source.stirred = True
            sleeper = self._to_wake()
        if sleeper is not None:
            sleeper.wake()

    def _attach(self, settings: Settings, register: Register) -> None:
        """A response carries it from now on, in an app with these settings."""
        with self._guard:
            if self._attached:
                raise SseError(f"a response carries {self!r} already: make an emitter for each request")
            self._attached = True
            self._register = register
            if self._settings.app_context is None:
                self._settings = self._deadlines.settings = replace(settings, **self._given)
        if self._last_event_id is None:
            self._last_event_id = surroundings.last_event_id()
        self._set_timer()

    def _stream_to(self, outlet: Outlet) -> None:
        """The outlet has the client, and begins to take."""
        now = self._scheduler.clock()
        with self._guard:
            self._outlet = outlet
            self._deadlines.stream(now)
        self._set_timer()

    def _hand_over(self, outlet: DirectOutlet) -> None:
        """This outlet takes over from the one that had the client, and is to begin to take."""
        with self._guard:
            self._idle = False
            self._outlet = self._direct = outlet

    def _take(self, *, sleeps: bool = True) -> bytes | None:
        """Give the outlet what it is to write now; ``b""`` where there is nothing yet, None at the end.

        :param sleeps: whether the outlet waits to be woken where there is nothing. Else it asks again by itself, and
            counts as busy until then: lists keep what they have for it.
        """
        taken = self._next(sleeps)
        if taken is None:
            return None
        if taken.payload:
            self._count(taken.events, len(taken.payload), replayed=taken.is_replay)
            if taken.gap is not None and self._register is not None:
                self._register.told_of_gap(self, taken.gap)
        return taken.payload

    def _count(self, events: int, size: int, *, replayed: bool = False) -> None:
        """The client is given so much."""
        if self._register is not None:
            self._register.traffic.count(events, size, replayed=replayed)

    def _next(self, sleeps: bool) -> Taken | None:
        """As :meth:`_take`, and what is to be counted of it."""
        while True:
            with self._guard:
                if self._backlog.size:
                    gap = self._leading_gap
                    if gap is not None:
                        self._leading_gap = None
                    payload, events = self._backlog.take()
                    return Taken(self._handed_out(payload), events, gap)
                source = self._source
                if source is None:
                    if self._takes:
                        return self._nothing(sleeps)
                    farewell, self._farewell = self._farewell, b""
                    if farewell:
                        return Taken(self._handed_out(farewell), 0)
                    self._handed = False
                    break
                source.stirred = False
            ready = source.prepare()
            with self._guard:
                if self._backlog.size or self._source is None:
                    continue  # lists have been quicker, or it has been cut
                if ready:
                    taken = source.take()
                    self._handed_out(taken.payload)
                    return taken
                if ready is None:
                    self._source = None
                elif not source.stirred:
                    return self._nothing(sleeps)
        self._let_go()
        return None

    def _handed_out(self, payload: bytes) -> bytes:
        self._handed = True
        self._deadlines.written = self._scheduler.clock()
        return payload

    def _nothing(self, sleeps: bool) -> Taken:
        if sleeps:
            self._sleep()
        else:  # the outlet writes something of its own
            self._handed = True
        return _NOTHING

    def _sleep(self) -> None:
        self._handed = False
        self._idle = self._outlet is not None
        if self._direct is not None:
            self._set_clients(self._direct)

    def _keep_back(self) -> None:
        """The outlet is still at what it was given to write."""
        now = self._scheduler.clock()
        with self._guard:
            self._idle = False
            self._set_clients(None)
            self._handed = True
            self._deadlines.written = now

    def _disconnect(self, error: BaseException) -> None:
        """The client is gone; also where the stream has ended, and something is still to be written."""
        if not self._end(CloseReason.DISCONNECTED, error):
            self._stop_awaiting(drops=True)
            if (outlet := self._outlet) is not None:
                outlet.cut()

    def _release(self, error: BaseException) -> None:
        """The outlet has let go of the client: because of this error, if the stream has not ended yet."""
        self._end(CloseReason.DISCONNECTED, error)
        self._let_go()
        self._leave_register()

    def _refuse(self, reason: CloseReason, error: BaseException | None) -> None:
        """End it without what was to be written, but for what leads: a client that comes again needs its position."""
        self._end(reason, error)
        with self._guard:
            self._source = None
            self._backlog.keep_lead()

    def _withdraw(self) -> None:
        """End it because its client may have no right to it any more: what has not been taken yet is not written.

        The client comes back soon, and is asked who it is: not at the same time as all others.
        """
        farewell = Event(retry=self._settings.spread_retry()).encode()
        if not self._end(CloseReason.COMPLETED, farewell=farewell, is_withdrawn=True):
            self._stop_awaiting(drops=True)

    def _end_by(self, when: float) -> None:
        """End it at this time of the clock in any case, as one whose lifetime is over."""
        with self._guard:
            self._deadlines.until = when
        self._set_timer()

    def _send_back(self) -> None:
        """End it so that its client comes back soon: not at the same time as all others."""
        self._catch_up()
        self._end(CloseReason.COMPLETED, farewell=Event(retry=self._settings.spread_retry()).encode())

    def _shut_down(self, farewell: bytes) -> None:
        """End it because the worker stops, after what is pending, and then this."""
        self._catch_up()
        if not self._end(CloseReason.SHUTDOWN, farewell=farewell):
            self._stop_awaiting(farewell)

    def _join(self, membership: Membership) -> bool:
        """Have a list told of the end, before anything else. False where it has ended, or is in that list already."""
        with self._guard:
            joins = self._reason is None and all(other.list is not membership.list for other in self._memberships)
            if joins:
                self._memberships += (membership,)
                self._set_clients(self._direct if self._idle else None)
            return joins

    def _part(self, membership: Membership) -> None:
        with self._guard:
            self._deadlines.written = max(self._deadlines.written, membership.when)  # what the list gave it last
            self._memberships = tuple(other for other in self._memberships if other is not membership)
            membership.client = None

    def _end(
        self,
        reason: CloseReason,
        error: BaseException | None = None,
        farewell: bytes = b"",
        *,
        is_withdrawn: bool = False,
        awaits_channels: bool = False,
    ) -> bool:
        """End it, unless it has ended. The farewell follows all that is pending, where that is still written.

        :param is_withdrawn: drop what has not been taken yet.
        :param awaits_channels: what was published before to its channels counts as pending, also where this process
            has not been told of it yet.
        """
        with self._guard:
            if self._reason is not None:
                return False
            self._error = error
            self._reason = reason
            self._farewell = farewell
            timer, self._timer = self._timer, None
            if reason in _CUT or is_withdrawn:
                self._drop_unwritten()
            over = self._outlet is None
            busy = None if self._idle else self._outlet
            channels = [each for each in self._memberships if awaits_channels and each.list.is_told_later]
            untold = [each for each in channels if each.served != ENDED]  # others have ended it, and been told
            staying = channels if untold else []
            if staying:  # what was published until now is no more than the broker keeps
                self._settings = replace(self._settings, max_pending=sys.maxsize, max_pending_bytes=sys.maxsize)
            sleeper, left = self._part_from_all_but(staying, is_told=awaits_channels)
        for membership in left:
            membership.leave()
        if timer is not None:
            self._scheduler.cancel(timer)
        if sleeper is not None:
            sleeper.wake()
        if busy is not None and reason in _CUT:
            busy.cut()
        if untold:
            self._await_channels(untold)
        if over:  # no outlet will say so
            self._leave_register()
        self._callbacks.release(reason, error, self._settings.context)
        self._set_timer()
        log.debug("%r ended: %s", self, error or reason.value)
        return True

    @property
    def _takes(self) -> bool:
        """Whether lists may still give it events."""
        return self._reason is None or bool(self._memberships)

    def _await_channels(self, untold: Sequence[Membership]) -> None:
        """Leave the lists of channels once each of these has been told all that was published before the end."""
        all_told = Countdown(len(untold), self._leave_channels)
        for membership in untold:
            membership.list.look_again(all_told)

    def _leave_channels(self) -> None:
        """Write what their lists have got for it, and then the end."""
        for membership in self._memberships:
            if errands := membership.outstanding():
                self._take_errands(errands, membership)
        with self._guard:
            sleeper, left = self._part_from_all_but((), is_told=True)
        for membership in left:
            membership.leave()
        if sleeper is not None:
            sleeper.wake()

    def _stop_awaiting(self, farewell: bytes = b"", *, drops: bool = False) -> None:
        """Wait no longer, after the end, for what channels have not been told: write what is there, and the end.

        :param farewell: follows what is there, where any channel was waited for.
        :param drops: drop what has not been taken yet.
        """
        with self._guard:
            if self._memberships:
                self._farewell = farewell
            if drops:
                self._drop_unwritten()
            sleeper, left = self._part_from_all_but(())
        for membership in left:
            membership.leave()
        if sleeper is not None:
            sleeper.wake()

    def _part_from_all_but(
        self, staying: Sequence[Membership], *, is_told: bool = False
    ) -> tuple[Outlet | None, tuple[Membership, ...]]:
        """Take no more from lists, and nothing new from the source. Under the guard, after the end.

        :param is_told: the source's channels have been told all that was published before the end.
        :return: the outlet to wake, and the places in lists to leave, once the guard is left.
        """
        sleeper = None
        if not staying:
            if self._source is not None:  # its last answer, that there is nothing yet, may be on its way to the outlet
                self._source.end(is_told=is_told)
                self._source.stirred = True
            sleeper = self._to_wake()
        left = tuple(each for each in self._memberships if each not in staying)
        for membership in left:
            membership.client = None
        self._memberships = tuple(staying)
        return sleeper, left

    def _drop_unwritten(self) -> None:
        if self._backlog.is_amid:  # the farewell would make an event of the part that was written
            self._farewell = b""
        self._backlog.clear()
        self._source = None

    def _let_go(self) -> None:
        with self._guard:
            _, left = self._part_from_all_but(())
            self._outlet = self._direct = self._source = None
            self._backlog.clear()
            timer, self._timer = self._timer, None
        for membership in left:
            membership.leave()
        if timer is not None:
            self._scheduler.cancel(timer)

    def _leave_register(self) -> None:
        if self._register is not None:
            self._register.left(self)

    def _to_wake(self) -> Outlet | None:
        if not self._idle:
            return None
        self._idle = False
        if self._direct is not None:
            self._set_clients(None)
        return self._outlet

    def _set_clients(self, outlet: DirectOutlet | None) -> None:
        """Let lists write to the client themselves, from now on or no more."""
        client = None if outlet is None or self._settings.max_pending_bytes < BATCH else outlet.client
        for membership in self._memberships:
            membership.client = client if membership.is_plain else None

    def _set_timer(self) -> None:
        """See to it that the one timer fires no later than the nearest deadline."""
        with self._guard:
            when = self._missing_timer()
        self._set_timer_to(when)

    def _set_timer_to(self, when: float | None, fired: Timer | None = None) -> None:
        while when is not None:
            timer: Timer | None
            if fired is not None and fired.called is not None:
                timer, fired = self._scheduler.call_again(fired, when), None
            else:
                timer = self._scheduler.call_at(when, self._on_timer)
            with self._guard:
                missing = self._missing_timer()
                if missing is not None and missing >= when:
                    timer, self._timer = self._timer, timer
                    missing = None
            if timer is not None:
                self._scheduler.cancel(timer)
            when = missing

    def _missing_timer(self) -> float | None:
        """When a timer should fire that does not."""
        if self._takes:
            when = self._deadlines.nearest(self._handed, ended=False)
        elif self._outlet is not None and self._reason not in _CUT:
            when = self._deadlines.nearest(self._handed, ended=True)
        else:
            return None
        return None if when is None or (self._timer is not None and self._timer.when <= when) else when

    def _on_timer(self) -> None:
        now = self._scheduler.clock()
        outlet = self._outlet
        unsent = acknowledged = None
        if outlet is not None and (self._handed or self._deadlines.looks(now)):
            # In this order: what is acknowledged between the two looks like a client that is there.
            acknowledged, unsent = outlet.acknowledged(), outlet.unsent()
        with self._guard:
            fired, self._timer = self._timer, None
            for membership in self._memberships:
                self._deadlines.written = max(self._deadlines.written, membership.when)
            due = self._deadlines.due(now, self._handed, unsent, acknowledged, not self._takes)
            beats = due == "heartbeat" and self._idle  # one that is busy writes something better
            direct = self._direct if beats else None
            sleeper = self._to_wake() if beats and direct is None else None
            if beats:
                self._handed = sleeper is not None
                self._deadlines.written = now
            missing = self._missing_timer()
        if direct is not None:
            direct.beat(HEARTBEAT)
        elif sleeper is not None:
            sleeper.give(HEARTBEAT)
        if direct is not None or sleeper is not None:
            self._count(0, len(HEARTBEAT))
        if due is None or due == "heartbeat":
            self._set_timer_to(missing, fired)
        else:
            self._end_because(due)
            self._set_timer()

    def _end_because(self, due: Due) -> None:
        if due == "timeout":
            self._catch_up()
            if not self._end(CloseReason.TIMEOUT):
                self._stop_awaiting()
        elif due == "attach":
            within = f"SSE_ATTACH_SECONDS={self._settings.attach_seconds:g}"
            error = SseError(f"its stream did not begin within {within}: did a view return it?")
            if not self._end(CloseReason.ERROR, error):
                self._stop_awaiting()
        elif due == "write":
            within = f"SSE_WRITE_SECONDS={self._settings.write_seconds:g}"
            self._disconnect(TimeoutError(f"the client took nothing for {within}"))
