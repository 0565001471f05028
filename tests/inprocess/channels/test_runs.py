"""Runs: what an iterable yields is published in the background, whoever reads it, and then the channel ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import g, request

from flask_sse_emitters import Event, InvalidEvent, Run, RunExists, SseEmitter
from flask_sse_emitters.signals import event_published
from flask_sse_emitters.testing import decode, open_stream
from tests.support.board import Board, texts
from tests.support.held_items import HeldItems, await_over
from tests.support.waiting import PATIENCE, until


def all_of(board: Board, name: str) -> list[Event]:
    """Read what a channel that is complete keeps."""
    events = decode(board.get(f"/events/{name}").data)
    assert events.pop() == Event("", event="~end", id="~end")
    return events


def test_run_publishes_each_item_and_then_ends_the_channel(board: Board) -> None:
    items = ["text", {"x": 1}, Event("e", event="named"), SseEmitter.event().data("built").name("b")]
    await_over(board.sse.channel("a").publish_from(items, done=Event("that was all", event="done")))
    assert [(event.event, event.data) for event in all_of(board, "a")] == [
        (None, "text"),
        (None, '{"x": 1}'),
        ("named", "e"),
        ("b", "built"),
        ("done", "that was all"),
    ]
    assert board.sse.channel("a").is_complete


def test_run_without_items_ends_the_channel(board: Board) -> None:
    await_over(board.sse.channel("a").publish_from([]))
    assert board.get("/events/a").status_code == 204


def test_run_goes_on_without_a_reader_and_gives_later_ones_all(board: Board) -> None:
    """In a run a client without an id begins with the first event: the one that asked, a reload, a second tab."""
    held = HeldItems()
    run = board.sse.channel("a").publish_from(held.items(), every=0)
    held.let(2)
    until(lambda: board.sse.position("a").endswith("-2"), "two items")
    with board.open("a") as first, open_stream(board.client, "/events/a?since=now") as now:
        assert texts(first.ready()) == ["1", "2"]
        held.let(1)
        until(lambda: board.sse.position("a").endswith("-3"), "the third")
        assert texts(first.ready()) == texts(now.ready()) == ["3"]
        assert run.is_running
        run.cancel()
        assert texts(first.ready()) == texts(now.ready()) == [""]


def test_run_publishes_what_comes_quickly_in_one_step(board: Board) -> None:
    await_over(board.sse.channel("a").publish_from(range(100), done="done", every=PATIENCE))
    assert len(all_of(board, "a")) == 101
    assert board.sse.stats()["publish"]["count"] == 1
    assert board.sse.stats()["published"] == 101


def test_run_of_many_items_is_published_in_bounded_steps(board: Board) -> None:
    board.sse.channel("a", history=10_000)
    await_over(board.sse.channel("a").publish_from((str(number) for number in range(5_000)), every=PATIENCE))
    assert texts(all_of(board, "a")) == [str(number) for number in range(5_000)]
    assert board.sse.stats()["publish"]["count"] >= 5_000 / 256


def test_run_that_is_cancelled_publishes_nothing_more_and_closes_its_items(board: Board) -> None:
    held = HeldItems()
    with board.open("a") as stream:
        run = board.sse.channel("a").publish_from(held.items(), done="done", every=0)
        held.let(1)
        until(lambda: board.sse.position("a").endswith("-1"), "the first")
        run.cancel()
        assert board.sse.channel("a").is_complete
        assert run.is_running, "the iterable is not at its yield yet"
        held.let(1)
        await_over(run)
        assert held.closed.is_set()
        assert texts(stream.ready()) == ["1", ""]
    assert texts(all_of(board, "a")) == ["1"]
    run.cancel()  # again


def test_run_that_the_channel_cancels_ends(board: Board) -> None:
    held = HeldItems()
    channel = board.sse.channel("a")
    assert channel.cancel() is False
    run = channel.publish_from(held.items(), done="done", every=0)
    assert channel.cancel() is True
    held.let(1)
    await_over(run)
    assert held.closed.is_set()
    assert channel.cancel() is False
    assert board.get("/events/a").status_code == 204


def test_run_whose_channel_is_completed_by_another_publishes_nothing_more(board: Board) -> None:
    held = HeldItems()
    run = board.sse.channel("a").publish_from(held.items(), done="done", every=0)
    board.sse.channel("a").complete("by another")
    held.let(1_000)
    await_over(run)
    assert texts(all_of(board, "a")) == ["by another"]


def test_run_of_a_channel_that_has_one_is_refused(board: Board) -> None:
    held = HeldItems()
    run = board.sse.channel("a").publish_from(held.items())
    with pytest.raises(RunExists, match="a run publishes to 'a' already"):
        board.sse.channel("a").publish_from(["x"])
    await_over(board.sse.channel("b").publish_from(["x"]))
    run.cancel()
    held.let(1)
    await_over(board.sse.channel("a").publish_from(["again"]))
    assert texts(all_of(board, "a")) == ["again"]


def test_run_of_a_complete_channel_begins_it_anew(board: Board) -> None:
    board.sse.publish("a", "old", last=True)
    held = HeldItems()
    run = board.sse.channel("a").publish_from(held.items(), every=0)
    assert not board.sse.channel("a").is_complete
    with board.open("a") as plain, board.open("a", last="~end") as back:
        held.let(1)
        until(lambda: board.sse.position("a").endswith("-3"), "the item")
        assert texts(plain.ready()) == texts(back.ready()) == ["1"]
    run.cancel()


@pytest.mark.parametrize("on_error", ["none", "an event", "nothing", "raises"])
def test_run_that_raises_ends_with_an_event_and_is_logged(
    board: Board, caplog: pytest.LogCaptureFixture, on_error: str
) -> None:
    errors: list[BaseException] = []

    def items() -> Iterator[str]:
        yield "1"
        raise LookupError("no more tokens")

    def handle(error: BaseException) -> Any:
        errors.append(error)
        if on_error == "raises":
            raise ValueError("of on_error")
        return Event(str(error), event="failed") if on_error == "an event" else None

    run = board.sse.channel("a").publish_from(items(), done="done", on_error=None if on_error == "none" else handle)
    await_over(run)
    default = ("interrupted", '{"reason": "error"}')
    expected = ("failed", "no more tokens") if on_error == "an event" else default
    assert [(event.event, event.data) for event in all_of(board, "a")] == [(None, "1"), expected]
    assert "LookupError: no more tokens" in caplog.text
    assert [str(error) for error in errors] == ([] if on_error == "none" else ["no more tokens"])


def test_run_with_an_item_that_cannot_be_published_fails(board: Board) -> None:
    held = HeldItems()

    def items() -> Iterator[Any]:
        yield "1"
        yield object()
        yield from held.items()

    await_over(board.sse.channel("a").publish_from(items()))
    assert [event.event for event in all_of(board, "a")] == [None, "interrupted"]


@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}, Event("x"), 7, None])
def test_run_of_what_is_no_iterable_of_items_is_refused(board: Board, items: Any) -> None:
    with pytest.raises(TypeError, match="publish_from\\(\\) takes an iterable"):
        board.sse.channel("a").publish_from(items)


def test_run_with_an_invalid_argument_leaves_the_channel_free(board: Board) -> None:
    channel = board.sse.channel("a")
    with pytest.raises(InvalidEvent):
        channel.publish_from([], done=Event("x", id=1))
    with pytest.raises(ValueError, match="every must be seconds"):
        channel.publish_from([], every=-1)
    await_over(channel.publish_from(["x"]))


def test_run_shows_in_its_channel_until_that_ends(board: Board) -> None:
    """A view that resumes an answer can tell one that goes on, one that is whole, and one that nobody knows."""
    held = HeldItems()
    channel = board.sse.channel("a")

    def shows() -> tuple[bool, bool]:
        return channel.is_running, channel.is_complete

    assert shows() == (False, False)
    run = channel.publish_from(held.items(), every=0)
    assert shows() == (True, False)
    held.let(1)
    until(lambda: channel.position().endswith("-1"), "an item")
    assert shows() == (True, False)
    run.cancel()
    assert shows() == (False, True)
    held.let(1)
    await_over(run)
    board.sse.publish("a", "more, of no run")
    assert shows() == (False, False)


def test_run_has_the_contexts_of_its_request_and_tears_them_down(board: Board) -> None:
    torn_down: list[str] = []
    runs: list[Run] = []

    @board.app.teardown_request
    def note_request(_error: object) -> None:
        torn_down.append(f"request of {g.get('who', 'the view')}")

    @board.app.teardown_appcontext
    def note_app(_error: object) -> None:
        torn_down.append(f"app of {g.get('who', 'the view')}")

    @board.app.get("/ask")
    def ask() -> Any:
        g.of_the_view = True
        channel = board.sse.channel("answer")

        def items() -> Iterator[str]:
            assert "of_the_view" not in g
            g.who = "the run"
            for word in request.args["words"].split():
                yield word + board.app.name[:0]

        runs.append(channel.publish_from(items(), done="[DONE]"))
        return channel.subscribe(), 200, {"X-Mine": "1"}

    answer = board.get("/ask?words=a+b+c")
    assert answer.headers["X-Mine"] == "1"
    assert texts(decode(answer.data)) == ["a", "b", "c", "[DONE]", ""]
    await_over(runs[0])
    assert sorted(torn_down) == ["app of the run", "app of the view", "request of the run", "request of the view"]


def test_run_outside_a_request_has_the_context_of_its_app(board: Board) -> None:
    def items() -> Iterator[str]:
        from flask import current_app

        yield current_app.name

    await_over(board.sse.channel("a").publish_from(items()))
    assert texts(all_of(board, "a")) == [board.app.name]


def test_run_of_an_app_that_closes_says_that_it_was_interrupted(board: Board) -> None:
    names: list[str | None] = []

    def note(_app: object, event: str | None, **_about: object) -> None:
        names.append(event)

    event_published.connect(note, board.app)
    held = HeldItems()
    run = board.sse.channel("a").publish_from(held.items(), done="done", every=0)
    held.let(1)
    until(lambda: names == ["message"], "the first")
    board.sse.close()
    assert names == ["message", "interrupted"]
    held.let(1)
    await_over(run)
    assert held.closed.is_set()
