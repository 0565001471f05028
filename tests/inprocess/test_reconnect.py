"""Reconnecting: a client gets what it has missed, once and in order, and then what is new."""

from __future__ import annotations

from tests.support.board import Board, texts


def test_reconnect_replays_exactly_what_was_missed_and_then_live_events(board: Board) -> None:
    ids = board.publish("a", 1, 2, 3, 4)
    with board.open("a", last=ids[1]) as stream:
        ids += board.publish("a", 5)
        assert [(event.data, event.id) for event in stream.ready()] == list(zip("345", ids[2:], strict=True))
        ids += board.publish("a", 6)
        assert [event.id for event in stream.ready()] == ids[5:]


def test_reconnect_with_the_newest_id_replays_nothing(board: Board) -> None:
    *_, last = board.publish("a", 1, 2)
    with board.open("a", last=last) as stream:
        assert stream.ready() == []
        board.publish("a", 3)
        assert texts(stream.ready()) == ["3"]


def test_connect_without_an_id_gets_new_events_alone(board: Board) -> None:
    board.publish("a", 1, 2)
    with board.open("a") as stream:
        assert stream.ready() == []
    assert board.replayed("a", last="") == []


def test_reconnect_before_the_first_event_replays_what_was_missed(board: Board) -> None:
    """The stream begins with a block that has an id alone: WHATWG HTML, 9.2.6, has clients remember it."""
    board.publish("a", 1)
    board.publish("b", 1, 2)
    with board.client.get("/events?channel=a&channel=b") as response:
        first = next(response.iter_encoded())
    block = first.decode().split("\n\n")[1]
    assert block.startswith("id: ")
    assert "\n" not in block
    board.publish("a", 2)
    board.publish("b", 3)
    assert texts(board.replayed("a", "b", last=block.removeprefix("id: "))) == ["2", "3"]


def test_reconnect_with_any_id_of_a_stream_replays_exactly_what_follows(board: Board) -> None:
    names = ["a", "b", "c"]
    with board.open(*names) as stream:
        for number in range(30):
            board.publish(names[number * 7 % 3], number)
        events = stream.ready()
    assert len(events) == 30
    for index, event in enumerate(events):
        assert texts(board.replayed(*names, last=str(event.id))) == texts(events)[index + 1 :]
