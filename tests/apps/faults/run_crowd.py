"""Runs that many clients read, over Redis: each begins in one worker, and waits for a file in its middle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import request
from flask.typing import ResponseReturnValue

from tests.apps.channels import app, sse

sse.channels("short-*", history_seconds=1)


@app.post("/start/<channel>")
def start(channel: str) -> ResponseReturnValue:
    """Publish ``count`` numbers in the background, ``seconds`` apart, the second half once there is this file."""
    count, seconds = int(request.args["count"]), float(request.args["seconds"])
    file = Path(request.args["file"])

    def numbers() -> Iterator[str]:
        for number in range(count):
            while number == count // 2 and not file.exists():
                time.sleep(0.05)
            yield str(number)
            time.sleep(seconds)

    sse.channel(channel).publish_from(numbers(), done="[DONE]")
    return {"pid": os.getpid()}
