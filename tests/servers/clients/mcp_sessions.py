"""Sessions of MCP's own client. Tests import it as they run, as that takes half a second in each process of pytest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import mcp
from mcp import types
from mcp.client import streamable_http
from mcp.shared.message import ClientMessageMetadata

#: MCP's client, as the tests use it, and what connects it over HTTP; older versions have another name for that.
_Session: Any = mcp.ClientSession
_connect: Any = getattr(streamable_http, "streamable_http_client", None) or vars(streamable_http).get(
    "streamablehttp_client"
)

Note = Callable[..., Coroutine[Any, Any, None]]


@asynccontextmanager
async def session_of(url: str, **options: Any) -> AsyncIterator[Any]:
    async with _connect(url) as (read, write, *_), _Session(read, write, **options) as session:
        await session.initialize()
        yield session


async def count(session: Any, name: str, token: str | None, note_token: Note, note: Note) -> str:
    """Call the tool that counts to five, or resume that call after this token; return its result."""
    params = types.CallToolRequestParams(name="count", arguments={"name": name})
    request: Any = types.CallToolRequest(method="tools/call", params=params)
    metadata = ClientMessageMetadata(resumption_token=token, on_resumption_token_update=note_token)
    called = await session.send_request(request, types.CallToolResult, metadata=metadata, progress_callback=note)
    text: str = called.content[0].text
    return text
