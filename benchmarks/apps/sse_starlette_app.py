"""sse-starlette: a queue for each client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

clients: set[asyncio.Queue[str]] = set()


async def events(_request: Request) -> Response:
    client: asyncio.Queue[str] = asyncio.Queue()
    clients.add(client)

    async def stream() -> AsyncIterator[dict[str, str]]:
        try:
            while True:
                yield {"data": await client.get()}
        finally:
            clients.discard(client)

    return EventSourceResponse(stream())


async def publish(request: Request) -> Response:
    message = (await request.body()).decode()
    for client in clients:
        client.put_nowait(message)
    return Response(status_code=204)


app = Starlette(routes=[Route("/events", events), Route("/publish", publish, methods=["POST"])])
