"""What the log says of streams: whose they are, what they read, how long, and how many events; also as fields."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import pytest

from flask_sse_emitters import CloseReason, SseEmitter
from tests.support.board import Board, by_header

LOGGER = "flask_sse_emitters.emitter"


def fields(record: logging.LogRecord, *names: str) -> list[Any]:
    return [getattr(record, name) for name in names]


def records(caplog: pytest.LogCaptureFixture, begin: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message.startswith(begin)]


def test_log_of_streams_has_reader_channels_address_seconds_and_events(caplog: pytest.LogCaptureFixture) -> None:
    board = Board(by_header)
    caplog.set_level(logging.DEBUG, LOGGER)
    board.publish("a", "missed", "missed")
    with board.open("a", "b", user="ann", last="0-0") as stream:
        list(stream.ready())
        board.publish("b", "live")
        list(stream.ready())
        board.sse.disconnect("ann")
    [begun], [ended] = records(caplog, "a stream begins"), records(caplog, "a stream ended")
    assert fields(begun, "channels", "identity", "address") == [["a", "b"], "ann", "127.0.0.1"]
    assert "channels=a,b identity=ann address=127.0.0.1" in begun.message
    assert fields(ended, "channels", "identity", "dropped") == [["a", "b"], "ann", 0]
    assert ended.__dict__["seconds"] >= 0
    assert ended.__dict__["events"] == 3
    assert "channels=a,b identity=ann, after " in ended.message
    assert " s, 3 events, 0 of them dropped)" in ended.message


def test_log_of_streams_names_public_channels_and_none_of_views(caplog: pytest.LogCaptureFixture) -> None:
    public = Board(None)
    public.sse.channel("news", public=True)
    public.app.add_url_rule("/mine", view_func=SseEmitter)
    caplog.set_level(logging.DEBUG, LOGGER)
    with public.open("news"):
        public.emitters[0].complete()
    with public.get("/mine"):
        public.emitters[1].complete()
    found = [fields(record, "channels", "identity", "reason") for record in records(caplog, "a stream ended")]
    assert found == [[["news"], None, "completed"], [[], None, "completed"]]


def test_log_of_a_slow_client_is_info_and_no_other_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    emitter, other = SseEmitter(max_pending=1), SseEmitter()
    while emitter.try_send("x"):
        pass
    other.complete()
    assert emitter.close_reason is CloseReason.OVERFLOW
    [record] = caplog.records
    assert (record.levelname, record.__dict__["reason"]) == ("INFO", "overflow")


@pytest.mark.parametrize(("streams", "says"), [(1, "1 stream ends within"), (2, "2 streams end within")])
def test_log_of_a_worker_that_stops_counts_its_streams(
    streams: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_emitters.streams")
    board = Board(SSE_DRAIN_SECONDS=0.01)
    with ExitStack() as stack:
        for _ in range(streams):
            stack.enter_context(board.open("a"))
        board.sse.shutdown()
    assert f"the worker stops: {says} 0.01 s" in caplog.messages
