"""What a forked child makes anew: it has none of its parent's threads, connections and clients.

Nor does anything release, in the child, the locks that other threads held at the fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary


def reset_after_fork(reset: Callable[[], None]) -> None:
    """Call this bound method in each forked child, for as long as its object lives; objects in order of registration.

    An object has one such method at most.
    """
    method = cast(MethodType, reset)
    _resets[method.__self__] = method.__func__


_resets: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()


def _reset_all() -> None:
    for owner, reset in list(_resets.items()):
        reset(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
