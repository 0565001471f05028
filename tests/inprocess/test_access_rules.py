"""Access to channels: the rule of ``authorizer``, what it may return and read, and public channels."""

from __future__ import annotations

from tests.support.board import Board, texts


def test_public_channel_is_readable_without_a_call_of_the_rule() -> None:
    calls: list[str] = []
    board = Board(None)
    board.sse.authorizer(calls.append)
    board.sse.channel("news", public=True)
    with board.open("news") as stream:
        board.sse.publish("news", "x")
        assert texts(stream.ready()) == ["x"]
    assert calls == []


def test_authorizer_is_called_once_per_channel_before_anything_is_registered() -> None:
    calls: list[tuple[str, int, dict[str, int]]] = []
    board = Board(None)
    board.sse.channel("b", public=True)

    @board.sse.authorizer
    def may_read(channel: str) -> bool:
        calls.append((channel, board.clients, board.sse.stats()["channels"]))
        return channel != "c"

    assert board.get("/events?channel=a&channel=b&channel=a&channel=c&channel=d").status_code == 403
    assert calls == [("a", 0, {}), ("c", 0, {})]


# grants: access for a limited time


# publishing over HTTP
