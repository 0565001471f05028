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


def holdings(*, is_at_rest: bool = True) -> dict[str, Any]:
    """Return what this process holds, with the number of the package's objects of each class.

    :param is_at_rest: no other thread runs. Else objects are not counted, but greenlets, which do not run meanwhile:
        ``gc.get_objects()`` has a tuple that another thread is building as well, whose ``tuple(...)`` then fails with a
        SystemError.
    """
    gc.collect()
    me = psutil.Process()
    everything = gc.get_objects() if is_at_rest or "gevent" in sys.modules else []
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
