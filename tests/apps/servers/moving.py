"""Streams of channels that move to another worker at a reload, and some that cannot. New code is in a file.

The file that ``MOVING`` names has JSON: ``config`` is the app's, and a reader who is in ``denied`` may read nothing.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
from pathlib import Path
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitters
from flask_sse_emitters.signals import emitter_moved

logging.basicConfig(level=logging.INFO)

code: dict[str, Any] = json.loads(Path(os.environ["MOVING"]).read_text())
app = Flask(__name__)
app.config.update(SSE_HEARTBEAT=0.5, SSE_RETRY=100, **code["config"])


@atexit.register  # before the extension's own: such calls are made in reverse
def show_moved() -> None:
    """Show what became of the streams of a worker that has stopped, and answers nothing any more."""
    logging.info("moved: %s", json.dumps(sse.stats()["moved"]))


sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.channels("public/*", public=True)
unnamed = SseEmitters()
signals: list[str] = []


@sse.authorizer
def may_read(_channel: str) -> str | None:
    user = request.headers.get("User")
    return None if user in code.get("denied", ()) else user


@emitter_moved.connect_via(app)
def note(_app: Flask, emitter: Any, direction: str) -> None:
    signals.append(f"{direction} {emitter.is_open}")


@app.get("/stats")
def stats() -> ResponseReturnValue:
    return {**sse.stats(), "signals": signals}


@app.get("/kept/<kind>")
def kept(kind: str) -> ResponseReturnValue:
    """Return a stream that stays, because of what it has in this process."""
    emitter = sse.channel("public/a").subscribe()
    if kind == "callbacks":
        emitter.on_completion(lambda: None)
    elif kind == "list":
        unnamed.add(emitter)
    elif kind == "attributes":
        emitter.thing = object()  # type: ignore[attr-defined]
    return emitter
