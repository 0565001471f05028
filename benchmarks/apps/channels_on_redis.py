"""``channels``, and what the garbage collector does to its worker: ``GET /collections``, since it was last asked."""

from __future__ import annotations

import gc
import time
from typing import Any

from .channels import app

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


gc.callbacks.append(note)
