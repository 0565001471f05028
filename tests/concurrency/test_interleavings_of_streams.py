"""One stream under every interleaving of sends, ends, callbacks and its reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations, permutations, product
from typing import Any

import pytest

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import FOLLOWING, Every, Stage
from tests.unit.doubles.journal import Journal
from tests.unit.doubles.writer import texts_of

Steps = dict[str, Callable[[Stage, SseEmitter], object]]

ENDS: Steps = {
    "complete": lambda _, emitter: emitter.complete(),
    "error": lambda _, emitter: emitter.complete_with_error(KeyError("x")),
    "time": lambda stage, _: stage.background.pass_time(10),
    "disconnect": lambda _, emitter: stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("gone")),
    "overflow": lambda _, emitter: stream_of(emitter).overflow(),
}
STEPS: Steps = {
    **ENDS,
    "send": lambda _, emitter: emitter.try_send("a"),
    "send another": lambda _, emitter: emitter.try_send("b"),
}


class Played:
    """An emitter, and the steps that threads do with it."""

    def __init__(self, stage: Stage, **given: Any) -> None:
        self.stage = stage
        self.emitter = stage.emitter(timeout=10, **given)
        self.journal = Journal(self.emitter)
        self.results: dict[str, object] = {}
        self.late_calls = 0

    def do(self, step: str) -> None:
        if step == "register":
            self.emitter.on_completion(self._count_late_call)
        else:
            result = STEPS[step](self.stage, self.emitter)
            self.results[step] = self.emitter.close_reason if step in ENDS else result

    def _count_late_call(self) -> None:
        self.late_calls += 1

    def outcome(self) -> tuple[object, ...]:
        """Return everything that can be observed afterwards."""
        self.stage.background.finish()
        emitter, reason = self.emitter, self.emitter.close_reason
        assert {self.results[step] for step in self.results.keys() & ENDS} <= {reason}, "a close reason has changed"
        assert self.journal.calls == ([] if reason is None else FOLLOWING[reason])
        assert len(self.stage.background.live_timers()) == emitter.is_open
        observed = (reason, type(emitter.error), emitter.dropped, self.late_calls, tuple(texts_of(emitter)))
        return (*observed, *sorted(self.results.items()))


def steps_of(stage: Stage, *names: str, **given: Any) -> Callable[[], Scene]:
    """Return a scene of steps at the same time, which have the outcome of some order of them, one after the other."""
    allowed = []
    for order in permutations(names):
        stage.background.begin()
        played = Played(stage, **given)
        for name in order:
            played.do(name)
        allowed.append(played.outcome())

    def scene() -> Scene:
        played = Played(stage, **given)

        def check() -> None:
            found = played.outcome()
            assert found in allowed, f"{found} is none of {allowed}"

        return Scene({name: partial(played.do, name) for name in names}, check)

    return scene


@pytest.mark.parametrize("end", ENDS)
def test_accepted_event_is_delivered_when_end_races_send(end: str, stage: Stage, every: Every) -> None:
    """An event that ``try_send`` accepted is written, unless the client is cut."""
    every(steps_of(stage, "send", end))


@pytest.mark.parametrize("names", [*combinations(ENDS, 2)], ids="-".join)
def test_first_of_two_concurrent_ends_sets_close_reason(names: tuple[str, ...], stage: Stage, every: Every) -> None:
    every(steps_of(stage, *names))


@pytest.mark.parametrize("names", [("complete", "error", "time"), ("disconnect", "time", "overflow")], ids="-".join)
def test_first_of_three_concurrent_ends_sets_close_reason(names: tuple[str, ...], stage: Stage, every: Every) -> None:
    every(steps_of(stage, *names), takes=3, edges=1, lines=None)


@pytest.mark.parametrize(
    ("overflow", "last"),
    [*product(["drop_oldest", "close"], ["complete", "disconnect", "register"])],
)
def test_concurrent_steps_have_the_outcome_of_some_serial_order(
    overflow: str, last: str, stage: Stage, every: Every
) -> None:
    scene = steps_of(stage, "send", "send another", last, overflow=overflow, max_pending=1)
    every(scene, takes=3, edges=1, lines=None)


@pytest.mark.parametrize(("workers", "takes", "edges"), [(0, None, 3), (1, 3, 2), (2, 1, 1)])
def test_callback_registered_while_stream_ends_runs_once(
    workers: int, takes: int | None, edges: int, stage: Stage, every: Every
) -> None:
    def scene() -> Scene:
        emitter = stage.emitter()
        calls: list[str] = []

        def register() -> None:
            emitter.on_completion(lambda: calls.append("first"))
            emitter.on_timeout(lambda: calls.append("timeout"))
            emitter.on_completion(lambda: calls.append("second"))

        def check() -> None:
            stage.background.finish()
            assert calls == ["first", "second"]

        background = {f"worker {number}": stage.background.help for number in range(workers)}
        return Scene({"register": register, "complete": emitter.complete}, check, background)

    every(scene, takes=takes, edges=edges, lines=None if workers else 1)


def test_callbacks_that_end_each_others_streams_do_not_deadlock(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        one, other = stage.emitter(), stage.emitter()
        one.on_completion(other.complete)
        other.on_completion(one.complete)
        return Scene({"one": one.complete, "other": other.complete}, stage.background.finish)

    every(scene)


@pytest.mark.parametrize("end", ["nothing", "complete", "shut down"])
def test_send_while_reader_takes_last_event_loses_no_wake_up(end: str, stage: Stage, every: Every) -> None:
    """If a wake-up is lost, the reader sleeps forever."""

    def scene() -> Scene:
        emitter = stage.emitter()
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []

        def read() -> None:
            while end != "nothing" or len(decode(b"".join(body))) < 2:
                payload = next(stream, None)
                if payload is None:
                    break
                body.append(payload)

        def send() -> None:
            emitter.send("a")
            emitter.send("b")
            if end == "complete":
                emitter.complete()
            if end == "shut down":
                stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 7\n\n")

        def check() -> None:
            assert [event.data for event in decode(b"".join(body))] == ["a", "b"]
            assert body[-1].endswith(b"retry: 7\n\n") is (end == "shut down")
            assert emitter.pending == 0

        return Scene({"read": read, "send": send}, check)

    every(scene, takes=3)


@pytest.mark.parametrize("leave", ["disconnects", "is closed", "is completed"])
def test_disconnect_while_stream_begins_is_counted_once(leave: str, stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        streams = StreamRegistry(DEFAULTS, stage.background)
        emitter = stage.emitter()
        journal = Journal(emitter)
        stream_of(emitter).attach(DEFAULTS, streams)
        streams.admit(emitter)
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")

        def read() -> None:
            for _ in stream:
                pass
            stream.close()

        def check() -> None:
            stage.background.finish()
            reason = CloseReason.COMPLETED if leave == "is completed" else CloseReason.DISCONNECTED
            assert emitter.close_reason is reason
            assert journal.calls == FOLLOWING[reason]
            assert (len(streams), streams.closed) == (0, {reason.value: 1})
            assert stage.background.live_timers() == []

        leaves = {"disconnects": stream.on_hang_up, "is closed": stream.close, "is completed": emitter.complete}
        return Scene({"read": read, "leave": leaves[leave]}, check)

    every(scene)
