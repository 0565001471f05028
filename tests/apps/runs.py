"""Views that begin runs, and cancel them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE


def running(sse: SSE) -> Blueprint:
    views = Blueprint("runs", __name__)
    closed: set[str] = set()

    @views.get("/ask/<channel>")
    def ask(channel: str) -> Any:
        """Answer with so many numbers, so many seconds apart, and with a stream of them, which may be bare."""

        def numbers() -> Iterator[str]:
            try:
                for number in range(request.args.get("count", 10, int)):
                    yield str(number)
                    time.sleep(request.args.get("seconds", 0.0, float))
            finally:
                closed.add(channel)

        answer = sse.channel(channel)
        answer.publish_from(numbers(), done="[DONE]")
        return answer.subscribe(bare="bare" in request.args), 200, {"X-Worker": str(os.getpid())}

    @views.get("/held/<channel>")
    def held(channel: str) -> Any:
        """Answer with a word, and once there is a file with 50 more: a worker that stops takes no requests."""
        file = Path(request.args["file"])

        def words() -> Iterator[str]:
            yield "first"
            while not file.exists():
                time.sleep(0.02)
            for number in range(50):
                time.sleep(0.02)
                yield str(number)

        answer = sse.channel(channel)
        answer.publish_from(words(), done="[DONE]")
        return answer.subscribe(bare=True)

    @views.post("/cancel/<channel>")
    def cancel(channel: str) -> ResponseReturnValue:
        return {"was_running": sse.channel(channel).cancel()}

    @views.post("/complete/<channel>")
    def complete(channel: str) -> ResponseReturnValue:
        return {"id": sse.channel(channel).complete(request.get_json())}

    @views.get("/closed/<channel>")
    def is_closed(channel: str) -> ResponseReturnValue:
        return {"closed": channel in closed, "pid": os.getpid()}

    return views
