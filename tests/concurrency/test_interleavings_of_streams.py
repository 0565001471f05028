"""One stream under every interleaving of sends, ends, callbacks and its reader."""

from __future__ import annotations

from itertools import combinations

import pytest

from flask_sse_emitters import CloseReason
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.concurrency.interleavings import Scene
from tests.concurrency.scenes import (
    ENDS,
    ends_of_an_emitter,
    read_and_send,
    register_callbacks,
)
from tests.concurrency.stage import FOLLOWING, Every, Stage
from tests.unit.doubles.journal import Journal
from tests.unit.doubles.writer import texts_of


@pytest.mark.parametrize("end", ["complete", "time"])
def test_accepted_event_is_delivered_when_end_races_send(end: str, stage: Stage, every: Every) -> None:
    """An event that ``try_send`` accepted is written, even if the stream ends at the same time."""

    def scene() -> Scene:
        emitter = stage.emitter(timeout=10)
        journal = Journal(emitter)
        took: list[bool] = []

        def check() -> None:
            stage.background.finish()
            reason = CloseReason.COMPLETED if end == "complete" else CloseReason.TIMEOUT
            assert (emitter.close_reason, journal.calls) == (reason, FOLLOWING[reason])
            assert texts_of(emitter) == ["a"] * took[0]
            assert stage.background.live_timers() == []

        return Scene(
            {"send": lambda: took.append(emitter.try_send("a")), end: lambda: ENDS[end](stage, emitter)}, check
        )

    every(scene)


@pytest.mark.parametrize("names", [*combinations(ENDS, 2)], ids="-".join)
def test_first_of_two_concurrent_ends_sets_close_reason(names: tuple[str, ...], stage: Stage, every: Every) -> None:
    every(ends_of_an_emitter(stage, names))


@pytest.mark.parametrize("names", [("complete", "error", "time"), ("disconnect", "time", "overflow")], ids="-".join)
def test_first_of_three_concurrent_ends_sets_close_reason(names: tuple[str, ...], stage: Stage, every: Every) -> None:
    every(ends_of_an_emitter(stage, names), takes=3, edges=1, lines=None)


@pytest.mark.parametrize(("workers", "takes", "edges"), [(0, None, 3), (1, 3, 2), (2, 1, 1)])
def test_callback_registered_while_stream_ends_runs_once(
    workers: int, takes: int | None, edges: int, stage: Stage, every: Every
) -> None:
    every(register_callbacks(stage, workers), takes=takes, edges=edges, lines=None if workers else 1)


@pytest.mark.parametrize("end", ["nothing", "complete", "shut down"])
def test_send_while_reader_takes_last_event_loses_no_wake_up(end: str, stage: Stage, every: Every) -> None:
    """If a wake-up is lost, the reader sleeps forever."""
    every(read_and_send(stage, end), takes=3)


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
