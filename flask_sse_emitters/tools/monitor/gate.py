"""Who may see the monitor, and publish with it."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from flask import Response, current_app, request

from ...access import origins
from ...access.rules import ask_rule
from ...errors import AccessDenied
from ...server.denials import deny

log = logging.getLogger("flask_sse_emitters.monitor.gate")

MonitorRule: TypeAlias = Callable[[], bool]

#: As whom a browser knows its own machine, with a port or without. Any other name may be one that somebody else has
#: pointed here after it had given the browser a page (DNS rebinding), which would then be a page of this site.
_LOCAL = re.compile(
    r"(?:(?:[a-z0-9_-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]*)?", re.ASCII | re.IGNORECASE
)

#: By these headers proxies show themselves. A proxy that sends none looks like a browser on this machine.
_FORWARDED = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Real-Ip",
)

_CLOSED = (
    "the monitor is closed, because the app is not in debug mode and nobody has opened it: say who may see it, "
    "with @sse.monitor_access"
)

_NOT_LOCAL = (
    "the monitor is open in debug mode, but only to browsers on this machine, at localhost, 127.0.0.1 or [::1], and "
    "through no proxy, not {}: say who else may see it, with @sse.monitor_access"
)


class Gate:
    """Of the monitor of one :class:`.SSE`.

    :ivar rule: says whether whoever asks may see the monitor; None where the app's debug mode alone decides, and opens
        it to requests that come from a loopback address, to a name of this machine, and that no proxy has marked as
        somebody else's.
    """

    def __init__(self) -> None:
        self.rule: MonitorRule | None = None
        self._said_closed = False

    def check(self) -> Response | None:
        """Of the request that is pushed here.

        :return: what to answer where it may not go on.
        """
        try:
            _check_origin()
            self._ask()
        except AccessDenied as error:
            log.debug("%s %r is denied: %s", request.method, request.path, error)
            return deny(error)
        return None

    def _ask(self) -> None:
        if self.rule is None:
            if not current_app.debug:
                self._say_closed()
                raise AccessDenied(_CLOSED)
            elsewhere = _elsewhere()
            if elsewhere is not None:
                raise AccessDenied(_NOT_LOCAL.format(elsewhere))
            return
        said: Any = ask_rule(self.rule, "rule of the monitor")
        if said is not True:
            if said not in (False, None):
                log.error("the rule of the monitor must return True or False, not %r, which denies", said)
            raise AccessDenied(f"the rule of the monitor returned {said!r}")

    def _say_closed(self) -> None:
        if not self._said_closed:
            self._said_closed = True
            log.warning("%s; this is said once", _CLOSED)


def _check_origin() -> None:
    """Deny pages of other sites, also those that may read channels: ``SSE_CORS_ORIGINS`` says nothing of this.

    A link to the page from elsewhere, and a login that leads back to it, are let through: no other site can look into
    the page then, frame it, or do anything with it.

    :raises AccessDenied: where one of them asks.
    """
    origin = origins.foreign_origin()
    if origin is not None and not _is_visit():
        raise AccessDenied(
            f"a page of {origin!r} asks for the monitor, which is for its own page alone; behind a proxy that changes "
            "Host, put werkzeug.middleware.proxy_fix.ProxyFix with x_host=1 around app.wsgi_app"
        )


def _elsewhere() -> str | None:
    """Say what shows that no browser on this machine sends the current request; None where nothing does."""
    if not _LOCAL.fullmatch(request.host):
        return f"at {request.host!r}"
    if not _is_loopback(request.remote_addr or ""):
        return f"from {request.remote_addr!r}"
    if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":  # no browser's, but nginx's where nobody has set another
        return "in HTTP/1.0, as proxies ask"
    header = next((name for name in _FORWARDED if name in request.headers), None)
    return None if header is None else f"with the header {header}"


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _is_visit() -> bool:
    """Whether somebody follows a link to the page itself."""
    is_page = request.endpoint is not None and request.endpoint.rpartition(".")[2] == "page"
    sent = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest"))
    return is_page and "Origin" not in request.headers and sent == ("navigate", "document")
