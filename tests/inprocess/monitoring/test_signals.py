"""The signals: when they are sent, with which values, and what a receiver may do."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask, current_app, has_app_context

from flask_sse_emitters import CloseReason, SseEmitter, signals
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board
from tests.support.waiting import until

#: Signals as they were sent: name and values.
Sent = list[tuple[str, dict[str, Any]]]


@contextmanager
def listening(app: Flask) -> Iterator[Sent]:
    """Record every signal of the app."""
    sent: Sent = []
    with ExitStack() as stack:
        for name in signals.__all__:
            signal = getattr(signals, name)

            def note(_: Flask, called: str = signal.name, **values: Any) -> None:
                sent.append((called, values))

            stack.enter_context(signal.connected_to(note, app))
        yield sent


def test_signals_are_sent_once_each_with_the_app_as_sender(board: Board) -> None:
    with listening(board.app) as sent:
        event_id = board.sse.publish("a", "x", event="created")
        assert [name for name, _ in sent] == ["event-published"]
        values = sent[0][1]
        assert (values["channel"], values["id"], values["event"]) == ("a", event_id, "created")
        assert (values["size"], values["seconds"] > 0) == (len(b"event: created\ndata: x\n\n"), True)
        with board.open("a", last="old") as stream:
            stream.ready()
            until(lambda: len(sent) == 3, "the gap")
            assert [name for name, _ in sent[1:]] == ["emitter-opened", "gap-sent"]
            assert sent[1][1]["emitter"] is sent[2][1]["emitter"]
            assert sent[2][1]["requested"] == "old"
        until(lambda: len(sent) == 4, "the end")
        name, values = sent[3]
        assert (name, values["emitter"] is sent[1][1]["emitter"]) == ("emitter-closed", True)
        assert values["reason"] is CloseReason.DISCONNECTED
        assert isinstance(values["error"], ConnectionAbortedError)


def test_signal_gap_sent_names_the_emitter_of_a_refused_stream_too() -> None:
    board = Board(SSE_MAX_CLIENTS=1)
    with board.open("a"), listening(board.app) as sent:
        assert [event.event for event in board.replayed("a", last="old")] == ["gap"]
        until(lambda: sent, "the signal")
    name, values = sent[0]
    assert (name, values["requested"], values["emitter"].close_reason) == ("gap-sent", "old", CloseReason.ERROR)
    refused = weakref.ref(values.pop("emitter"))
    sent.clear()
    until(lambda: gc.collect() is not None and refused() is None, "the app to forget the emitter")


def test_signal_event_published_is_not_sent_for_a_repeated_key(board: Board) -> None:
    with listening(board.app) as sent:
        assert board.sse.publish("a", "x", key="k") == board.sse.publish("a", "x", key="k")
    assert [name for name, _ in sent] == ["event-published"]
    assert (board.sse.stats()["published"], board.sse.stats()["publish"]["count"]) == (1, 2)


def test_signal_emitter_closed_is_sent_in_the_background_and_may_block(board: Board) -> None:
    emitter = SseEmitter()
    board.app.add_url_rule("/emitter", view_func=lambda: emitter)
    blocked, seen = threading.Event(), threading.Event()

    def note(sender: Flask, **_: Any) -> None:
        assert has_app_context()
        assert current_app._get_current_object() is sender  # type: ignore[attr-defined]
        blocked.wait(60)
        seen.set()

    with signals.emitter_closed.connected_to(note, board.app):
        with open_stream(board.client, "/emitter") as stream:
            emitter.complete()
            stream.ready()
        assert not seen.is_set()
        blocked.set()
        until(seen.is_set, "the receiver")


def test_signal_receiver_that_raises_is_logged_and_stops_no_other(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:

    def fail(_: Flask, **values: Any) -> None:
        raise ValueError("broken")

    with signals.event_published.connected_to(fail, board.app), listening(board.app) as sent:
        [published] = board.publish("a", "x")
    assert [values["id"] for _, values in sent] == [published]
    assert "broken" in caplog.text
    assert "event-published" in caplog.text


def test_signal_that_is_muted_or_of_another_app_is_not_sent(board: Board) -> None:
    with listening(board.app) as sent:
        Board().publish("a", "x")
        with signals.event_published.muted():
            board.publish("a", "x")
    assert sent == []
