"""``channels``, a bare call of Redis in place of publishing: ``POST /evalsha``; and what the garbage collector does.

``GET /collections`` says that, since it was last asked.
"""

from __future__ import annotations

import gc
import time
from functools import cache
from typing import Any

import redis

from .channels import app
from .evalsha import evalsha

OLDEST = 2  # generation: a full collection

began = 0.0
seen = {"longest": 0.0, "full": 0}


def note(phase: str, info: dict[str, Any]) -> None:
    global began
    if phase == "start":
        began = time.thread_time()
        return
    seconds = time.thread_time() - began
    seen["longest"] = max(seen["longest"], seconds)
    seen["full"] += info["generation"] == OLDEST


@app.get("/collections")
def collections() -> dict[str, float]:
    answer = dict(seen)
    seen.update(longest=0.0, full=0)
    return answer


@app.post("/evalsha")
def call_redis() -> str:
    return str(_evalsha()())


@cache
def _evalsha() -> Any:
    return evalsha(redis.Redis.from_url(app.config["SSE_BROKER_URL"]))


gc.callbacks.append(note)
