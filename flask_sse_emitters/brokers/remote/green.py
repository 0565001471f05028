"""Whether a greenlet may wait for a server here: its sockets must be those of gevent."""

from __future__ import annotations

import sys

from ...errors import UnsupportedWorker
from ...runtime.gevent_loop import is_green


def require_patched_sockets(server: str) -> None:
    """Raise where a greenlet would wait for a socket that gevent does not know, and hold up all others.

    :param server: its name.
    """
    gevent = sys.modules.get("gevent")
    if gevent is None or _are_sockets_green():
        return
    if isinstance(gevent.getcurrent(), sys.modules["gevent.greenlet"].Greenlet):
        raise UnsupportedWorker(
            f"this runs in gevent, whose sockets are not patched, so waiting for {server} would block everybody: call "
            "gevent.monkey.patch_all() first, as gunicorn's gevent worker does"
        )


def _are_sockets_green() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and is_green() and bool(monkey.is_module_patched("socket"))
