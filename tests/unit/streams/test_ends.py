"""How a stream ends: its close reason, its callbacks, its pending events, and what it still awaits."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from flask import Flask, current_app, g

from flask_sse_emitters import SSE, CloseReason, EmitterClosed, SseEmitter, SseEmitters, SseError
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.timing.timed_stream import HEARTBEAT
from tests.unit.doubles.clock import Make, ManualScheduler, emitter_at
from tests.unit.doubles.journal import Journal
from tests.unit.doubles.writer import FakeWriter

End = Callable[[SseEmitter, ManualScheduler], object]

ENDS: list[tuple[CloseReason, End, list[str]]] = [
    (CloseReason.COMPLETED, lambda emitter, _: emitter.complete(), ["completion"]),
    (CloseReason.TIMEOUT, lambda _, scheduler: scheduler.pass_time(60), ["timeout", "completion"]),
    (CloseReason.ERROR, lambda emitter, _: emitter.complete_with_error(KeyError("x")), ["error", "completion"]),
    (
        CloseReason.DISCONNECTED,
        lambda emitter, _: stream_of(emitter).end(CloseReason.DISCONNECTED, OSError("gone")),
        ["error", "completion"],
    ),
    (CloseReason.OVERFLOW, lambda emitter, _: [emitter.try_send("x") for _ in range(1002)], ["error", "completion"]),
    (CloseReason.SHUTDOWN, lambda emitter, _: stream_of(emitter).end(CloseReason.SHUTDOWN), ["completion"]),
]


@pytest.mark.parametrize(("reason", "end", "calls"), ENDS, ids=[reason.name for reason, _, _ in ENDS])
def test_emitter_end_sets_its_close_reason_and_runs_its_callbacks(
    reason: CloseReason, end: End, calls: list[str], make: Make, scheduler: ManualScheduler
) -> None:
    """The first end counts. Callbacks run on the scheduler, also those registered after the end. No timer is left."""
    emitter = make(timeout=60, heartbeat=0)
    writer = FakeWriter(emitter)
    writer.take()
    journal, late = Journal(emitter), list[Journal]()
    emitter.on_completion(lambda: late.append(Journal(emitter)))
    assert (emitter.is_open, emitter.close_reason, emitter.error) == (True, None, None)
    end(emitter, scheduler)
    assert (emitter.is_open, emitter.close_reason) == (False, reason)
    assert journal.calls == [], "never on the thread that ends the stream"
    scheduler.run_jobs()
    assert journal.calls == calls
    assert sorted(late[0].calls) == sorted(calls)
    assert journal.errors == late[0].errors == ([] if emitter.error is None else [emitter.error])
    assert type(emitter.error) is {"ERROR": KeyError, "DISCONNECTED": OSError, "OVERFLOW": SseError}.get(
        reason.name, type(None)
    )

    for other_reason, other_end, _ in ENDS:  # the first end counts
        if other_reason is not CloseReason.TIMEOUT:
            other_end(emitter, scheduler)
    scheduler.run_jobs()
    assert (emitter.close_reason, journal.calls) == (reason, calls)
    writer.take_all()
    assert scheduler.live_timers() == []


def test_callbacks_of_one_kind_run_in_the_order_of_registration(make: Make, scheduler: ManualScheduler) -> None:
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
def test_callback_that_raises_is_logged_and_the_others_run(
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


def test_emitter_complete_with_error_wraps_what_is_no_exception(make: Make) -> None:
    emitter = make()
    emitter.complete_with_error("text")  # type: ignore[arg-type]
    assert isinstance(emitter.error, SseError)
    assert "'text', which is not an exception" in str(emitter.error)


def test_callback_that_is_not_callable_is_rejected(make: Make) -> None:
    with pytest.raises(TypeError, match="on_timeout takes something to call, not 'x'"):
        make().on_timeout("x")  # type: ignore[type-var]


def test_emitter_send_after_its_end_raises_with_the_reason(make: Make) -> None:
    emitter = make()
    error = KeyError("why")
    emitter.complete_with_error(error)
    with pytest.raises(EmitterClosed, match=r"ended with ERROR: 'why'; use try_send") as caught:
        emitter.send("x")
    assert (caught.value.reason, caught.value.error) == (CloseReason.ERROR, error)
    assert emitter.try_send("x") is False


def test_callbacks_run_in_their_apps_context_though_a_teardown_raises(
    scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("mine")
    SSE(app)
    seen: list[str] = []

    @app.teardown_appcontext
    def fail(_: BaseException | None) -> None:
        seen.append(g.name)
        if g.name == "callback":
            raise RuntimeError("no database")

    with app.app_context():
        g.name = "outer"
        emitter = emitter_at(scheduler)
    seen.clear()

    def look() -> None:
        seen.append(current_app.name)
        g.name = "callback"

    emitter.on_completion(look)
    emitter.on_completion(look)
    emitter.complete()
    scheduler.run_jobs()
    assert seen == ["mine", "callback"] * 2
    assert "no database" in caplog.text


def test_emitter_disconnect_discards_pending_and_is_one_debug_log_line(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.send("x")
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    emitter.complete()
    assert (emitter.pending, writer.take()) == (0, None)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "a stream ended: the client left" in caplog.text
    assert "Traceback" not in caplog.text


def test_ended_stream_of_a_client_that_leaves_is_cut(make: Make) -> None:
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.complete()
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (emitter.close_reason, writer.cuts) == (CloseReason.COMPLETED, 1)


class SilentChannel(SseEmitters):
    """A channel's list, whose broker does not answer whether all events have arrived."""

    def __init__(self) -> None:
        self._delivery = SilentDelivery()


class SilentDelivery(Delivery):
    awaits_broker = True

    def sync(self, done: Callable[[], object]) -> None: ...


def awaiting(emitter: SseEmitter) -> tuple[FakeWriter, SilentChannel]:
    """Complete an emitter, so that it awaits the broker of its channel."""
    writer, channel = FakeWriter(emitter), SilentChannel()
    channel.add(emitter)
    assert writer.take() == b""
    emitter.complete()
    assert (emitter in channel, writer.wakes) == (True, 0)
    return writer, channel


def test_completed_stream_that_awaits_its_broker_sends_heartbeats(make: Make, scheduler: ManualScheduler) -> None:
    writer, _ = awaiting(make(timeout=0, heartbeat=10))
    for number in range(1, 11):
        scheduler.pass_time(10)
        assert (writer.take(), writer.got) == (b"", [HEARTBEAT] * number)


def test_completed_stream_that_awaits_its_broker_ends_at_its_timeout(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=60, heartbeat=0)
    writer, channel = awaiting(emitter)
    scheduler.pass_time(59)
    assert emitter in channel
    scheduler.pass_time(2)
    assert (writer.wakes, writer.take(), len(channel)) == (1, None, 0)
    assert emitter.close_reason is CloseReason.COMPLETED
    assert scheduler.live_timers() == []


def test_completed_stream_awaiting_its_broker_ends_at_shutdown(make: Make) -> None:
    emitter = make()
    writer, channel = awaiting(emitter)
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (writer.wakes, writer.cuts, writer.take(), len(channel)) == (1, 1, None, 0)
    emitter = make()
    writer, channel = awaiting(emitter)
    stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 5\n\n")
    assert (writer.wakes, writer.take(), writer.take(), len(channel)) == (1, b"retry: 5\n\n", None, 0)


def test_completed_stream_that_no_view_returns_stops_awaiting_its_broker(
    make: Make, scheduler: ManualScheduler
) -> None:
    emitter, channel = make(), SilentChannel()
    channel.add(emitter)
    emitter.complete()
    scheduler.pass_time(29)
    assert emitter in channel
    scheduler.pass_time(2)
    assert (len(channel), scheduler.live_timers()) == (0, [])
