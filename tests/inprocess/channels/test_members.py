"""Channels that know who reads them: what an app and its readers see of that, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import request

from flask_sse_emitters import SSE, Event, SseEmitter
from flask_sse_emitters.testing import OpenStream, open_stream
from tests.apps.own_broker import OwnBroker
from tests.support.board import Board, by_header
from tests.support.told import told
from tests.support.waiting import until


def await_told(stream: OpenStream, *expected: str) -> None:
    """Wait until the stream was told of these, and nothing else."""
    events: list[Event] = []

    def has_all() -> bool:
        events.extend(stream.ready())
        return len(events) >= len(expected)

    until(has_all, f"{expected}")
    assert told(events) == [*expected]


@pytest.fixture
def room() -> Iterator[Board]:
    """An app whose grace is a tenth of a second."""
    board = Board(by_header, SSE_RETRY=50)
    board.sse.channels("room/*", members=True)
    yield board
    board.sse.close()


def test_members_are_those_with_a_stream_sorted_and_each_once(room: Board) -> None:
    channel = room.sse.channel("room/1")
    with ExitStack() as stack:
        first = stack.enter_context(room.open("room/1", user="bob"))
        await_told(first, "+bob")
        for user in ("ann", "ann", "bob"):
            stack.enter_context(room.open("room/1", "room/2", user=user))
        until(lambda: channel.members() == ["ann", "bob"], "both")
        until(lambda: room.sse.channel("room/2").members() == ["ann", "bob"], "both in the other room")
        assert room.sse.channel("room/3").members() == []
        await_told(first, "+ann")
    until(lambda: not channel.members(), "an empty room")


def test_member_leaves_once_the_last_stream_is_over(room: Board) -> None:
    with room.open("room/1", user="bob") as stream:
        with room.open("room/1", user="ann"):
            with room.open("room/1", user="ann"):
                await_told(stream, "+bob", "+ann")
            await_told_nothing_but_joins_of(room, stream, "cay")
            assert room.sse.channel("room/1").members() == ["ann", "bob", "cay"]
        until(lambda: room.sse.channel("room/1").members() == ["bob"], "both have left")


def await_told_nothing_but_joins_of(board: Board, stream: OpenStream, user: str) -> None:
    """Let somebody else come: what was to be told before that was told."""
    with board.open("room/1", user=user):
        await_told(stream, f"+{user}")


def test_member_events_have_ids_and_are_replayed(room: Board) -> None:
    position = room.sse.position("room/1")
    with room.open("room/1", user="ann"):
        until(lambda: room.sse.channel("room/1").members(), "ann")
    until(lambda: not room.sse.channel("room/1").members(), "her leave")
    room.publish("room/1", "between")
    with room.open("room/1", user="bob", last=position) as stream:
        events = list(stream.ready())
    assert [(event.event, event.data) for event in events[:3]] == [
        ("join", '{"identity": "ann"}'),
        ("leave", '{"identity": "ann"}'),
        (None, "between"),
    ]
    assert [str(event.id).rpartition("-")[2] for event in events[:3]] == ["1", "2", "3"]


def test_member_that_reconnects_within_the_grace_shows_nothing() -> None:
    board = Board(by_header, SSE_RETRY=60_000)
    board.sse.channel("room", members=True)
    with board.open("room", user="bob") as stream:
        for _ in range(3):
            with board.open("room", user="ann"):
                until(lambda: board.sse.channel("room").members() == ["ann", "bob"], "ann")
        board.sse.disconnect("ann")
        with board.open("room", user="cay"):
            await_told(stream, "+bob", "+ann", "+cay")
        assert board.sse.channel("room").members() == ["ann", "bob", "cay"]
    board.sse.close()


def test_member_who_is_disconnected_leaves(room: Board) -> None:
    with room.open("room/1", user="bob") as stream, room.open("room/1", user="ann"):
        await_told(stream, "+bob", "+ann")
        room.sse.disconnect("ann")
        await_told(stream, "-ann")
        assert room.sse.channel("room/1").members() == ["bob"]


def test_member_is_no_one_whose_stream_does_not_begin(room: Board) -> None:
    """One beyond a limit, one that no view returns, and a HEAD."""
    room.sse.channel("room/1", max_clients=1)
    with room.open("room/1", user="bob") as stream:
        await_told(stream, "+bob")
        room.get("/events/room/1", User="refused")
        room.client.head("/events/room/1", headers={"User": "head"})
        forgotten = room.sse.channel("room/1").subscribe(identity="forgotten")
        room.sse.channel("room/1").publish("after that")
        assert [event.event for event in stream.ready()] == [None]
        forgotten.complete()
        assert room.sse.channel("room/1").members() == ["bob"]


def test_member_is_who_the_view_says_and_no_reader_without_identity() -> None:
    board = Board(lambda _: True, SSE_RETRY=50)
    channel = board.sse.channel("room", members=True)

    @board.app.get("/mine")
    def mine() -> SseEmitter:
        return channel.subscribe(identity=request.args["user"])

    with board.open("room") as anonymous, open_stream(board.client, "/mine?user=ann"):
        await_told(anonymous, "+ann")
        assert channel.members() == ["ann"]
    board.sse.close()


def test_member_of_a_channel_is_whom_the_rule_names_for_that_channel() -> None:
    """A public channel asks no rule: who reads it is not told because of another channel of the stream."""
    board = Board(lambda channel: "ann" if channel == "room/a" else f"ann as in {channel}", SSE_RETRY=50)
    board.sse.channels("room/*", members=True)
    board.sse.channel("room/public", public=True)
    with board.open("room/a", "room/b", "room/public"):
        until(lambda: board.sse.channel("room/a").members() == ["ann"], "ann")
        until(lambda: board.sse.channel("room/b").members() == ["ann as in room/b"], "her other name")
        assert board.sse.channel("room/public").members() == []
    board.sse.close()


def test_members_of_a_channel_without_them_is_an_error(board: Board) -> None:
    with pytest.raises(RuntimeError, match=r"'a' has no members: say sse.channel\('a', members=True\)"):
        board.sse.channel("a").members()
    with pytest.raises(TypeError, match="members is True or False, not 1"):
        board.sse.channel("a", members=1)  # type: ignore[arg-type]
    board.sse.channel("a", members=False)
    with pytest.raises(ValueError, match="members=True contradicts"):
        board.sse.channel("a", members=True)


def test_channel_without_members_tells_nothing(room: Board) -> None:
    with (
        room.open("hall", user="ann"),
        room.open("hall", user="bob") as stream,
        room.open("room/1", user="bob") as other,
    ):
        await_told(other, "+bob")
        assert list(stream.ready()) == []


def test_complete_channel_is_not_begun_anew_by_a_leave(room: Board) -> None:
    channel = room.sse.channel("room/1")
    with room.open("room/1", user="ann"):
        until(channel.members, "ann")
        channel.complete()
    until(lambda: not channel.members(), "her leave")
    assert channel.is_complete


def test_members_endpoint_answers_who_may_read(room: Board) -> None:
    with room.open("room/1", user="누구"):
        until(room.sse.channel("room/1").members, "the reader")
        answer = room.get("/events/room/1/members", User="ann")
        assert (answer.status_code, answer.json) == (200, {"members": ["누구"]})
        assert answer.headers["Cache-Control"] == "no-store"
        assert room.get("/events/room/1/members").status_code == 403


def test_members_endpoint_refuses_what_has_none(room: Board) -> None:
    room.sse.channel("open", public=True)
    for channel in ("hall", "open", "~"):
        assert room.get(f"/events/{channel}/members", User="ann").status_code == 404
    assert room.get("/events/room/1/members?channel=room/2", User="ann").status_code == 400
    assert room.get("/events/with%20space/members", User="ann").status_code == 400
    assert room.client.options("/events/room/1/members").headers["Allow"] == "GET, HEAD, OPTIONS"


def test_channel_named_members_is_read_by_the_query_and_posted_to() -> None:
    board = Board(by_header)
    board.sse.publisher(by_header)
    with board.open("hall/members", user="ann") as stream:
        posted = board.client.post("/events/hall/members", json="x", headers={"User": "ann"})
        assert posted.status_code == 201
        assert [event.data for event in stream.ready()] == ["x"]


def test_members_of_a_broker_that_knows_none_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_emitters.server.app_state.broker_of", lambda _: OwnBroker("own://"))
    board = Board(by_header)
    channel = board.sse.channel("room", members=True)
    calls: list[Any] = [channel.members, lambda: channel.subscribe(identity="ann")]
    for call in calls:
        with board.app.test_request_context(), pytest.raises(NotImplementedError, match="OwnBroker knows no members"):
            call()
    assert isinstance(board.sse, SSE)
