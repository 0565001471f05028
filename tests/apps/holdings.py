"""What a process holds: objects, memory, threads and descriptors."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import Counter
from typing import Any

import psutil

PACKAGE = "flask_sse_emitters."


def holdings() -> dict[str, Any]:
    """Return what this process holds, with the number of the package's objects of each class."""
    gc.collect()
    me, everything = psutil.Process(), gc.get_objects()
    kinds = Counter(type(each) for each in everything)
    greenlet = getattr(sys.modules.get("greenlet"), "greenlet", ())
    return {
        "pid": os.getpid(),
        "objects": {
            f"{kind.__module__}.{kind.__name__}".removeprefix(PACKAGE): count
            for kind, count in kinds.items()
            if str(kind.__module__).startswith(PACKAGE)
        },
        "greenlets": sum(count for kind, count in kinds.items() if issubclass(kind, greenlet)),
        "blocks": sys.getallocatedblocks(),  # of memory, for objects of any kind
        "rss": me.memory_info().rss,
        "uss": me.memory_full_info().uss,
        "threads": me.num_threads(),
        "python_threads": threading.active_count(),
        "descriptors": me.num_fds(),
    }
