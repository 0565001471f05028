"""What a forked child makes anew: it has none of its parent's threads, connections and clients.

Nor does anything release, in the child, the locks that other threads held at the fork.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary

log = logging.getLogger("flask_sse_emitters.fork")


def reset_after_fork(reset: Callable[[], None]) -> None:
    """Call this bound method in each forked child, for as long as its object lives; objects in order of registration.

    An object has one such method at most.
    """
    method = cast(MethodType, reset)
    _resets[method.__self__] = method.__func__


_resets: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()


def reset_all(resets: Mapping[Any, Callable[[Any], None]]) -> None:
    """Call each of these methods with its owner. Log what one raises, and go on."""
    for owner, reset in list(resets.items()):
        try:
            reset(owner)
        except Exception:  # the others must be reset all the same
            log.exception("%r could not be reset in a forked child", owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: reset_all(_resets))
