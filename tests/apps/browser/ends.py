"""Streams for clients of others: each request of a name is answered as the next word of a plan says."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Response, abort, request, send_from_directory
from flask.typing import ResponseReturnValue

from flask_sse_emitters import Event, SseEmitter
from tests.apps.base import make_app

TESTS = Path(__file__).parents[2]

#: The folder in which ``make`` installs npm packages.
PACKAGES = TESTS.parent / "build" / "npm" / "node_modules"

#: Seconds until a stream ends that is to end for now.
LIFETIME = 0.05

app, sse = make_app(__name__, SSE_RETRY=100)
sse.authorizer(lambda _: True)

#: The last ids of the requests of each name.
visits: defaultdict[str, list[str | None]] = defaultdict(list)

#: Lets the answers of this name go on.
gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)


def event_of(text: str) -> Event:
    """Return an event in the form that the client needs, for the element that it names."""
    form, target = request.args.get("form"), request.args.get("target")
    if form == "datastar":
        return Event(f'fragments <p id="{target}">{text}</p>', event="datastar-merge-fragments")
    if form == "turbo":
        html = f"<template>\n<p>{text}</p>\n</template>"
        return Event(f'<turbo-stream action="append" target="{target}">{html}</turbo-stream>')
    return Event(text)


@app.get("/planned/<name>/<plan>")
def planned(name: str, plan: str) -> ResponseReturnValue:
    """Answer the first request as the first word says, and so on; the last one holds for all that follow."""
    words = plan.split("-")
    visits[name].append(request.headers.get("Last-Event-ID"))
    number = len(visits[name])
    word = words[min(number, len(words)) - 1]
    if word == "busy":
        abort(503)
    if word == "nothing":
        return "", 204
    emitter = SseEmitter(timeout=0 if word in ("final", "stay") else LIFETIME, end="cut" if word == "cut" else "clean")
    event = event_of(f"answer {number}")
    emitter.send(event.data, event=event.event, id=f"id-{number}")
    if word == "final":
        emitter.complete(final=True)
    return emitter


@app.get("/visits/<name>")
def visits_of(name: str) -> ResponseReturnValue:
    return visits[name]


@app.post("/open/<name>")
def open_gate(name: str) -> ResponseReturnValue:
    gates[name].set()
    return {}


def answered(name: str, parts: list[Any], fails: bool) -> Iterator[Any]:
    """Give the parts, and something for no one in between; the last one when the gate is open."""
    *most, last = parts
    for part in most:
        yield part
        yield Event(comment="still there")
    assert gates[name].wait(60)
    if fails:
        raise ValueError("upstream")
    yield last


def chunk(**choice: Any) -> dict[str, Any]:
    """Return a part of an answer, as OpenAI's interface has it."""
    choices = [{"index": 0, "finish_reason": None, "delta": {}, **choice}]
    return {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}


@app.post("/v1/chat/completions")
def completions() -> ResponseReturnValue:
    """Answer with the words of the last message, as OpenAI's interface has it."""
    asked = request.get_json()
    words = asked["messages"][-1]["content"].split()
    parts = [chunk(delta={"content": word}) for word in words] + [chunk(finish_reason="stop")]
    return SseEmitter(bare=True, heartbeat=0.05).send_from(
        answered(asked["user"], parts, "fail" in words or "tell" in words),
        done="[DONE]",
        on_error=(lambda error: {"error": {"message": str(error)}}) if "tell" in words else None,
    )


@app.post("/api/chat")
def chat() -> ResponseReturnValue:
    """Answer with the words of the last message, as the AI SDK's interface has it."""
    asked = request.get_json()
    words = asked["messages"][-1]["parts"][0]["text"].split()
    parts = [
        {"type": "start", "messageId": "answer-1"},
        {"type": "text-start", "id": "text-1"},
        *({"type": "text-delta", "id": "text-1", "delta": f"{word} "} for word in words),
        {"type": "text-end", "id": "text-1"},
        {"type": "finish"},
    ]
    emitter = SseEmitter(bare=True, heartbeat=0.05).send_from(
        answered(asked["id"], parts, "fail" in words or "tell" in words),
        done="[DONE]",
        on_error=(lambda error: {"type": "error", "errorText": str(error)}) if "tell" in words else None,
    )
    return emitter.response(headers={"x-vercel-ai-ui-message-stream": "v1"})


@app.get("/empty")
def empty() -> ResponseReturnValue:
    """Return a page to which a test adds scripts."""
    return "<!doctype html><title>a page</title>"


@app.get("/pages/<path:path>")
def page(path: str) -> Response:
    return send_from_directory(TESTS / "browser" / "clients" / "ends", path)


@app.get("/packages/<path:path>")
def package(path: str) -> Response:
    return send_from_directory(PACKAGES, path)
