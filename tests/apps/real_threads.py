"""Functions and threads of the operating system for apps, whatever gevent has patched."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any


def is_patched() -> bool:
    """Return whether threads are greenlets here."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def original(module: str, name: str) -> Any:
    """Return what a module had under this name before gevent patched it."""
    if is_patched():
        from gevent.monkey import get_original

        return get_original(module, name)
    return getattr(import_module(module), name)


def start_thread(call: Callable[..., object], *arguments: object) -> Callable[[], object]:
    """Call on a real thread, and return a function that waits for its end."""
    if is_patched():
        from gevent.hub import get_hub

        wait: Callable[[], object] = get_hub().threadpool.spawn(call, *arguments).get
        return wait
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread.join
