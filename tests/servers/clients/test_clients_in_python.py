"""What Python programs read finite streams with: httpx-sse, sseclient-py, datastar-py's events, and MCP's client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
from datastar_py import ServerSentEventGenerator as Datastar
from datastar_py.consts import ElementPatchMode
from httpx_sse import ServerSentEvent, connect_sse
from sseclient import SSEClient

from flask_sse_emitters.testing import decode
from tests.servers.kinds import on
from tests.support.client import connected, new_name
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

KINDS = ("gevent", "gevent_off", "gthread", "gthread_off")

#: What Datastar's page sends with each request.
MARKED = {"Datastar-Request": "true"}


def read_with_httpx_sse(url: str) -> Iterator[ServerSentEvent]:
    with httpx.Client(timeout=PATIENCE) as client, connect_sse(client, "GET", url) as source:
        source.response.raise_for_status()
        yield from source.iter_sse()


def read_with_sseclient(url: str) -> Iterator[Any]:
    with requests.get(url, stream=True, timeout=PATIENCE) as response:
        response.raise_for_status()
        yield from SSEClient(response).events()  # type: ignore[arg-type]


#: Each with what it raises where a connection breaks.
READERS: dict[str, tuple[Any, type[Exception]]] = {
    "httpx-sse": (read_with_httpx_sse, httpx.RemoteProtocolError),
    "sseclient-py": (read_with_sseclient, requests.exceptions.ChunkedEncodingError),
}

each_reader = pytest.mark.parametrize("reader", READERS)


@on(*KINDS)
@each_reader
def test_python_reader_gets_all_of_a_bare_stream_and_its_end(reader: str, server: Server) -> None:
    read, _ = READERS[reader]
    texts = [event.data for event in read(f"{server.url}/words/{new_name()}?count=1500&size=1&bare=1")]
    assert texts == [*(f"{number} x" for number in range(1500)), "[DONE]"]


@on("gevent")
@each_reader
def test_python_reader_shows_what_a_stream_that_is_not_bare_adds(reader: str, server: Server) -> None:
    """The final event comes to both by its name; the greeting is an event without data to httpx-sse alone."""
    read, _ = READERS[reader]
    found = [(event.event, event.data) for event in read(f"{server.url}/words/{new_name()}?count=1&size=1")]
    greeting = [("message", "")] if reader == "httpx-sse" else []
    assert found == [*greeting, ("message", "0 x"), ("message", "[DONE]"), ("~end", "")]


@on(*KINDS)
@each_reader
def test_python_reader_shows_a_stream_that_raises_as_an_error(reader: str, server: Server) -> None:
    """After the events, also that of ``on_error``: a stream that broke is none that ended."""
    read, error = READERS[reader]
    found: list[str] = []
    with pytest.raises(error):
        found.extend(event.data for event in read(f"{server.url}/raising/{new_name()}") if event.data)
    assert found == [] or found == ["half", "upstream"]


@on("gevent")
@each_reader
def test_python_reader_that_has_all_sees_a_204_without_events(reader: str, server: Server) -> None:
    """It comes back with the final event's id; httpx-sse looks for an event stream, and raises."""
    url = f"{server.url}/words/{new_name()}?count=1&size=1&lastEventId=~end"
    if reader == "httpx-sse":
        with pytest.raises(httpx.TransportError):
            list(read_with_httpx_sse(url))
    else:
        assert list(read_with_sseclient(url)) == []


@on(*KINDS)
def test_datastar_events_are_sent_and_published_as_they_are(server: Server) -> None:
    name = new_name()
    expected = [
        Datastar.patch_elements("<b>a\nb</b>", selector="#rows", mode=ElementPatchMode.APPEND),
        Datastar.remove_elements("#old"),
    ]
    with connected(server, f"/datastar/{name}", headers=MARKED) as page:
        page.events(1)
        httpx.post(f"{server.url}/datastar/{name}", json={"a": 1}, headers=MARKED, timeout=PATIENCE)
        found = page.events(2)
    assert [(event.event, event.data) for event in found] == [(each.event, each.data) for each in decode_all(expected)]
    assert all(event.id for event in found), "what is published can be replayed"


def decode_all(events: list[Any]) -> list[Any]:
    return decode("".join(events).encode())


@on("gevent", "gthread")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_datastar_signals_come_as_datastar_sends_them(method: str, server: Server) -> None:
    """In the query of GET and DELETE, else as a JSON body."""
    signals = {"title": "grüße & more", "open": True, "nested": {"n": 1}}
    in_query = method in ("GET", "DELETE")
    query = "?" + str(httpx.QueryParams(datastar=json.dumps(signals))) if in_query else ""
    url = f"/datastar/{new_name()}{query}"
    if method == "GET":
        with connected(server, url, headers=MARKED) as page:
            [event] = page.events(1)
    else:
        body = {} if in_query else {"json": signals}
        answer = httpx.request(method, f"{server.url}{url}", headers=MARKED, timeout=PATIENCE, **body)  # type: ignore[arg-type]
        event = next(each for each in decode(answer.content) if each.event == "datastar-patch-signals")
    assert event.event == "datastar-patch-signals"
    assert json.loads(event.data.removeprefix("signals ")) == {"read": signals}


@on(*KINDS)
@pytest.mark.parametrize("query", ["", "?greeting=1"], ids=["bare", "not bare"])
def test_mcp_client_gets_progress_and_result_of_a_tool(query: str, server: Server) -> None:
    """Of one request, without resuming. It skips a greeting, and has what it wants before the final event."""
    progress, result = asyncio.run(call_tool(f"{server.url}/mcp{query}"))
    assert progress == [1, 2, 3]
    assert result == "counted"


async def call_tool(url: str) -> tuple[list[float], str]:
    from tests.servers.clients.mcp_sessions import session_of

    progress: list[float] = []

    async def note(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async with session_of(url) as session:
        called = await session.call_tool("count", {}, progress_callback=note)
        return progress, called.content[0].text
