"""Channels that end: what their clients get, who comes later, and who has it all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from flask_sse_emitters import CloseReason, EmitterClosed, Event, InvalidEvent, SseEmitters
from flask_sse_emitters.testing import decode, open_stream, published
from tests.support.board import Board, gap_of, journal_of, moved, texts
from tests.support.waiting import until

#: What a client gets last of a stream that is over for good.
END = Event("", event="~end", id="~end")


def all_of(board: Board, *channels: str, last: str | None = None) -> list[Event]:
    """Read a stream to its end, which comes for good."""
    query = "&".join(f"channel={channel}" for channel in channels)
    answer = board.get(f"/events?{query}", **({} if last is None else {"Last-Event-ID": last}))
    assert answer.status_code == 200
    assert answer.data.endswith(b"event: ~end\nid: ~end\ndata:\n\n")
    events = decode(answer.data)
    assert events.pop() == END
    return events


def status(board: Board, *channels: str, last: str | None = None) -> int:
    """Return the status of a request that has no stream."""
    query = "&".join(f"channel={channel}" for channel in channels)
    answer = board.get(f"/events?{query}", **({} if last is None else {"Last-Event-ID": last}))
    assert answer.data == b""
    return int(answer.status_code)


def complete_by_last(board: Board, name: str) -> str:
    return board.sse.publish(name, "last", last=True)


def complete_with_event(board: Board, name: str) -> str:
    return board.sse.channel(name).complete(Event("last"))


def complete_alone(board: Board, name: str) -> str:
    board.publish(name, "last")
    return moved(board.sse.channel(name).complete(), -1)


@pytest.mark.parametrize("complete", [complete_by_last, complete_with_event, complete_alone])
def test_channel_end_comes_after_all_events_and_ends_streams_for_good(board: Board, complete: Any) -> None:
    with board.open("a") as stream, board.open("a", last="") as other:
        [first] = board.publish("a", "first")
        last = complete(board, "a")
        expected = [Event("first", id=first), Event("last", id=last), END]
        assert stream.ready() == other.ready() == expected
    assert [emitter.close_reason for emitter in board.emitters] == [CloseReason.COMPLETED] * 2
    assert board.sse.channel("a").is_complete


def test_channel_end_runs_the_callbacks_of_its_streams(board: Board) -> None:
    with board.open("a") as stream:
        journal = journal_of(board.emitters[0])
        board.sse.channel("a").complete()
        assert stream.ready() == [END]
        until(lambda: journal == ["completion"], "the callback")


def test_channel_that_is_complete_gives_what_is_kept_and_the_end(board: Board) -> None:
    first, *_ = board.publish("a", 1, 2, 3)
    board.sse.channel("a").complete()
    assert texts(all_of(board, "a")) == ["1", "2", "3"]
    assert texts(all_of(board, "a", last=first)) == ["2", "3"]
    assert gap_of(all_of(board, "a", last="x-1"))["requested"] == "x-1"


def test_channel_client_that_has_all_of_a_complete_channel_gets_204(board: Board) -> None:
    last = board.publish("a", 1, 2)[-1]
    end = board.sse.channel("a").complete()
    assert moved(last, 1) == end == board.sse.position("a")
    assert [status(board, "a", last=each) for each in (last, end, "~end")] == [204] * 3
    assert board.sse.stats()["opened"] == 0


def test_channel_that_is_complete_and_keeps_nothing_gives_everyone_204(board: Board) -> None:
    board.sse.channel("a", history=0)
    [event_id] = board.publish("a", 1)
    board.sse.channel("a").complete()
    assert [status(board, "a", last=each) for each in (None, event_id, "x-1", "~end")] == [204] * 4


@pytest.mark.parametrize("how", ["live", "replayed", "replayed from the cache"])
def test_channel_end_changes_no_id_of_a_stream_that_goes_on(how: str, board: Board) -> None:
    """A client tells by the part that changes which channel an event is of, as the browser module does."""
    start = board.sse.position("a", "b")
    with board.open("a", "b", last=start) as stream:
        board.publish("a", 1)
        board.sse.channel("a").complete()
        board.publish("b", 2, 3)
        board.sse.publish("a", 4)
        board.publish("b", 5)
        if how == "live":
            found = stream.ready()
    for _ in range(("live", "replayed", "replayed from the cache").index(how)):
        found = board.replayed("a", "b", last=start)
    assert texts(found) == ["1", "2", "3", "4", "5"]
    ids = [start.split(","), *(str(event.id).split(",") for event in found)]
    changes = [[one != two for one, two in zip(*pair, strict=True)] for pair in pairwise(ids)]
    assert [each.index(True) for each in changes if sum(each) == 1] == [0, 1, 1, 0, 1]


def test_channel_end_without_any_event_is_a_204(board: Board) -> None:
    board.sse.channel("a").complete()
    assert status(board, "a") == 204


def test_channel_end_id_of_an_unknown_channel_is_a_204(board: Board) -> None:
    assert status(board, "unknown", last="~end") == 204
    assert status(board, "unknown", "another", last="~end") == 204


def test_channel_that_is_completed_twice_has_one_end(board: Board) -> None:
    board.publish("a", 1)
    assert board.sse.channel("a").complete() == board.sse.channel("a").complete()
    assert texts(all_of(board, "a")) == ["1"]


def test_channel_that_goes_on_begins_anew_for_clients_without_an_id(board: Board) -> None:
    old = board.publish("a", 1, 2)
    board.sse.channel("a").complete()
    [new] = board.publish("a", "new")
    assert not board.sse.channel("a").is_complete
    assert new.split("-")[0] != old[0].split("-")[0]
    with board.open("a") as plain, board.open("a", last="~end") as back:
        assert plain.ready() == back.ready() == []
        board.publish("a", "more")
        assert texts(plain.ready()) == texts(back.ready()) == ["more"]
    with open_stream(board.client, "/events/a?since=first") as stream:
        assert texts(stream.ready()) == ["new", "more"]


def test_channel_client_from_before_an_end_gets_the_rest_and_the_end(board: Board) -> None:
    old = board.publish("a", 1, 2, 3)
    end = board.sse.channel("a").complete()
    board.publish("a", "new")
    assert texts(all_of(board, "a", last=old[0])) == ["2", "3"]
    assert texts(all_of(board, "a", last=old[-1])) == []
    assert texts(board.replayed("a", last=end)) == ["new"], "it has the end"


def test_channel_end_that_is_not_kept_is_no_gap_for_who_lacks_it_alone(board: Board) -> None:
    board.sse.channel("a", history=1)
    old = board.publish("a", 1, 2)
    board.sse.channel("a").complete()
    board.publish("a", "new")
    assert all_of(board, "a", last=old[1]) == [], "it has all of its epoch, which has ended"
    beside = board.sse.position("b")
    assert texts(board.replayed("a", "b", last=f"{old[1]},{beside}")) == ["new"]
    gap, *kept = board.replayed("a", last=old[0])
    assert gap_of([gap])["requested"] == old[0]
    assert texts(kept) == ["new"]


def test_channel_end_that_expired_is_no_gap_beside_an_open_channel(board: Board) -> None:
    board.sse.channel("a", history_seconds=0.05)
    beside = board.sse.position("b")
    with board.open("a", "b"):  # so the channel is not forgotten
        old = board.publish("a", 1, 2)
        board.sse.channel("a").complete()
        until(lambda: board.get("/events/a").status_code == 204, "nothing to be kept")
        board.publish("b", "b1")
        assert texts(board.replayed("a", "b", last=f"{old[1]},{beside}")) == ["b1"]
        gap, *kept = board.replayed("a", "b", last=f"{old[0]},{beside}")
        assert gap_of([gap])["requested"] == f"{old[0]},{beside}"
        assert texts(kept) == ["b1"]


def test_channel_slow_client_gets_an_end_that_more_events_follow(board: Board) -> None:
    """Nothing is read until the channel has gone on: what follows its end is not for this client."""
    big = "x" * 100_000
    with board.open("a", last=moved(board.publish("a", big)[0], -1)) as stream:
        board.publish("a", big, big)
        board.sse.channel("a").complete()
        board.publish("a", "new")
        events = stream.ready()
    assert events == [*events[:3], END]
    assert texts(events[:3]) == [big] * 3


def test_channels_of_one_stream_end_it_once_all_have_ended(board: Board) -> None:
    with board.open("a", "b") as stream:
        board.publish("b", "b1")
        board.sse.publish("a", "a1", last=True)
        assert texts(stream.ready()) == ["b1", "a1"]
        board.publish("b", "b2")
        board.publish("a", "a2")  # it begins anew
        board.sse.channel("b").complete()
        assert texts(stream.ready()) == ["b2", "a2"]
        board.sse.publish("a", "a3", last=True)
        assert texts(stream.ready()) == ["a3", ""]
        assert not board.emitters[0].is_open


def test_channels_of_one_stream_replay_up_to_all_of_their_ends(board: Board) -> None:
    position = board.sse.position("a", "b")
    for name in "ab":
        board.publish(name, f"{name}1")
        board.sse.publish(name, f"{name}2", last=True)
    assert sorted(texts(all_of(board, "a", "b", last=position))) == ["a1", "a2", "b1", "b2"]
    assert sorted(texts(all_of(board, "a", "b"))) == ["a1", "a2", "b1", "b2"]
    end = str(all_of(board, "a", "b")[-1].id)
    assert [status(board, "a", "b", last=each) for each in (end, board.sse.position("a", "b"), "~end")] == [204] * 3


def test_channels_of_which_one_goes_on_keep_the_stream_open(board: Board) -> None:
    board.sse.publish("a", "a1", last=True)
    board.publish("b", "b0")
    with board.open("a", "b") as new, board.open("a", "b", last="~end") as back:
        assert texts(new.ready()) == ["a1"]
        assert back.ready() == [], "it has the end of a already"
        board.publish("b", "b1")
        assert texts(new.ready()) == texts(back.ready()) == ["b1"]
        board.sse.channel("b").complete()
        assert texts(new.ready()) == texts(back.ready()) == [""]


def test_channel_end_is_no_event_of_any_figure(board: Board) -> None:
    with board.open("a", "b") as stream, published(board.sse, "a") as events:
        board.publish("a", 1)
        board.sse.channel("a").complete()
        assert board.emitters[0].pending == 1
        assert texts(stream.ready()) == ["1"]
        assert board.sse.stats()["events"] == {"a": 1, "b": 0}
    assert texts(events) == ["1"]
    stats = board.sse.stats()
    assert (stats["published"], stats["deliveries"], stats["replayed"]) == (1, 1, 0)
    all_of(board, "a")
    assert board.sse.stats()["replayed"] == 1


def test_channel_end_after_a_repeated_key_ends_nothing_new(board: Board) -> None:
    first = board.sse.publish("a", "x", key="k", last=True)
    assert board.sse.publish("a", "x", key="k", last=True) == first
    board.publish("a", "new")
    assert board.sse.publish("a", "x", key="k", last=True) == first
    assert not board.sse.channel("a").is_complete


def test_channel_event_with_the_name_of_the_end_is_refused(board: Board) -> None:
    for use in (
        lambda: board.sse.publish("a", "x", event="~end"),
        lambda: board.sse.channel("a").complete(Event("x", event="~end")),
        lambda: board.sse.publish_many([("a", Event("x", event="~end"))]),
    ):
        with pytest.raises(InvalidEvent, match="'~end' is kept"):
            use()
    assert board.sse.position("a").endswith("-0")


def test_channel_end_ends_a_stream_that_is_in_a_list_besides(board: Board) -> None:
    """A list of the app's own is no channel that could go on; what it was sent before comes before the end."""
    own = SseEmitters()

    @board.app.get("/mine")
    def mine() -> Any:
        return own.add(board.sse.channel("a").subscribe())

    with open_stream(board.client, "/mine") as stream:
        own.send("hello")
        board.sse.publish("a", "x", last=True)
        assert texts(stream.ready()) == ["hello", "x", ""]
    assert len(own) == 0


@pytest.mark.parametrize("result", ["bare", "with a status", "with headers", "a response"])
def test_channel_view_of_a_client_that_has_all_becomes_a_204(board: Board, result: str) -> None:
    emitters: list[Any] = []

    @board.app.get("/mine")
    def mine() -> Any:
        emitter = board.sse.channel("a", max_clients=1).subscribe(identity="ann")
        emitters.append(emitter)
        results: dict[str, Callable[[], Any]] = {
            "bare": lambda: emitter,
            "with a status": lambda: (emitter, 200, {"X-Mine": "1"}),
            "with headers": lambda: (emitter, {"X-Mine": "1"}),
            "a response": lambda: emitter.response(200, {"X-Mine": "1"}),
        }
        return results[result]()

    board.sse.publish("a", "x", last=True)
    answer = board.get("/mine", **{"Last-Event-ID": "~end"})
    assert (answer.status_code, answer.data, answer.headers.get("Content-Type")) == (204, b"", None)
    assert answer.headers.get("X-Mine") == (None if result == "bare" else "1")
    [emitter] = emitters
    assert emitter.close_reason is CloseReason.COMPLETED
    journal = journal_of(emitter)
    until(lambda: journal == ["completion"], "the callback")
    with pytest.raises(EmitterClosed):
        emitter.send("x")
    stats = board.sse.stats()
    assert (stats["opened"], stats["clients"], stats["refused"]) == (0, 0, 0)


def test_channel_204_may_be_read_by_pages_of_other_sites() -> None:
    board = Board(SSE_CORS_ORIGINS=["https://app.example.com"])
    board.sse.channel("a").complete()
    answer = board.get("/events/a", Origin="https://app.example.com")
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
