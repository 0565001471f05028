"""Chats whose answers go on without their readers, as npm "ai" and its ``useChat`` ask for them.

What many workers share is in a folder, in place of a database: the messages of each chat, and its newest answer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import abort, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import Channel
from tests.apps.base import make_app

FOLDER = Path(os.environ["FOLDER"])

#: What the client takes for the stream of a message.
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}

app, sse = make_app(__name__, SSE_HEARTBEAT=0.1)
sse.channels("chat/*", history=100_000, history_seconds=3600)


def messages_of(chat: str) -> list[dict[str, Any]]:
    file = FOLDER / f"{chat}.json"
    found: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return found


def save(chat: str, message: dict[str, Any]) -> None:
    """Add a message. The file is never seen half written."""
    new = FOLDER / f"{chat}.new"
    new.write_text(json.dumps([*messages_of(chat), message]))
    new.rename(FOLDER / f"{chat}.json")


def newest_answer(chat: str) -> Channel | None:
    file = FOLDER / f"{chat}.answer"
    return sse.channel(file.read_text()) if file.exists() else None


def allowed(chat: str) -> int:
    """Return how many words a test has allowed so far."""
    file = FOLDER / f"{chat}.allowed"
    return int(file.read_text() or 0) if file.exists() else 0


def parts(chat: str, question: str) -> Iterator[dict[str, Any]]:
    """Answer with the words of the question, as they are allowed, and save the whole; note the end in any case."""
    number, text = 0, ""
    answer = {"id": uuid4().hex, "role": "assistant"}
    try:
        yield {"type": "start", "messageId": answer["id"]}
        yield {"type": "text-start", "id": "text"}
        for number, word in enumerate(question.split(), 1):
            while allowed(chat) < number:
                time.sleep(0.02)
            if word == "fail":
                raise ValueError("upstream")
            text += f"{word} "
            yield {"type": "text-delta", "id": "text", "delta": f"{word} "}
        yield {"type": "text-end", "id": "text"}
        save(chat, {**answer, "parts": [{"type": "text", "text": text}]})
        yield {"type": "finish"}
    finally:
        (FOLDER / f"{chat}.closed").write_text(str(number))


def error_part(error: BaseException) -> dict[str, Any]:
    return {"type": "error", "errorText": f"the model has failed: {error}"}


@app.post("/api/chat/<chat>")
def ask(chat: str) -> Any:
    message = request.get_json()["message"]
    question = message["parts"][0]["text"]
    if "busy" in question:
        abort(503)
    save(chat, message)
    answer = sse.channel(f"chat/{chat}/{uuid4()}")
    on_error = None if "untold" in question else error_part
    answer.publish_from(parts(chat, question), done="[DONE]", on_error=on_error)
    (FOLDER / f"{chat}.answer").write_text(answer.name)
    return answer.subscribe(since="first", bare="plainly" not in question), 200, HEADERS


@app.get("/api/chat/<chat>/stream")
def resume(chat: str) -> Any:
    answer = newest_answer(chat)
    if answer is None or not (answer.is_running or answer.is_complete):
        return "", 204
    return answer.subscribe(since="first", bare=True), 200, HEADERS


@app.post("/api/chat/<chat>/stop")
def stop(chat: str) -> ResponseReturnValue:
    answer = newest_answer(chat)
    return {"was_running": answer is not None and answer.cancel()}


@app.get("/api/chat/<chat>")
def saved(chat: str) -> ResponseReturnValue:
    return messages_of(chat)


@app.post("/cut/<chat>")
def cut(chat: str) -> ResponseReturnValue:
    """Break the connections of the readers here, as a network may."""
    answer = newest_answer(chat)
    assert answer is not None
    for emitter in answer.emitters:
        emitter.abort()
    return {}


@app.get("/chats/<chat>")
def page(chat: str) -> ResponseReturnValue:
    """Return a page with a chat, whose script a test adds."""
    return (
        f'<!doctype html><title>{chat}</title><main id="chat"></main><script type="module" src="/use-chat.js"></script>'
    )


@app.get("/state")
def state() -> ResponseReturnValue:
    return {"pid": os.getpid()}
