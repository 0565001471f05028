"""Named lists: one of each name in a process, and what of a stream they tell another process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest

from flask_sse_emitters import SseEmitter, SseEmitters
from flask_sse_emitters.broadcast.named import MAX_NAME_LENGTH, find_list, list_names
from flask_sse_emitters.streams.emitter import stream_of
from tests.support.board import Board
from tests.unit.doubles.writer import texts_of


def test_named_list_is_found_while_a_variable_or_an_emitter_holds_it() -> None:
    assert find_list("held") is None
    emitters, emitter = SseEmitters("held"), SseEmitter()
    assert find_list("held") is not None, "also while it is empty"
    emitters.add(emitter)
    del emitters
    gc.collect()
    assert SseEmitters("held").send("x") == 1
    emitter.complete()
    texts_of(emitter)
    del emitter
    gc.collect()
    assert find_list("held") is None


def test_named_list_found_by_its_name_takes_an_emitter() -> None:
    emitters, emitter = SseEmitters("found"), SseEmitter()
    found = find_list("found")
    assert found is not None
    found.add(emitter)
    assert emitter in emitters
    assert emitters.send("x") == 1
    assert texts_of(emitter) == ["x"]


def test_named_lists_of_a_stream_are_told_but_for_those_of_channels() -> None:
    board = Board()
    with board.app.app_context():
        stream = stream_of(board.sse.channel("news").subscribe())
        one = SseEmitters("one").add(SseEmitter())
    assert list_names(stream) == ()
    assert list_names(stream_of(one)) == ("one",)
    two = SseEmitters("two")
    two.add(one)
    assert list_names(stream_of(one)) == ("one", "two")
    two.remove(one)
    assert list_names(stream_of(one)) == ("one",)


def test_named_list_beside_one_without_a_name_cannot_be_told() -> None:
    emitter = SseEmitters().add(SseEmitters("told").add(SseEmitter()))
    assert list_names(stream_of(emitter)) is None


@pytest.mark.parametrize(("name", "message"), [("", "1 to 200"), ("x" * (MAX_NAME_LENGTH + 1), "not 201"), (7, "str")])
def test_named_list_refuses_what_is_no_name(name: str, message: str) -> None:
    with pytest.raises(TypeError if message == "str" else ValueError, match=message):
        SseEmitters(name)


def test_named_list_made_by_many_threads_at_once_is_one() -> None:
    start, made = threading.Barrier(8), list[SseEmitters]()

    def make() -> None:
        start.wait()
        made.append(SseEmitters("raced"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each._delivery) for each in made}) == 1


def test_named_list_of_a_forked_child_has_no_client_of_its_parent(
    in_child: Callable[[Callable[[], object]], str],
) -> None:
    emitters = SseEmitters("forked")
    emitters.add(SseEmitter())
    assert in_child(lambda: (len(SseEmitters("forked")), SseEmitters("forked") == emitters)) == "(0, True)"
    assert len(emitters) == 1
