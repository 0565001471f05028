"""Answers of language models as OpenAI's and Anthropic's clients read them, events of Datastar, and a tool of MCP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datastar_py import ServerSentEventGenerator as Datastar
from datastar_py.consts import ElementPatchMode
from flask import Blueprint, Response, abort, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import Event, SseEmitter
from flask_sse_emitters.datastar import read_signals
from tests.apps.servers.contract import sse
from tests.apps.servers.finite import gates, noted

answers = Blueprint("answers", __name__)


def texts(name: str, how: str) -> Iterator[str]:
    """Return the texts of an answer, which is whole, or not.

    ``gated`` waits after its first one. The gate of a worker that stops, and so answers no requests, is a file.
    """
    count, file = int(request.args.get("count", 20)), request.args.get("file")
    for number in range(count):
        yield f"{number} "
        if how == "gated" and number == 0:
            if file is None:
                gates[name].wait()
            while file is not None and not Path(file).exists():
                time.sleep(0.02)
    if how in ("raising", "failing"):
        raise ValueError("upstream")


def emitter() -> SseEmitter:
    return SseEmitter(heartbeat=0.1, bare="greeting" not in request.args)


def refuse(how: str) -> None:
    request.get_data()  # as any such view reads its question: what came after a fast answer would reset the connection
    if how.isdigit():
        abort(Response("", int(how)))


@answers.post("/answers/<name>/<how>/chat/completions")
def chat_completions(name: str, how: str) -> ResponseReturnValue:
    """Answer as OpenAI does; ``failing`` tells the client nothing of the error."""
    refuse(how)
    fixed = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunks() -> Iterator[dict[str, Any]]:
        for text in texts(name, how):
            yield {**fixed, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        yield {**fixed, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

    def on_error(error: Exception) -> dict[str, Any]:
        return {"error": {"message": str(error), "type": "server_error"}}

    return emitter().send_from(noted(name, chunks()), done="[DONE]", on_error=on_error if how == "raising" else None)


@answers.post("/answers/<name>/<how>/v1/messages")
def messages(name: str, how: str) -> ResponseReturnValue:
    """Answer as Anthropic does: with named events, and a ping."""
    refuse(how)
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}

    def parts() -> Iterator[dict[str, Any]]:
        yield {"type": "message_start", "message": message}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield {"type": "ping"}
        for text in texts(name, how):
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
        yield {"type": "message_stop"}

    def on_error(error: Exception) -> Event:
        return Event({"type": "error", "error": {"type": "api_error", "message": str(error)}}, event="error")

    events = (Event(part, event=part["type"]) for part in parts())
    return emitter().send_from(noted(name, events), on_error=on_error if how == "raising" else None)


@answers.get("/datastar/<name>")
def datastar_page(name: str) -> ResponseReturnValue:
    """Send an event of Datastar with what the page has sent, then those that are published."""
    emitter = sse.channel(name).subscribe()
    emitter.send(Datastar.patch_signals({"read": read_signals(request)}))
    return emitter


@answers.route("/datastar/<name>", methods=["POST", "PUT", "PATCH", "DELETE"])
def datastar_action(name: str) -> ResponseReturnValue:
    """Answer with an event, and publish two to all pages."""
    sse.publish(name, Datastar.patch_elements("<b>a\nb</b>", selector="#rows", mode=ElementPatchMode.APPEND))
    sse.publish(name, Datastar.remove_elements("#old"))
    return SseEmitter().send_from([Datastar.patch_signals({"read": read_signals(request)})])


@answers.post("/mcp")
def mcp_request() -> ResponseReturnValue:
    """Answer a request of MCP: a tool's with its progress and its result, as events; all others as JSON."""
    call: dict[str, Any] = request.get_json()
    if "id" not in call:
        return "", 202
    if call["method"] == "tools/call":
        return SseEmitter(bare="greeting" not in request.args).send_from(run_tool(call))
    capabilities = {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}}}
    known = {
        "initialize": {**capabilities, "serverInfo": {"name": "flask", "version": "1"}},
        "tools/list": {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]},
    }
    if call["method"] not in known:
        return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "unknown"}}
    return {"jsonrpc": "2.0", "id": call["id"], "result": known[call["method"]]}


def run_tool(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    token = call["params"]["_meta"]["progressToken"]
    for number in range(1, 4):
        params = {"progressToken": token, "progress": number, "total": 3}
        yield {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    result = {"content": [{"type": "text", "text": "counted"}], "isError": False}
    yield {"jsonrpc": "2.0", "id": call["id"], "result": result}
