"""The example, whose answers come quickly, and pause after five words for as long as a file exists."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Response
from flask.typing import ResponseReturnValue

import example_app
from flask_sse_emitters import Event

HELD = Path(os.environ["ANSWERS_HELD"])

write_answer = example_app.write_answer


def write_held(asked: dict[str, str]) -> Iterator[Event | str]:
    for number, item in enumerate(write_answer(asked)):  # the first is the question
        while number > 5 and HELD.exists():
            time.sleep(0.01)
        yield item


example_app.write_answer = write_held
example_app.PAUSE = 0.01, 0.02
app = example_app.app


@app.get("/state")
def state() -> ResponseReturnValue:
    return {"pid": os.getpid()}


@app.after_request
def name_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response
