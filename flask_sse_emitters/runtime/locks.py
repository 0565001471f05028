"""Native locks, which guard all state of this package.

gevent's patching turns ``threading`` into greenlets, and decides how a stream waits. It does not decide how state is
guarded: a patched lock that several operating system threads fight over waits for its owner's event loop, which may
itself be waiting (measured with gevent 26.9: four of each deadlocked). So locks are native either way. A lock is held
for a few statements that neither block, nor call foreign code, nor take a second lock: so no greenlet is ever switched
away while it holds one.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Protocol

from .fork import reset_after_fork
from .gevent_loop import unpatched

#: The number of locks that :func:`striped_lock` shares out.
STRIPES = 64


class Lock(Protocol):
    """A reentrant lock, used in a ``with`` statement only."""

    def __enter__(self) -> bool: ...
    def __exit__(self, *exc_info: object) -> None: ...


def native_lock() -> Lock:
    """Make a native lock, whatever has been patched.

    Reentrant, because the garbage collector may run foreign code wherever memory is asked for, and a finalizer that
    ends a stream, say, may need the very lock that is held here.
    """
    lock: Lock = unpatched("_thread", "RLock")()
    return lock


def fork_lock() -> Lock:
    """Make a native lock that a thread holds while it forks, so that no other thread does. To be made once, at import.

    It is held while another package holds a lock of its own, which nothing would release in a child forked meanwhile.
    So, unlike others, it is held while foreign code runs: a fork waits for that, and nothing else does.
    """
    lock = native_lock()

    def release() -> None:
        lock.__exit__(None, None, None)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.__enter__, after_in_parent=release, after_in_child=release)
    return lock


def striped_lock() -> Lock:
    """Return one of a few locks that thousands of small objects share.

    Measured for 10,000 clients (CPython 3.11) beside a native lock each: 96 bytes less a client, of some 2,000, and a
    delivery pass, which takes the lock of each client, 200 ns a client rather than 250, as locks of their own lie apart
    in memory. Eight threads that take locks at random get no less done. (A lock that is not reentrant is as slow, and
    takes 88 bytes.)
    """
    return _stripes.next()


class _Stripes:
    def __init__(self) -> None:
        self._turn = count()
        self._reset()
        reset_after_fork(self._reset)

    def next(self) -> Lock:
        return self._locks[next(self._turn) % STRIPES]

    def _reset(self) -> None:
        self._locks = [native_lock() for _ in range(STRIPES)]


_stripes = _Stripes()
