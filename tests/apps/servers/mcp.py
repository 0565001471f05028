"""An MCP server whose calls go on when a connection breaks: Streamable HTTP, of which each stream is a channel's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import Channel
from tests.apps.servers.contract import sse
from tests.apps.servers.finite import gates, noted

mcp = Blueprint("mcp", __name__)

#: The channel of each call, by its session and the epoch of its ids, in place of a table in a database.
channels: dict[tuple[str, str], str] = {}

#: The channels of the calls, by the names that tests give them, and the sessions.
called: dict[str, Channel] = {}
sessions: list[str] = []


def result(call: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call["id"], "result": result}


def count_to_five(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make progress five times, and wait after the second and the fourth time."""
    name = call["params"]["arguments"]["name"]
    for number in range(1, 6):
        params = {"progressToken": call["params"]["_meta"]["progressToken"], "progress": number}
        yield {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        if number in (2, 4):
            gates[f"{name} {number}"].wait()
    yield result(call, {"content": [{"type": "text", "text": name}], "isError": False})


def session_channel(session: str) -> Channel:
    """Return the channel of what a session is told beside its calls."""
    return sse.channel(f"mcp/session/{session}")


@mcp.post("/mcp/sessions")
def post() -> Any:
    call: dict[str, Any] = request.get_json()
    if "id" not in call:
        return "", 202
    if call["method"] == "initialize":
        sessions.append(uuid4().hex)
        capabilities = {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}, "logging": {}}}
        served = result(call, {**capabilities, "serverInfo": {"name": "flask", "version": "1"}})
        return served, 200, {"Mcp-Session-Id": sessions[-1]}
    if call["method"] == "tools/list":
        return result(call, {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]})
    name = call["params"]["arguments"]["name"]
    answer = called[name] = sse.channel(f"mcp/call/{uuid4()}")
    channels[request.headers["Mcp-Session-Id"], epoch_of(answer.position())] = answer.name
    answer.publish_from(noted(name, count_to_five(call)))
    return answer.subscribe(since="first")


@mcp.get("/mcp/sessions")
def get() -> Any:
    """Return the rest of a call, or what the session is told beside its calls."""
    session, last = request.headers["Mcp-Session-Id"], request.headers.get("Last-Event-ID", "")
    call = channels.get((session, epoch_of(last)))
    return session_channel(session).subscribe() if call is None else sse.channel(call).subscribe()


@mcp.delete("/mcp/sessions")
def delete() -> ResponseReturnValue:
    return "", 204


def epoch_of(event_id: str) -> str:
    """Return the part of an id that no other channel has."""
    return event_id.rpartition("-")[0]


@mcp.post("/mcp/cut/<name>")
def cut(name: str) -> ResponseReturnValue:
    """Break the connections of a call, and let it go on until its client has missed two events."""
    for emitter in called[name].emitters:
        emitter.abort()
    gates[f"{name} 2"].set()
    while not called[name].position().endswith("-4"):
        time.sleep(0.01)
    return {}


@mcp.post("/mcp/tell/<session>")
def tell(session: str) -> ResponseReturnValue:
    """Tell a session something; first end its stream, if it is to miss it."""
    for emitter in session_channel(session).emitters if request.args["before"] else ():
        getattr(emitter, request.args["before"])()
    params = {"level": "info", "data": request.get_json()}
    return {
        "id": session_channel(session).publish({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
    }


@mcp.get("/mcp/readers/<session>")
def readers(session: str) -> ResponseReturnValue:
    return {"count": len(session_channel(session).emitters)}


@mcp.get("/mcp/newest-session")
def newest_session() -> ResponseReturnValue:
    return {"id": sessions[-1]}
