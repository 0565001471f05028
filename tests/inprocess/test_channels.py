"""Channels inside one process: publishing, replay at a reconnect, gaps, limits, and the helpers for tests."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import (
    SSE,
    CloseReason,
    Event,
    InvalidChannel,
    InvalidEvent,
    NotInitialized,
    SseEmitter,
    SseEmitters,
    TooManyClients,
)
from flask_sse_emitters.channels.replay.pages import MAX_PAGES, PAGE_SECONDS, Page, PageCache
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.interfaces import Output
from flask_sse_emitters.testing import OpenStream, decode, open_stream, published
from tests.support.board import Board, gap_of, moved, texts
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def board() -> Board:
    return Board()


# publishing


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "coalesce"])
@pytest.mark.parametrize("channels", [1, 8])
def test_publish_event_of_the_largest_size_reaches_live_clients(overflow: str, channels: int) -> None:
    """Its id is not counted: as much may be pending as one event may have."""
    board = Board(SSE_OVERFLOW=overflow)
    names = [f"c{number}" for number in range(channels)]
    largest = "x" * (1_048_576 - len("data: ") - len("\n\n"))
    with board.open(*names) as stream:
        assert stream.ready() == []
        for _ in range(2):
            board.publish(names[-1], largest)
            assert texts(stream.ready()) == [largest]
        board.publish(names[-1], "more")
        assert texts(stream.ready()) == ["more"]
        with pytest.raises(InvalidEvent, match="SSE_MAX_EVENT_BYTES"):
            board.publish(names[-1], largest + "x")


def test_publish_key_that_cannot_be_encoded_is_rejected(board: Board) -> None:
    with pytest.raises(InvalidEvent, match="key holds a lone surrogate"):
        board.sse.publish("a", "x", key="\ud800")


def test_publish_reaches_the_clients_of_its_channel_with_id_name_and_data(board: Board) -> None:
    with board.open("orders") as stream, board.open("other") as other:
        event_id = board.sse.publish("orders", {"id": 7}, event="created", retry=100)
        assert stream.ready() == [Event('{"id": 7}', event="created", id=event_id)]
        assert other.ready() == []


def test_stream_of_many_channels_gets_the_events_of_all(board: Board) -> None:
    with board.open("a", "b") as stream:
        board.publish("a", 1)
        board.publish("c", 2)
        board.publish("b", 3)
        assert texts(stream.ready()) == ["1", "3"]


@pytest.mark.parametrize(
    "path", ["/events/a", "/events?channel=a", "/events?channel=a&channel=a", "/events/a?channel=a"]
)
def test_channel_can_be_requested_in_the_path_and_in_the_query(board: Board, path: str) -> None:
    with open_stream(board.client, path) as stream:
        [event_id] = board.publish("a", "x")
        assert stream.ready() == [Event("x", id=event_id)]


@pytest.mark.parametrize("name", ["a/b", "user:7@example.org", "A.b-c_d", "a//b", "a/", "x" * 200, "..", "a:b/c"])
def test_channel_name_with_every_allowed_character_works_in_path_and_query(board: Board, name: str) -> None:
    with open_stream(board.client, f"/events/{name}") as stream, board.open(name) as other:
        board.publish(name, "x")
        assert texts(stream.ready()) == texts(other.ready()) == ["x"]


@pytest.mark.parametrize(
    "name", ["", "a b", "x" * 201, "ä", "a\n", "a,b", "a\0", "a?", None, 7, "\N{FULLWIDTH LATIN SMALL LETTER A}"]
)
def test_channel_name_that_is_invalid_is_rejected_by_publish_and_channel(board: Board, name: Any) -> None:
    for use in (lambda: board.sse.publish(name, "x"), lambda: board.sse.channel(name)):
        with pytest.raises(InvalidChannel, match=re.escape("1 to 200 ASCII letters, digits and . _ - : / @")):
            use()
    assert issubclass(InvalidChannel, ValueError)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "no channel: ask for /events?channel=NAME"),
        ("?channel=", "a channel's name has 1 to 200"),
        ("?channel=a&channel=b%20c", "'b c'"),
        ("?channel=" + "x" * 300, "unlike one of 300 characters"),
        ("/a%20b", "'a b'"),
        ("?" + "&".join(f"channel={number}" for number in range(51)), "51 channels: one stream carries 50 at most"),
    ],
)
def test_channel_name_that_is_invalid_is_a_400_that_says_what_to_change(
    board: Board, query: str, expected: str
) -> None:
    answer = board.client.get(f"/events{query}")
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert expected in answer.text


def test_stream_of_fifty_channels_gets_and_replays_their_events(board: Board) -> None:
    names = [f"channel-{number}" for number in range(50)]
    with board.open(*names) as stream:
        for name in names:
            board.publish(name, name)
        events = stream.ready()
        assert texts(events) == names
    board.publish(names[0], "missed")
    assert texts(board.replayed(*names, last=str(events[-1].id))) == ["missed"]


def test_publish_takes_a_whole_event_or_builder(board: Board) -> None:
    with board.open("a") as stream:
        board.sse.publish("a", Event({"x": 1}, event="named"))
        board.sse.publish("a", SseEmitter.event().name("built").data("y"))
        assert [(event.event, event.data) for event in stream.ready()] == [("named", '{"x": 1}'), ("built", "y")]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (Event("x", id=1), {}),
        (Event("x"), {"event": "other"}),
        (SseEmitter.event().data("x"), {"retry": 1}),
        ("x", {"event": "a\nb"}),
        ({1, 2}, {}),
        ("x" * 2_000_000, {}),
    ],
)
def test_publish_invalid_event_is_rejected_reaches_no_client_and_wastes_no_id(
    board: Board, data: Any, options: dict[str, Any]
) -> None:
    with board.open("a") as stream:
        with pytest.raises(InvalidEvent):
            board.sse.publish("a", data, **options)
        [event_id] = board.publish("a", "next")
        assert [event.id for event in stream.ready()] == [event_id]
        assert event_id.endswith("-1"), "no id is wasted"


@pytest.mark.parametrize("whole", [Event("x", event="gap"), SseEmitter.event().name("gap").data("x")])
def test_publish_event_named_gap_is_rejected(board: Board, whole: Any) -> None:
    channel = board.sse.channel("a")
    with published(board.sse, "a") as events:
        for call in (channel.publish, partial(board.sse.publish, "a"), partial(board.sse.publish_to, "ann")):
            with pytest.raises(
                InvalidEvent, match="'gap' is kept for the event that tells clients that they have missed some"
            ):
                call("x", event="gap")
            with pytest.raises(InvalidEvent, match="take another one"):
                call(whole)
        for name in ("open", "error", "gaps", "Gap"):
            board.sse.publish("a", "x", event=name)
    assert len(events) == 4
    assert gap_of(board.replayed("a", last="long-ago"))["requested"] == "long-ago"


def test_publish_data_becomes_json_by_the_apps_provider(board: Board) -> None:
    board.app.json.ensure_ascii = False  # type: ignore[attr-defined]
    with board.open("a") as stream:
        board.sse.publish("a", {"ä": 1})
        assert texts(stream.ready()) == ['{"ä": 1}']


def test_publish_data_nan_is_rejected_unless_the_provider_writes_null(board: Board) -> None:
    with board.open("a") as stream:
        with pytest.raises(InvalidEvent, match="data holds NaN, which is not valid JSON"):
            board.sse.publish("a", {"mean": math.nan})
        board.app.json.dumps = lambda data, **_: json.dumps(data).replace("NaN", "null")  # type: ignore[method-assign]
        board.sse.publish("a", {"mean": math.nan})
        assert texts(stream.ready()) == ['{"mean": null}']


def test_publish_retry_with_the_same_key_is_published_once(board: Board) -> None:
    with board.open("a") as stream:
        first = board.sse.publish("a", "x", key="order-7")
        assert board.sse.publish("a", "x", key="order-7") == first
        assert board.sse.channel("a").publish("y", key="order-8") != first
        assert texts(stream.ready()) == ["x", "y"]


def test_channel_publishes_and_counts_its_subscribers(board: Board) -> None:
    news = board.sse.channel("news")
    assert (news.name, repr(news), news.subscribers()) == ("news", "<Channel 'news'>", 0)
    with board.open("news", "other") as stream, board.open("news"):
        assert news.subscribers() == 2
        news.publish("x", event="e")
        assert [(event.event, event.data) for event in stream.ready()] == [("e", "x")]
    until(lambda: news.subscribers() == 0, "both to unsubscribe")


def test_channel_subscription_can_be_returned_by_a_view(board: Board) -> None:
    @board.app.get("/mine")
    def mine() -> Any:
        emitter = board.sse.channel("a").subscribe(timeout=60)
        emitter.send("hello")
        return emitter

    with open_stream(board.client, "/mine") as stream:
        board.publish("a", "x")
        assert texts(stream.ready()) == ["hello", "x"]


def test_subscribe_last_event_id_replaces_that_of_the_request(board: Board) -> None:
    first, _ = board.publish("a", 1, 2)
    positions: Iterator[str] = iter([first, ""])

    @board.app.get("/mine")
    def mine() -> Any:
        return board.sse.channel("a").subscribe(last_event_id=next(positions))

    for expected in (["2"], []):
        with open_stream(board.client, "/mine", headers={"Last-Event-ID": "foreign"}) as stream:
            assert texts(stream.ready()) == expected


def test_channel_emitters_takes_an_emitter_of_a_view(board: Board) -> None:
    news = board.sse.channel("news")
    assert isinstance(news.emitters, SseEmitters)

    @board.app.get("/mine")
    def mine() -> Any:
        return news.emitters.add(news.emitters.add(SseEmitter()))

    board.publish("news", "before")
    with open_stream(board.client, "/mine") as stream:
        [event_id] = board.publish("news", "x")
        news.emitters.send("for those here")
        assert [(event.data, event.id) for event in stream.ready()] == [("x", event_id), ("for those here", event_id)]
    with pytest.raises(TypeError, match="add\\(\\) takes an SseEmitter"):
        news.emitters.add("x")  # type: ignore[type-var]


def test_channel_emitters_complete_ends_streams_after_all_published_events(board: Board) -> None:
    with board.open("a") as stream, board.open("a", "b") as other:
        board.publish("a", 1, 2)
        board.sse.channel("a").emitters.complete()
        assert texts(stream.ready()) == texts(other.ready()) == ["1", "2"]
    assert board.sse.stats()["closed"] == {"completed": 2}


def test_channel_emitters_complete_ends_streams_during_their_replay(board: Board) -> None:
    first, *_ = board.publish("a", *range(10))
    with board.open("a", last=first) as stream, board.open("a", "b", last=f"{first},{moved(first, -1)}") as other:
        board.sse.channel("a").emitters.complete()
        board.publish("a", "after")
        assert texts(stream.ready()) == texts(other.ready()) == [str(number) for number in range(1, 10)]
    assert board.sse.stats()["closed"] == {"completed": 2}


# outside an app context


def test_publish_outside_an_app_context_uses_the_only_app(board: Board) -> None:
    with board.open("a") as stream:
        in_thread(lambda: board.sse.publish("a", "x"))
        assert texts(stream.ready()) == ["x"]


def test_publish_without_an_app_or_with_several_says_what_to_do() -> None:
    sse = SSE()
    news = sse.channel("news", public=True)
    with pytest.raises(NotInitialized, match=r"call init_app\(app\) first"):
        news.publish("x")
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        sse.init_app(app)
    for use in (lambda: sse.publish("news", "x"), sse.stats, sse.shutdown, news.subscribe):
        with pytest.raises(NotInitialized, match=r"has 2 apps: say which, with app.app_context\(\)"):
            use()
    with apps[1].app_context():
        news.publish("x")
        assert sse.stats()["published"] == 1
    with apps[0].app_context():
        assert sse.stats()["published"] == 0


def test_publish_in_the_context_of_another_app_uses_its_own_app(board: Board) -> None:
    other = Board()
    with other.app.app_context():
        event_id = board.sse.publish("a", "x")
    assert board.sse.stats()["published"] == 1
    assert (other.sse.stats()["published"], event_id[-2:]) == (0, "-1")


# reconnect and replay


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


def test_ids_of_many_channels_are_joined_in_the_order_of_the_request(board: Board) -> None:
    with board.open("b", "a") as stream:
        [a1], [b1] = board.publish("a", 1), board.publish("b", 1)
        [b2] = board.publish("b", 2)
        start = moved(b1, -1)
        assert [event.id for event in stream.ready()] == [f"{start},{a1}", f"{b1},{a1}", f"{b2},{a1}"]
    board.publish("a", 2)
    board.publish("b", 3)
    events = board.replayed("b", "a", last=f"{b1},{a1}")
    assert texts(events) == ["2", "2", "3"], "in the order in which they were published"
    assert [event.id for event in events] == [f"{b2},{a1}", f"{b2},{moved(a1, 1)}", f"{moved(b2, 1)},{moved(a1, 1)}"]


def test_reconnect_with_any_id_of_a_stream_replays_exactly_what_follows(board: Board) -> None:
    names = ["a", "b", "c"]
    with board.open(*names) as stream:
        for number in range(30):
            board.publish(names[number * 7 % 3], number)
        events = stream.ready()
    assert len(events) == 30
    for index, event in enumerate(events):
        assert texts(board.replayed(*names, last=str(event.id))) == texts(events)[index + 1 :]


@pytest.mark.parametrize("parameter", ["last_event_id", "lastEventId", "evs_last_event_id"])
def test_last_event_id_can_be_a_query_parameter_and_the_header_wins(board: Board, parameter: str) -> None:
    ids = board.publish("a", 1, 2, 3)
    path = f"/events?channel=a&{parameter}={ids[0]}"
    with open_stream(board.client, path) as stream:
        assert texts(stream.ready()) == ["2", "3"]
    with open_stream(board.client, path, headers={"Last-Event-ID": ids[1]}) as stream:
        assert texts(stream.ready()) == ["3"]
    with open_stream(board.client, path, headers={"Last-Event-ID": ""}) as stream:
        assert texts(stream.ready()) == ["2", "3"]


BAD_IDS: list[tuple[str, Callable[[str], str]]] = [
    ("unknown", lambda _: "17"),
    ("of a former epoch", lambda _: "zzzzz-1"),
    ("future", lambda last: moved(last, 1)),
    ("far in the future", lambda last: moved(last, 10**15)),
    ("with too many parts", lambda last: f"{last},{last}"),
    ("with an empty part", lambda last: f"{last},"),
    ("malformed", lambda last: last.replace("-", "+")),
    ("negative", lambda last: last.replace("-", "--")),
    ("overlong", lambda last: last + "0" * 10_000),
    ("not ASCII", lambda _: "é\N{SNOWMAN}"),
    ("blank", lambda _: " "),
]


@pytest.mark.parametrize("bad", [bad for _, bad in BAD_IDS], ids=[name for name, _ in BAD_IDS])
def test_reconnect_with_an_invalid_id_gets_one_gap_and_then_all_kept_events(
    board: Board, bad: Callable[[str], str]
) -> None:
    ids = board.publish("a", 1, 2)
    requested = bad(ids[-1])
    sent = requested.encode().decode("latin-1")  # as servers pass on what a browser sends as UTF-8
    with board.open("a", last=sent) as stream:
        board.publish("a", 3)
        events = stream.ready()
        assert gap_of(events) == {"requested": requested[:2048], "oldest": ids[0], "newest": ids[-1]}
        assert texts(events[1:]) == ["1", "2", "3"]
        assert [event.id for event in events[1:]] == [*ids, moved(ids[-1], 1)]


def test_gap_is_followed_by_a_position_so_that_no_second_gap_comes(board: Board) -> None:
    with board.client.get("/events/empty", headers={"Last-Event-ID": "foreign"}) as response:
        text = next(response.iter_encoded()).decode()
    gap, position = text.split("\n\n")[1:3]
    assert gap.startswith("event: gap\n")
    assert "\nid:" not in gap
    assert position.startswith("id: ")
    board.publish("empty", 1)
    assert texts(board.replayed("empty", last=position.removeprefix("id: "))) == ["1"]


def test_reconnect_after_eviction_gets_one_gap_and_then_the_kept_events() -> None:
    board = Board(SSE_HISTORY=3)
    ids = board.publish("a", *range(10))
    events = board.replayed("a", last=ids[2])
    assert gap_of(events) == {"requested": ids[2], "oldest": ids[7], "newest": ids[9]}
    assert [event.id for event in events[1:]] == ids[7:]


def test_reconnect_with_an_evicted_id_and_no_lost_event_gets_no_gap() -> None:
    board = Board(SSE_HISTORY=3)
    ids = board.publish("a", *range(10))
    assert [event.id for event in board.replayed("a", last=ids[6])] == ids[7:]


def test_reconnect_after_expiry_gets_a_gap_unless_nothing_was_lost(scheduler: ManualScheduler) -> None:
    board = Board(SSE_HISTORY_SECONDS=0.05)
    ids = board.publish("a", 1, 2)
    log = board.sse._channels().broker._records["a"].log  # type: ignore[attr-defined]
    until(lambda: log.oldest > 2, "their expiry")
    assert gap_of(board.replayed("a", last=ids[0])) == {
        "requested": ids[0],
        "oldest": moved(ids[1], 1),
        "newest": ids[1],
    }
    assert board.replayed("a", last=ids[1]) == [], "nothing was lost after the last one"


def test_channel_without_history_delivers_live_events_and_a_gap_for_missed_ones(board: Board) -> None:
    board.sse.channel("live", history=0)
    with board.open("live") as stream:
        [first] = board.publish("live", 1)
        assert texts(stream.ready()) == ["1"]
    assert board.replayed("live", last=first) == []
    [second] = board.publish("live", 2)
    events = board.replayed("live", last=first)
    assert gap_of(events) == {"requested": first, "oldest": moved(second, 1), "newest": second}
    assert events[1:] == []


def test_channel_history_option_bounds_its_replay(board: Board) -> None:
    board.sse.channel("a", history=2)
    ids = board.publish("a", *range(10))
    assert len(board.replayed("a", last=ids[0])[1:]) == 2


def test_reconnect_with_a_hole_in_one_of_many_channels_gets_one_gap() -> None:
    board = Board(SSE_HISTORY=2)
    a, b = board.publish("a", *range(5)), board.publish("b", 1, 2)
    events = board.replayed("a", "b", last=f"{a[0]},{b[0]}")
    assert gap_of(events) == {"requested": f"{a[0]},{b[0]}", "oldest": f"{a[3]},{b[1]}", "newest": f"{a[4]},{b[1]}"}
    assert texts(events[1:]) == ["3", "4", "2"]


def test_replay_of_any_length_neither_overflows_nor_fills_the_backlog() -> None:
    board = Board(SSE_HISTORY=100_000, SSE_MAX_PENDING=5, SSE_MAX_PENDING_BYTES=10_000)
    ids = board.publish("a", *("x" * 1000 + str(number) for number in range(5000)))
    with board.open("a", last=ids[0]) as stream:
        board.publish("a", "live")
        emitter = next(iter(board.sse.channel("a").emitters))
        assert (emitter.pending, stream_of(emitter).outgoing.backlog.size) == (0, 0)
        events = stream.ready()
        assert emitter.is_open
    assert [event.id for event in events] == [*ids[1:], moved(ids[-1], 1)]


def test_replay_evicted_while_a_slow_client_reads_brings_one_gap() -> None:
    board = Board(SSE_HISTORY=100)
    ids = board.publish("a", *("x" * 1000 + str(number) for number in range(100)))
    with board.client.get("/events/a", headers={"Last-Event-ID": ids[0]}) as response:
        pieces = response.iter_encoded()
        begun = decode(next(pieces))
        assert 10 < len(begun) < 90, "a part of it"
        ids += board.publish("a", *range(150))
        board.sse.channel("a").emitters.complete()
        rest = decode(b"".join(pieces))
    assert gap_of(rest) == {"requested": str(begun[-1].id), "oldest": ids[-100], "newest": ids[-1]}
    assert [event.id for event in rest[1:]] == ids[-100:]


@pytest.mark.parametrize("channels", [["a"], ["a", "b"]])
def test_replay_evicted_whole_while_a_slow_client_reads_brings_one_gap(channels: list[str]) -> None:
    board = Board(SSE_HISTORY=100)
    ids = board.publish("a", *("x" * 1000 for _ in range(100)))
    last = ",".join([ids[0], moved(ids[0], -1)][: len(channels)])
    query = "&".join(f"channel={name}" for name in channels)
    with board.client.get(f"/events?{query}", headers={"Last-Event-ID": last}) as response:
        pieces = response.iter_encoded()
        begun = decode(next(pieces))
        board.sse.channel("a", history=0)
        [newest] = board.publish("a", "gone")
        board.sse.channel("a").emitters.complete()
        rest = decode(b"".join(pieces))
    assert gap_of(rest)["requested"] == begun[-1].id
    assert gap_of(rest)["oldest"].startswith(moved(newest, 1))
    assert rest[1:] == []


def test_replay_from_one_position_shares_its_page_between_clients(board: Board) -> None:
    ids = board.publish("a", *range(500))
    b = board.publish("b", 1)
    pages = board.sse._channels()._pages
    for _ in range(20):
        assert len(board.replayed("a", last=ids[99])) == 400
    assert pages.built == 1
    for _ in range(20):
        assert len(board.replayed("a", "b", last=f"{ids[99]},{moved(b[0], -1)}")) == 401
    assert pages.built == 2


def test_replay_page_is_rebuilt_after_a_newer_event(board: Board) -> None:
    ids = board.publish("a", 1, 2)
    assert texts(board.replayed("a", last=ids[0])) == ["2"]
    board.publish("a", 3)
    assert texts(board.replayed("a", last=ids[0])) == ["2", "3"]


def test_replay_pages_unused_for_a_while_are_freed_and_their_number_is_bounded(scheduler: ManualScheduler) -> None:
    pages = PageCache(scheduler)
    page = Page(Output(b"x", 1), (1,), (1,))
    pages.put("old", page)
    scheduler.pass_time(PAGE_SECONDS * 0.6)
    pages.put("new", page)
    assert pages.get("old", (1,)) is page
    scheduler.pass_time(PAGE_SECONDS * 0.9)
    assert len(pages) == 2
    scheduler.pass_time(PAGE_SECONDS * 2)
    assert (len(pages), scheduler.live_timers()) == (0, [])
    for number in range(MAX_PAGES * 2):
        pages.put(number, page)
    assert len(pages) == MAX_PAGES
    assert pages.get(MAX_PAGES * 2 - 1, (1,)) is page


def test_replay_during_concurrent_publishing_loses_and_repeats_nothing() -> None:
    """Four threads publish to two channels; clients reconnect at any moment, and read to the end."""
    board = Board(SSE_HISTORY=10_000, SSE_MAX_PENDING=10_000)
    start = [board.publish(name, "start")[0] for name in ("a", "b")]
    newest = ",".join(moved(position, by=3_000) for position in start)
    running = threading.Event()
    stop = threading.Event()
    found: list[list[Event]] = []

    def publish(name: str) -> None:
        for number in range(1500):
            board.publish(name, number)
            running.set()

    def has_all(seen: list[Event], stream: OpenStream) -> bool:
        seen += stream.ready()
        return [event.id for event in seen[-1:]] == [newest]

    def read(seed: int) -> None:
        assert running.wait(PATIENCE)
        last, seen = ",".join(start), []
        while not stop.is_set():
            with board.open("a", "b", last=last) as stream:
                for _ in range(seed % 5 + 1):
                    seen += stream.ready()
            last = str(seen[-1].id) if seen else last
        with board.open("a", "b", last=last) as stream:
            until(lambda: has_all(seen, stream), "all of it")  # another thread may still locate the channels
        found.append(seen)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    writers = [threading.Thread(target=publish, args=(name,)) for name in "aabb"]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(PATIENCE)
    stop.set()
    for thread in readers:
        thread.join(PATIENCE)
    assert len(found) == 4
    for seen in found:
        assert [event for event in seen if event.event == "gap"] == []
        pairs = [tuple(int(part.split("-")[1]) for part in str(event.id).split(",")) for event in seen]
        steps = {(a - before_a, b - before_b) for (before_a, before_b), (a, b) in itertools.pairwise([(1, 1), *pairs])}
        assert steps == {(0, 1), (1, 0)}
        assert pairs[-1] == (3001, 3001)


# options and limits of a channel


def test_channel_options_hold_for_later_calls(board: Board) -> None:
    board.sse.channel("a", history=1, max_clients=2)
    board.sse.channel("a", public=True)
    board.sse.channel("a")
    ids = board.publish("a", 1, 2, 3)
    assert len(board.replayed("a", last=ids[0])[1:]) == 1


@pytest.mark.parametrize("option", ["history", "max_clients"])
def test_channel_options_that_contradict_earlier_ones_are_rejected(board: Board, option: str) -> None:
    given: dict[str, Any] = {option: 3}
    board.sse.channel("a", **given)
    board.sse.channel("a", **given)
    with pytest.raises(ValueError, match=rf"{option}=4 contradicts sse.channel\('a', {option}=3\)"):
        board.sse.channel("a", public=True, **{**given, option: 4})
    assert vars(board.sse._options["a"]) == {"public": None, "history": None, "max_clients": None, **given}


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"history": -1}, "history must be an int, 0 or more"), ({"max_clients": 0}, "max_clients must be an int, 1 or")],
)
def test_channel_options_that_are_invalid_are_rejected(board: Board, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        board.sse.channel("a", **options)


def test_max_clients_ends_further_streams_with_a_retry(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    board.sse.channel("a", max_clients=2)
    with board.open("a"), board.open("a", "b"):
        answers = [board.client.get("/events/a") for _ in range(20)]
        assert board.sse.channel("a").subscribers() == 2
        with board.open("b"):
            assert board.sse.channel("b").subscribers() == 2
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.data for answer in answers}) > 5, "at different times"
    for answer in answers:
        match = re.fullmatch(rb"retry: (\d+)\n\nid: \S+-0\n\n", answer.data)
        assert match is not None, "with its position: what is published before its next attempt is not lost"
        assert 1500 <= int(match[1]) <= 6000
    assert board.sse.stats()["refused"] == 20
    assert [record.levelno for record in caplog.records if "max_clients=2" in record.message] == [logging.WARNING]
    with board.open("a"):
        assert board.sse.channel("a").subscribers() == 1


def test_max_clients_rejection_is_the_error_of_the_emitter(board: Board) -> None:
    """Also where the view has sent an event to it already, as it may always do."""
    board.sse.channel("a", max_clients=1)
    made: list[SseEmitter] = []

    @board.app.get("/mine")
    def mine() -> Any:
        made.append(board.sse.channel("a").subscribe())
        made[-1].send("hello")
        return made[-1]

    with board.open("a"):
        answer = board.client.get("/mine")
    assert (answer.status_code, answer.data[:7]) == (200, b"retry: ")
    [emitter] = made
    assert emitter.close_reason is CloseReason.ERROR
    assert isinstance(emitter.error, TooManyClients)
    assert "max_clients=1 of the channel 'a'" in str(emitter.error)


def test_timeout_of_subscriptions_is_spread() -> None:
    """Clients that connected together do not reconnect together. A timeout given to ``subscribe`` is exact."""
    board = Board(SSE_TIMEOUT=1000)
    with board.app.app_context():
        deadlines = [stream_of(board.sse.channel("a").subscribe()).deadlines for _ in range(200)]
        lifetimes = [each.settings.timeout * each.lifetime_part for each in deadlines]
        assert 900 <= min(lifetimes) < 920
        assert 1080 < max(lifetimes) <= 1100
        assert stream_of(board.sse.channel("a").subscribe(timeout=50)).settings.timeout == 50
        assert stream_of(board.sse.channel("a").subscribe(timeout=0)).settings.timeout == 0
    board = Board(SSE_TIMEOUT=0)
    with board.app.app_context():
        assert stream_of(board.sse.channel("a").subscribe()).settings.timeout == 0


def test_channel_without_subscribers_leaves_no_subscription(board: Board) -> None:
    channels = board.sse._channels()
    for number in range(50):
        with board.open(f"user:{number}", "all") as stream:
            board.publish(f"user:{number}", "x")
            assert len(stream.ready()) == 1
    gc.collect()
    assert dict(channels._subscriptions) == {}
    records = channels.broker._records  # type: ignore[attr-defined]
    assert not any(record._listeners for record in records.values())


def test_head_request_leaves_no_subscriber(board: Board) -> None:
    with board.client.head("/events/a") as answer:
        assert (answer.status_code, answer.data, answer.content_type) == (200, b"", "text/event-stream")
    assert (board.sse.channel("a").subscribers(), board.sse.stats()["clients"]) == (0, 0)


def test_replay_ends_with_its_stream(board: Board) -> None:
    """What was published before the end is delivered; later events are not awaited."""
    ids = board.publish("a", *("x" * 1000 + str(number) for number in range(300)))
    with board.client.get("/events/a", headers={"Last-Event-ID": ids[0]}) as response:
        pieces = response.iter_encoded()
        begun = decode(next(pieces))
        next(iter(board.sse.channel("a").emitters)).complete()
        rest: list[Event] = []
        for piece in pieces:
            rest += decode(piece)
            board.publish("a", "later")
    assert [event.id for event in begun + rest][: len(ids) - 1] == ids[1:]
    assert len(begun + rest) <= len(ids) + 1


# helpers for tests of apps


def test_published_records_events_without_any_stream(board: Board) -> None:
    @board.app.post("/orders")
    def create() -> Any:
        return {"event": board.sse.publish("orders", {"id": 7}, event="created")}

    with published(board.sse, "orders", "other") as events:
        answer = board.client.post("/orders")
        board.publish("unrecorded", 1)
        board.publish("other", 2)
    board.publish("orders", 3)
    assert events[0] == Event('{"id": 7}', event="created", id=answer.json["event"])  # type: ignore[index]
    assert texts(events) == ['{"id": 7}', "2"]
    with pytest.raises(TypeError, match="the names of one channel or more"), published(board.sse):
        pass


def test_open_stream_error_shows_the_answer_that_is_no_stream(board: Board) -> None:
    with pytest.raises(AssertionError, match="GET /events did not answer with a stream: 400 BAD REQUEST, text/plain"):
        with open_stream(board.client, "/events"):
            pass


def test_ready_returns_at_once_and_ends_with_the_stream(board: Board) -> None:
    emitters = SseEmitters()

    @board.app.get("/mine")
    def mine() -> Any:
        return emitters.add(SseEmitter())

    with open_stream(board.client, "/mine") as stream:
        assert isinstance(stream, OpenStream)
        assert stream.ready() == stream.ready() == []
        emitters.send("a")
        in_thread(lambda: emitters.send("b"))
        assert texts(stream.ready()) == ["a", "b"]
        emitters.send("c")
        emitters.complete()
        assert texts(stream.ready()) == ["c"]
        assert stream.ready() == []
        assert stream.response.status_code == 200


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
