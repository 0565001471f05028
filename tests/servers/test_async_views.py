"""Views that are coroutines, which Flask runs on an event loop of the request, and which ends with it."""

from __future__ import annotations

from flask_sse_emitters.testing import decode
from tests.servers.kinds import HANDING_OFF
from tests.support.client import connected, get, new_app, new_name, post, stats
from tests.support.servers import Server
from tests.support.waiting import until


def stream_through_async_views(server: Server) -> None:
    """Have an async view return a stream, and another one publish to it; then let the client leave."""
    name, app = new_name(), new_app(server, SSE_HEARTBEAT=0.05)
    with connected(server, f"{app}/awaited/{name}") as client:
        assert client.texts(1) == ["from an async view"]
        is_handed_off = server.kind in HANDING_OFF
        outlets = {"handed_off": is_handed_off, "server": not is_handed_off}
        until(lambda: stats(server, app)["outlets"] == outlets, "the outlet")
        for number in range(2):
            assert post(server, f"{app}/awaited/{name}", number)["id"]
        assert client.texts(2) == ["0", "1"]
        post(server, f"{app}/complete/{name}")
        assert decode(client.rest()) == []
    until(lambda: get(server, f"{app}/state/{name}")["reason"] == "COMPLETED", "the end")


def test_async_view_returns_a_stream_and_publishes(server: Server) -> None:
    stream_through_async_views(server)


def test_async_view_returns_a_stream_and_publishes_on_other_servers(other: Server) -> None:
    stream_through_async_views(other)
