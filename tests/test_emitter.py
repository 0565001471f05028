"""The state machine of one client, with time held still."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, current_app, g

from flask_sse_emitters import SSE, CloseReason, EmitterClosed, Event, InvalidEvent, SseEmitter, SseEmitters, SseError
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.machine import HEARTBEAT
from flask_sse_emitters.streams.outgoing import WriterState
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import make_frame

from .clock import ManualScheduler, emitter_at


class FakeOutlet:
    """Takes when it is told to, and remembers what it was told."""

    declined: str | None = None

    def __init__(self, emitter: SseEmitter) -> None:
        self.emitter = emitter
        self.wakes = 0
        self.cuts = 0
        self.in_flight: int | None = None
        self.has_taken: int | None = None
        self.given: list[bytes] = []
        stream_of(emitter).begin(self)

    def wake(self) -> None:
        self.wakes += 1

    def wake_with(self, payload: bytes) -> None:
        self.given.append(payload)
        self.wake()

    def cut(self) -> None:
        self.cuts += 1

    def unsent(self) -> int | None:
        return self.in_flight

    def acknowledged(self) -> int | None:
        return self.has_taken

    def take(self) -> bytes | None:
        return self.given.pop(0) if self.given else stream_of(self.emitter).next_output()

    def take_all(self) -> list[bytes]:
        """Everything up to the end, or up to where there is nothing."""
        taken = []
        while payload := self.take():
            taken.append(payload)
        return taken


Make = Callable[..., SseEmitter]


@pytest.fixture
def make(scheduler: ManualScheduler) -> Make:
    return lambda *args, **kwargs: emitter_at(scheduler, *args, **kwargs)


def journal_of(emitter: SseEmitter) -> list[Any]:
    journal: list[Any] = []
    emitter.on_completion(lambda: journal.append("completion"))
    emitter.on_timeout(lambda: journal.append("timeout"))
    emitter.on_error(lambda error: journal.append(error))
    return journal


def test_what_was_sent_before_there_was_a_client_comes_first_and_in_order(make: Make) -> None:
    emitter = make()
    for number in range(3):
        emitter.send(number)
    assert emitter.pending == 3
    outlet = FakeOutlet(emitter)
    emitter.send("late")
    assert [event.data for event in decode(b"".join(outlet.take_all()))] == ["0", "1", "2", "late"]
    assert emitter.pending == 0


def test_it_takes_an_event_a_builder_and_plain_data(make: Make) -> None:
    emitter = make()
    builder = SseEmitter.event().name("connect").data("connected!")
    for event in (Event("a", id="1"), builder, builder, "text", {"a": 1}, 0, ""):
        emitter.send(event)
    wire = FakeOutlet(emitter).take()
    assert wire == (
        b"id: 1\ndata: a\n\n"
        b"event: connect\ndata: connected!\n\n"
        b"event: connect\ndata: connected!\n\n"
        b'data: text\n\ndata: {"a": 1}\n\ndata: 0\n\ndata: \n\n'
    )


def test_the_outlet_is_woken_once_after_each_time_there_was_nothing(make: Make) -> None:
    emitter = make()
    outlet = FakeOutlet(emitter)
    emitter.send("before it took")
    assert outlet.wakes == 0
    assert outlet.take()
    assert outlet.take() == b""
    emitter.send("a")
    emitter.send("b")
    assert outlet.wakes == 1
    assert outlet.take() == b"data: a\n\ndata: b\n\n"
    assert outlet.take() == b""
    emitter.complete()
    assert outlet.wakes == 2
    assert outlet.take() is None


def test_much_that_is_pending_leaves_in_several_writes(make: Make) -> None:
    emitter = make()
    payload = "x" * 20_000
    for _ in range(10):
        emitter.send(payload)
    taken = FakeOutlet(emitter).take_all()
    assert [len(decode(chunk)) for chunk in taken] == [3, 3, 3, 1]


ENDS: list[tuple[CloseReason, Callable[[SseEmitter, ManualScheduler], object], list[str]]] = [
    (CloseReason.COMPLETED, lambda emitter, _: emitter.complete(), ["completion"]),
    (CloseReason.TIMEOUT, lambda _, scheduler: scheduler.pass_time(60), ["timeout", "completion"]),
    (CloseReason.ERROR, lambda emitter, _: emitter.complete_with_error(KeyError("x")), ["KeyError", "completion"]),
    (
        CloseReason.DISCONNECTED,
        lambda emitter, _: stream_of(emitter).end(CloseReason.DISCONNECTED, OSError("gone")),
        ["OSError", "completion"],
    ),
    (CloseReason.OVERFLOW, lambda emitter, _: [emitter.try_send("x") for _ in range(1001)], ["SseError", "completion"]),
    (CloseReason.SHUTDOWN, lambda emitter, _: stream_of(emitter).end(CloseReason.SHUTDOWN), ["completion"]),
]


@pytest.mark.parametrize(("reason", "end", "calls"), ENDS, ids=[reason.name for reason, _, _ in ENDS])
def test_each_end_has_its_reason_and_its_callbacks(
    reason: CloseReason,
    end: Callable[[SseEmitter, ManualScheduler], object],
    calls: list[str],
    make: Make,
    scheduler: ManualScheduler,
) -> None:
    emitter = make(timeout=60, heartbeat=0)
    outlet = FakeOutlet(emitter)
    outlet.take()
    journal = journal_of(emitter)
    late: list[Any] = []

    @emitter.on_completion
    def register_late() -> None:
        assert not emitter.is_open
        emitter.on_timeout(lambda: late.append("timeout"))
        emitter.on_error(late.append)
        emitter.on_completion(lambda: late.append("completion"))

    assert (emitter.is_open, emitter.close_reason, emitter.error) == (True, None, None)
    end(emitter, scheduler)
    assert (emitter.is_open, emitter.close_reason) == (False, reason)
    assert journal == [], "never on the thread of the one who ends it"
    scheduler.run_jobs()
    names = [call if isinstance(call, str) else type(call).__name__ for call in journal]
    assert names == calls
    assert [call if isinstance(call, str) else type(call).__name__ for call in late] == calls
    assert (emitter.error is not None) is (reason.name in ("ERROR", "DISCONNECTED", "OVERFLOW"))

    for other_reason, other_end, _ in ENDS:  # the first end counts
        if other_reason is not CloseReason.TIMEOUT:
            other_end(emitter, scheduler)
    scheduler.run_jobs()
    assert emitter.close_reason is reason
    assert len(journal) == len(calls)
    outlet.take_all()
    assert scheduler.live_timers() == []


def test_callbacks_keep_the_order_of_their_registration_within_a_kind(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=1)
    calls: list[str] = []
    for name in ("c1", "c2"):
        emitter.on_completion(lambda name=name: calls.append(name))
    for name in ("t1", "t2"):
        emitter.on_timeout(lambda name=name: calls.append(name))
    scheduler.pass_time(1)
    scheduler.run_jobs()
    assert calls == ["t1", "t2", "c1", "c2"]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_a_callback_that_raises_is_logged_and_stops_no_other(
    error: BaseException, make: Make, scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = make()
    calls: list[str] = []

    @emitter.on_completion
    def fail() -> None:
        raise error

    emitter.on_completion(lambda: calls.append("the next one"))
    emitter.complete()
    scheduler.run_jobs()
    assert calls == ["the next one"]
    assert type(error).__name__ in caplog.text
    emitter.on_completion(lambda: calls.append("a late one"))
    scheduler.run_jobs()
    assert calls == ["the next one", "a late one"]


def test_an_error_that_is_no_exception_becomes_one(make: Make) -> None:
    emitter = make()
    emitter.complete_with_error("text")  # type: ignore[arg-type]
    assert isinstance(emitter.error, SseError)
    assert "'text', which is no exception" in str(emitter.error)


def test_what_is_not_callable_is_refused(make: Make) -> None:
    with pytest.raises(TypeError, match="on_timeout takes something to call, not 'x'"):
        make().on_timeout("x")  # type: ignore[type-var]


def test_sending_after_the_end_raises_with_the_reason(make: Make) -> None:
    emitter = make()
    error = KeyError("why")
    emitter.complete_with_error(error)
    with pytest.raises(EmitterClosed, match=r"ended with ERROR: 'why'; use try_send") as caught:
        emitter.send("x")
    assert (caught.value.reason, caught.value.error) == (CloseReason.ERROR, error)
    assert emitter.try_send("x") is False


@pytest.mark.parametrize("event", [b"bytes", {1, 2}, "\ud800", object()])
def test_an_invalid_event_is_refused_and_the_emitter_still_works(event: Any, make: Make) -> None:
    emitter = make()
    outlet = FakeOutlet(emitter)
    with pytest.raises(InvalidEvent):
        emitter.send(event)
    with pytest.raises(InvalidEvent):
        emitter.try_send(event)
    emitter.send("fine")
    assert outlet.take() == b"data: fine\n\n"


def test_after_an_end_the_client_gets_what_was_pending(make: Make) -> None:
    ends: list[Callable[[SseEmitter], None]] = [
        lambda emitter: emitter.complete(),
        lambda emitter: emitter.complete_with_error(ValueError()),
    ]
    for end in ends:
        emitter = make()
        emitter.send("last words")
        end(emitter)
        outlet = FakeOutlet(emitter)
        assert [outlet.take(), outlet.take(), outlet.take()] == [b"data: last words\n\n", None, None]


def test_a_client_that_left_gets_nothing_and_its_events_are_let_go(make: Make) -> None:
    emitter = make()
    outlet = FakeOutlet(emitter)
    emitter.send("x")
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert emitter.pending == 0
    assert outlet.take() is None


# The lifetime, the attach deadline, and heartbeats.


def test_the_lifetime_runs_from_the_beginning_without_any_client(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=timedelta(seconds=10))
    scheduler.pass_time(9.9)
    assert emitter.is_open
    scheduler.pass_time(0.2)
    assert emitter.close_reason is CloseReason.TIMEOUT


def test_a_lifetime_of_zero_never_ends(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=0)
    FakeOutlet(emitter).take()
    scheduler.pass_time(10**5)
    assert emitter.is_open


def test_an_emitter_that_no_view_returns_ends_with_an_error(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0)
    journal = journal_of(emitter)
    scheduler.pass_time(29.9)
    assert emitter.is_open
    scheduler.pass_time(0.2)
    assert emitter.close_reason is CloseReason.ERROR
    assert "its stream did not begin within SSE_ATTACH_SECONDS=30" in str(emitter.error)
    scheduler.run_jobs()
    assert journal == [emitter.error, "completion"]


def test_a_heartbeat_comes_only_when_nothing_else_did(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    outlet = FakeOutlet(emitter)
    assert outlet.take() == b""
    for _ in range(20):
        scheduler.pass_time(5)
        emitter.send("busy")
        assert outlet.take() == b"data: busy\n\n"
        assert outlet.take() == b""
    scheduler.pass_time(10)
    assert outlet.take() == HEARTBEAT
    assert outlet.take() == b""


def test_heartbeats_keep_coming_within_their_time(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    outlet = FakeOutlet(emitter)
    outlet.take()
    beats = 0
    for _ in range(100):
        scheduler.pass_time(1)
        if outlet.take():
            beats += 1
            outlet.take()
    assert 9 <= beats <= 13


class FakeDirectOutlet(FakeOutlet):
    """One that lists write to themselves."""

    def __init__(self, emitter: SseEmitter) -> None:
        self.client = None
        self.beats = 0
        super().__init__(emitter)
        stream_of(emitter).take_over(self)
        assert self.take() == b""

    def beat(self, payload: bytes) -> None:
        assert payload == HEARTBEAT
        self.beats += 1

    def keep(self, data: bytes, sent: int) -> None: ...

    def lose(self, error: OSError) -> None: ...


class FakeMember:
    has_own_ids = False
    has_ended = False
    queued_events = 0

    def __init__(self) -> None:
        self.list = Delivery()
        self.client: Any = None
        self.written_at = 0.0

    def take_queued(self) -> None: ...


def test_what_a_list_wrote_by_itself_takes_the_place_of_a_heartbeat(make: Make, scheduler: ManualScheduler) -> None:
    emitter, member = make(timeout=0, heartbeat=10), FakeMember()
    outlet = FakeDirectOutlet(emitter)
    assert stream_of(emitter).join(member)
    for _ in range(10):
        member.written_at = scheduler.now
        scheduler.pass_time(5)
    assert outlet.beats == 0
    scheduler.pass_time(20)
    assert outlet.beats in (2, 3)
    assert stream_of(emitter).outgoing.state is WriterState.IDLE, "it need not be woken for that"


def test_an_outlet_that_is_busy_gets_no_heartbeat(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    outlet = FakeOutlet(emitter)
    emitter.send("x")
    assert outlet.take() == b"data: x\n\n"
    scheduler.pass_time(25)  # so long does this one write take
    assert outlet.take() == b""
    assert outlet.wakes == 0


def test_heartbeats_of_clients_that_got_one_event_together_are_spread(make: Make, scheduler: ManualScheduler) -> None:
    outlets = [FakeOutlet(make(timeout=0, heartbeat=10)) for _ in range(200)]
    for outlet in outlets:
        outlet.take()
    for _ in range(10):
        scheduler.pass_time(1)
        woken = sum(outlet.wakes for outlet in outlets)
        if 0 < woken < 200:
            break
    assert 0 < woken < 200, "not all in one second"


def test_one_timer_an_emitter_and_none_after_its_end(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=60)
    assert len(scheduler.live_timers()) == 1
    outlet = FakeOutlet(emitter)
    outlet.take()
    assert len(scheduler.live_timers()) == 1
    scheduler.pass_time(20)
    assert len(scheduler.live_timers()) == 1
    emitter.complete()
    outlet.take_all()
    assert scheduler.live_timers() == []


# A client that takes nothing.


def test_a_client_that_takes_nothing_for_too_long_counts_as_gone(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=0)
    outlet = FakeOutlet(emitter)
    assert outlet.take() == b""
    scheduler.pass_time(100)
    emitter.send("x")
    outlet.take()
    scheduler.pass_time(29)
    assert emitter.is_open
    scheduler.pass_time(20)
    assert emitter.close_reason is CloseReason.DISCONNECTED
    assert "the client took nothing for SSE_WRITE_SECONDS=30" in str(emitter.error)
    assert outlet.cuts == 1


def test_a_client_that_takes_slowly_is_not_gone(make: Make, scheduler: ManualScheduler) -> None:
    """One large event leaves in pieces, so that progress shows."""
    emitter = make(timeout=0)
    outlet = FakeOutlet(emitter)
    text = "x" * 400_000
    emitter.send(text)
    emitter.send("after it")
    emitter.complete()
    pieces = []
    while piece := outlet.take():
        pieces.append(piece)
        scheduler.pass_time(25)
    assert [event.data for event in decode(b"".join(pieces))] == [text, "after it"]
    assert len(pieces) == 8
    assert max(map(len, pieces)) == 65_536
    assert (emitter.close_reason, outlet.cuts) == (CloseReason.COMPLETED, 0)


def test_a_client_whose_unsent_bytes_shrink_is_not_gone(make: Make, scheduler: ManualScheduler) -> None:
    """Though one write takes minutes: the system's buffer is large, and the line slow."""
    emitter = make(timeout=0)
    outlet = FakeOutlet(emitter)
    emitter.send("x")
    outlet.take()
    for unsent in range(4_000_000, 2_000_000, -100_000):
        outlet.in_flight = unsent
        scheduler.pass_time(5)
    assert emitter.is_open
    scheduler.pass_time(60)
    assert emitter.close_reason is CloseReason.DISCONNECTED, "the same bytes for a minute"


def test_a_client_that_acknowledges_nothing_has_vanished_though_nothing_is_being_written(
    make: Make, scheduler: ManualScheduler
) -> None:
    """What it is sent fits the system's buffer: no write would ever show it."""
    emitter = make(timeout=0)
    outlet = FakeOutlet(emitter)
    outlet.in_flight, outlet.has_taken = 3, 500
    for _ in range(100):  # it is on its way each time that somebody looks, and arrives
        outlet.has_taken += 3
        assert pass_and_take(emitter, outlet, scheduler)
    outlet.in_flight = 0
    for _ in range(100):
        assert pass_and_take(emitter, outlet, scheduler)
    outlet.in_flight = 3
    lasted = sum(pass_and_take(emitter, outlet, scheduler) for _ in range(100))
    assert 30 <= lasted * 5 <= 2 * (30 + 15)
    assert (emitter.close_reason, outlet.take()) == (CloseReason.DISCONNECTED, None)


def pass_and_take(emitter: SseEmitter, outlet: FakeOutlet, scheduler: ManualScheduler) -> bool:
    """Five seconds, in which a client that takes what comes is sent an event or a heartbeat. Whether it is there."""
    scheduler.pass_time(5)
    outlet.take_all()
    return emitter.is_open


def test_a_client_that_has_taken_all_is_not_gone_though_the_process_is_late(
    make: Make, scheduler: ManualScheduler
) -> None:
    emitter = make(timeout=0)
    outlet = FakeOutlet(emitter)
    emitter.send("x")
    outlet.take()
    outlet.in_flight = 0
    scheduler.pass_time(300)
    assert emitter.is_open


def test_an_outlet_that_was_woken_and_has_not_run_yet_is_not_stuck(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0)
    outlet = FakeOutlet(emitter)
    outlet.take()
    emitter.send("x")
    scheduler.pass_time(300)
    assert emitter.is_open
    assert outlet.take() == b"data: x\n\n"


def test_a_large_event_is_pending_until_its_last_byte_is_taken_and_shared_by_all(make: Make) -> None:
    frame = make_frame("x" * 200_000, lambda _: "", 1_000_000)
    emitters = [make() for _ in range(3)]
    for emitter in emitters:
        stream_of(emitter).offer(frame)
        stream_of(emitter).next_output()
    assert all(stream_of(emitter).outgoing.backlog._begun is frame.payload for emitter in emitters)
    assert [stream_of(emitter).outgoing.backlog.size for emitter in emitters] == [len(frame.payload) - 65_536] * 3
    got = b"".join(FakeOutlet(emitters[0]).take_all())
    assert frame.payload.endswith(got)
    assert stream_of(emitters[0]).outgoing.backlog.size == 0


def test_after_the_end_a_client_that_takes_nothing_is_cut(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=10)
    outlet = FakeOutlet(emitter)
    for number in range(10):
        emitter.send(f"{number}" * 20_000)
    outlet.take()
    scheduler.pass_time(11)
    assert emitter.close_reason is CloseReason.TIMEOUT
    assert outlet.cuts == 0
    scheduler.pass_time(40)
    assert emitter.close_reason is CloseReason.TIMEOUT
    assert outlet.cuts >= 1
    stream_of(emitter).release(OSError("the server let go of it"))
    assert scheduler.live_timers() == []


def test_after_the_end_a_client_that_leaves_is_cut(make: Make) -> None:
    emitter = make()
    outlet = FakeOutlet(emitter)
    emitter.complete()
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (emitter.close_reason, outlet.cuts) == (CloseReason.COMPLETED, 1)


# A stream of a channel that has been completed, and whose broker does not answer.


class SilentChannel(SseEmitters):
    """A channel's list, whose broker does not say whether all has been told."""

    def __init__(self) -> None:
        self._delivery = SilentDelivery()


class SilentDelivery(Delivery):
    awaits_broker = True

    def sync(self, done: Callable[[], object]) -> None: ...


def awaiting(emitter: SseEmitter) -> tuple[FakeOutlet, SilentChannel]:
    """Complete an emitter that awaits this channel from now on."""
    outlet, channel = FakeOutlet(emitter), SilentChannel()
    channel.add(emitter)
    assert outlet.take() == b""
    emitter.complete()
    assert (emitter in channel, outlet.wakes) == (True, 0)
    return outlet, channel


def test_completed_stream_that_awaits_its_channel_goes_on_with_heartbeats(
    make: Make, scheduler: ManualScheduler
) -> None:
    outlet, _ = awaiting(make(timeout=0, heartbeat=10))
    for _ in range(10):
        scheduler.pass_time(10)
        assert outlet.take_all() == [HEARTBEAT]


def test_completed_stream_that_awaits_its_channel_ends_with_its_lifetime(
    make: Make, scheduler: ManualScheduler
) -> None:
    emitter = make(timeout=60, heartbeat=0)
    outlet, channel = awaiting(emitter)
    scheduler.pass_time(59)
    assert emitter in channel
    scheduler.pass_time(2)
    assert (outlet.wakes, outlet.take(), len(channel)) == (1, None, 0)
    assert emitter.close_reason is CloseReason.COMPLETED
    assert scheduler.live_timers() == []


def test_client_that_leaves_while_its_completed_stream_awaits_is_let_go(make: Make) -> None:
    emitter = make()
    outlet, channel = awaiting(emitter)
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (outlet.wakes, outlet.cuts, outlet.take(), len(channel)) == (1, 1, None, 0)


def test_completed_stream_that_awaits_its_channel_ends_in_order_at_shutdown(make: Make) -> None:
    emitter = make()
    outlet, channel = awaiting(emitter)
    stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 5\n\n")
    assert (outlet.wakes, outlet.take(), outlet.take(), len(channel)) == (1, b"retry: 5\n\n", None, 0)


def test_completed_stream_that_no_view_returns_awaits_no_longer(make: Make, scheduler: ManualScheduler) -> None:
    emitter, channel = make(), SilentChannel()
    channel.add(emitter)
    emitter.complete()
    scheduler.pass_time(29)
    assert emitter in channel
    scheduler.pass_time(2)
    assert (len(channel), scheduler.live_timers()) == (0, [])


# Bounds for what waits.


def test_close_ends_the_stream_at_the_event_that_is_one_too_many(make: Make) -> None:
    emitter = make(max_pending=2)
    emitter.send(1)
    emitter.send(2)
    with pytest.raises(EmitterClosed, match=r"OVERFLOW.*max_pending=2") as caught:
        emitter.send(3)
    assert caught.value.reason is CloseReason.OVERFLOW
    assert (emitter.close_reason, emitter.pending, emitter.dropped) == (CloseReason.OVERFLOW, 0, 0)
    assert emitter.try_send(4) is False


def test_try_send_gives_false_at_the_event_that_is_one_too_many(make: Make) -> None:
    emitter = make(max_pending=1)
    assert [emitter.try_send(1), emitter.try_send(2), emitter.try_send(3)] == [True, False, False]


def test_bytes_are_bounded_too(make: Make) -> None:
    size = len(Event("x" * 100).encode())
    emitter = make(max_pending_bytes=2 * size)
    emitter.send("x" * 100)
    emitter.send("x" * 100)
    assert emitter.try_send("") is False


def test_what_the_outlet_has_taken_no_longer_counts(make: Make) -> None:
    emitter = make(max_pending=2)
    outlet = FakeOutlet(emitter)
    for number in range(10):
        emitter.send(number)
        emitter.send(number)
        assert outlet.take()
    assert emitter.is_open


def test_overflow_cuts_the_connection_of_a_busy_outlet(make: Make) -> None:
    emitter = make(max_pending=1)
    outlet = FakeOutlet(emitter)
    emitter.try_send(1)
    emitter.try_send(2)
    assert (outlet.cuts, outlet.take()) == (1, None)


def test_drop_oldest_keeps_the_newest_and_counts(make: Make) -> None:
    emitter = make(max_pending=3, overflow="drop_oldest")
    for number in range(10):
        emitter.send(number)
    assert (emitter.pending, emitter.dropped, emitter.is_open) == (3, 7, True)
    assert FakeOutlet(emitter).take() == b"data: 7\n\ndata: 8\n\ndata: 9\n\n"


def test_drop_oldest_makes_room_in_bytes(make: Make) -> None:
    emitter = make(max_pending_bytes=40, overflow="drop_oldest")
    for text in ("a", "b", "c", "d" * 20):
        emitter.send(text)
    assert (emitter.pending, emitter.dropped) == (2, 2)
    emitter.send("too large for any room" * 10)
    assert (emitter.pending, emitter.dropped) == (2, 3)


def test_drop_oldest_keeps_the_newest_behind_a_large_event_under_way(make: Make) -> None:
    emitter = make(max_pending_bytes=200_100, overflow="drop_oldest")
    outlet = FakeOutlet(emitter)
    emitter.send("a" * 200_000)
    begun = outlet.take()
    assert begun
    for text in ("b", "c" * 150_000, "d" * 150_000):
        emitter.send(text)
    assert (emitter.pending, emitter.dropped, emitter.is_open) == (1, 2, True)
    events = decode(begun + b"".join(outlet.take_all()))
    assert [event.data for event in events] == ["a" * 200_000, "d" * 150_000]
    assert stream_of(emitter).outgoing.backlog.size == 0


def test_coalesce_puts_the_newest_of_each_name_last(make: Make) -> None:
    emitter = make(max_pending=3, overflow="coalesce")
    for name, data in (("a", 1), ("b", 1), ("a", 2), (None, 1), ("a", 3), (None, 2)):
        emitter.send(Event(data, event=name))
    assert (emitter.pending, emitter.dropped) == (3, 3)
    assert emitter.try_send(Event(1, event="c")) is False, "one name too many is an overflow"
    assert emitter.close_reason is CloseReason.OVERFLOW


def test_coalesced_events_come_in_the_order_of_their_last(make: Make) -> None:
    emitter = make(overflow="coalesce")
    for name, data in (("a", 1), ("b", 1), ("a", 2)):
        emitter.send(Event(data, event=name))
    taken = FakeOutlet(emitter).take()
    assert taken is not None
    assert decode(taken) == [Event("1", event="b"), Event("2", event="a")]


def test_coalesce_replaces_only_events_that_are_alike(make: Make) -> None:
    emitter = make(overflow="coalesce")
    emitter.send("data")
    emitter.send(Event(comment="no data"))
    emitter.send(Event(retry=5))
    assert (emitter.pending, emitter.dropped) == (3, 0)
    emitter.send(Event("newer", event="message"))
    assert (emitter.pending, emitter.dropped) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": -1}, "timeout must be seconds as a number or a timedelta, 0 for never, not -1"),
        ({"timeout": "60"}, "timeout must be seconds"),
        ({"timeout": True}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"timeout": float("inf")}, "timeout must be seconds"),
        ({"timeout": 10**400}, "timeout must be seconds"),
        ({"timeout": timedelta(seconds=-1)}, "timeout must be seconds"),
        ({"heartbeat": -0.5}, "heartbeat must be seconds"),
        ({"max_pending": 0}, "max_pending must be an int, 1 or more, not 0"),
        ({"max_pending": 1.5}, "max_pending must be an int"),
        ({"max_pending_bytes": True}, "max_pending_bytes must be an int"),
        ({"overflow": "drop"}, 'overflow must be "close", "drop_oldest" or "coalesce", not \'drop\''),
        ({"overflow": ["close"]}, "overflow must be"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SseEmitter(**arguments)


# What surrounds it.


def test_callbacks_run_in_the_context_of_the_app_it_belongs_to(scheduler: ManualScheduler) -> None:
    app = Flask("mine")
    SSE(app)
    popped: list[str] = []
    app.teardown_appcontext(lambda _: popped.append(g.name))
    seen: list[str] = []

    with app.app_context():
        g.name = "outer"
        emitter = emitter_at(scheduler)

    @emitter.on_completion
    def look() -> None:
        seen.append(current_app.name)
        g.name = "callback"

    popped.clear()
    emitter.complete()
    scheduler.run_jobs()
    assert (seen, popped) == (["mine"], ["callback"])


def test_a_teardown_that_raises_stops_no_callback(scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    SSE(app)

    @app.teardown_appcontext
    def fail(_: BaseException | None) -> None:
        if g.get("in_callback"):
            raise RuntimeError("no database")

    with app.app_context():
        emitter = emitter_at(scheduler)
    calls: list[int] = []

    def call() -> None:
        g.in_callback = True
        calls.append(1)

    emitter.on_completion(call)
    emitter.on_completion(call)
    emitter.complete()
    scheduler.run_jobs()
    assert calls == [1, 1]
    assert "no database" in caplog.text


def test_json_is_made_by_the_app_where_there_is_one(scheduler: ManualScheduler) -> None:
    app = Flask(__name__)
    SSE(app)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    outside = emitter_at(scheduler)
    with app.app_context():
        inside = emitter_at(scheduler)
        outside.send(["é"])
    inside.send(["é"])
    for emitter in (inside, outside):
        assert FakeOutlet(emitter).take() == 'data: ["é"]\n\n'.encode()


def test_an_end_is_one_line_for_debugging(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    emitter = make()
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    emitter.complete()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "DISCONNECTED" in caplog.text
    assert "Traceback" not in caplog.text


def test_it_tells_its_state(make: Make) -> None:
    emitter = make()
    emitter.send(1)
    assert "open, 1 pending" in repr(emitter)
    emitter.complete()
    assert "COMPLETED, 1 pending" in repr(emitter)


def test_the_error_of_a_closed_emitter_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(EmitterClosed(CloseReason.TIMEOUT)))
    assert (error.reason, error.error) == (CloseReason.TIMEOUT, None)
