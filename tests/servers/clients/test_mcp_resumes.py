"""MCP's own client comes back after a connection has broken, and gets what it missed: see docs/streaming.rst."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

import pytest
from packaging.version import Version

from tests.servers.kinds import on
from tests.support.client import get, new_app, new_name, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

comes_back = pytest.mark.skipif(
    Version(version("mcp")) < Version("1.23"), reason="the client comes back by itself from mcp 1.23 on"
)


class Call:
    """A call of the tool that counts to five."""

    def __init__(self, session: Any) -> None:
        self.name = new_name()
        self.progress: list[float] = []
        self.tokens: list[str] = []
        self._session = session

    async def run(self, token: str | None = None) -> str:
        """Make the call, or resume it after this token; return its result."""
        from tests.servers.clients.mcp_sessions import count

        async def note(done: float, total: float | None, message: str | None) -> None:
            self.progress.append(done)

        async def note_token(token: str) -> None:
            self.tokens.append(token)

        return await count(self._session, self.name, token, note_token, note)


@pytest.fixture
def path(server: Server) -> str:
    """An app whose clients come back soon."""
    return new_app(server, SSE_RETRY=50)


def session_of(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    from tests.servers.clients import mcp_sessions

    return mcp_sessions.session_of(url, **options)


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@on("gevent", "gthread")
@comes_back
def test_mcp_client_whose_calls_are_cut_gets_the_rest_of_each(server: Server, path: str) -> None:
    """Of two at the same time, in one session: what came meanwhile, then what comes, and the result, each its own."""

    async def run() -> None:
        async with session_of(f"{server.url}{path}/mcp/sessions") as session:
            calls = [Call(session), Call(session)]
            running = [asyncio.create_task(call.run()) for call in calls]
            await wait_for(lambda: all(call.progress == [1, 2] for call in calls))
            for call in calls:
                await asyncio.to_thread(post, server, f"{path}/mcp/cut/{call.name}")
            await wait_for(lambda: all(call.progress == [1, 2, 3, 4] for call in calls))
            for call in calls:
                await asyncio.to_thread(post, server, f"/open/{call.name}%204")
            assert await asyncio.gather(*running) == [call.name for call in calls]
            assert [call.progress for call in calls] == [[1, 2, 3, 4, 5]] * 2

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))


@on("gevent", "gthread")
def test_mcp_client_resumes_a_call_by_the_token_that_it_kept(server: Server, path: str) -> None:
    """As a program does that was restarted: the token is the id of the last event."""

    async def run() -> None:
        async with session_of(f"{server.url}{path}/mcp/sessions") as session:
            call = Call(session)
            running = asyncio.create_task(call.run())
            await wait_for(lambda: call.tokens and call.tokens[-1].endswith("-2"))
            kept = call.tokens[-1]
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            for number in (2, 4):
                await asyncio.to_thread(post, server, f"/open/{call.name}%20{number}")
            again = Call(session)
            assert await again.run(kept) == call.name
            offsets = [token.rpartition("-")[2] for token in again.tokens]
            assert offsets[-4:] == ["3", "4", "5", "6"]
            assert set(offsets[:-4]) <= {"2"}, "with which the stream begins"

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))


@on("gevent", "gthread")
@comes_back
def test_mcp_client_gets_what_its_session_was_told_while_it_was_away(server: Server, path: str) -> None:
    """Beside its calls, on a stream that it opens without an id, and again with the last one.

    It gives up where this breaks twice without a clean end between, however much came meanwhile.
    """
    told: list[Any] = []

    async def note(message: Any) -> None:
        told.append(message.data)

    async def run() -> None:
        async with session_of(f"{server.url}{path}/mcp/sessions", logging_callback=note):
            session = (await asyncio.to_thread(get, server, f"{path}/mcp/newest-session"))["id"]
            await wait_for(lambda: get(server, f"{path}/mcp/readers/{session}")["count"] == 1)
            for number, before in enumerate(["", "abort", "complete", "abort"]):
                await asyncio.to_thread(post, server, f"{path}/mcp/tell/{session}?before={before}", number)
                await wait_for(lambda: len(told) > number)  # noqa: B023 - awaited at once
        assert told == [0, 1, 2, 3]

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))
