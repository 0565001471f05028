"""How a test of one stream gets the whole of its body."""

from __future__ import annotations

from flask_sse_emitters import SseEmitter
from tests.support.board import Board


def body_of(board: Board, emitter: SseEmitter, **headers: str) -> bytes:
    """Return the body up to its clean end."""
    board.app.view_functions["view"] = lambda: emitter
    if "view" not in {rule.endpoint for rule in board.app.url_map.iter_rules()}:
        board.app.add_url_rule("/", "view", board.app.view_functions["view"])
    body: bytes = board.get("/", **headers).data
    return body


def read(board: Board) -> tuple[bytes, bool]:
    """Return the body, and whether the connection broke."""
    got = b""
    try:
        for piece in board.get("/").iter_encoded():
            got += piece
    except BrokenPipeError:
        return got, True
    return got, False
