"""The cache of replay pages: clients share them, and it frees those that are unused or too many."""

from __future__ import annotations

from flask_sse_emitters.channels.replay.pages import MAX_PAGES, PAGE_SECONDS, Page, PageCache
from flask_sse_emitters.streams.interfaces import Output
from tests.support.board import Board, moved
from tests.unit.doubles.clock import ManualScheduler


def test_page_of_one_position_is_built_once_for_all_clients() -> None:
    board = Board()
    ids = board.publish("a", *range(500))
    b = board.publish("b", 1)
    pages = board.sse._channels()._pages
    for _ in range(3):
        assert len(board.replayed("a", last=ids[99])) == 400
    assert pages.built == 1
    for _ in range(3):
        assert len(board.replayed("a", "b", last=f"{ids[99]},{moved(b[0], -1)}")) == 401
    assert pages.built == 2


def test_pages_unused_for_a_while_are_freed_and_their_number_is_bounded(scheduler: ManualScheduler) -> None:
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
