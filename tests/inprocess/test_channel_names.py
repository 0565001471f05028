"""The names of channels: which are valid, and what invalid ones are answered with."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flask_sse_emitters import Event, InvalidChannel
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, texts


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
