"""Decide who may see the monitor, and publish with it."""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import Any

from flask import Response, current_app, request

from ...access import origins
from ...access.rules import ask_rule, check_rule
from ...errors import AccessDenied
from ...server.denials import deny
from ...types import MonitorRule

log = logging.getLogger("flask_sse_emitters.monitor.gate")

#: Host names of the local machine, with a port or without. Another site may point any other name here after a browser
#: has loaded its page (DNS rebinding); that page would then share the monitor's origin.
_LOCAL_HOST = re.compile(
    r"(?:(?:[a-z0-9_-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]*)?", re.ASCII | re.IGNORECASE
)

#: Headers that proxies add. A proxy that adds none looks like a browser on this machine.
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
    "the monitor is closed, because the app is not in debug mode and has no rule for it: decide who may see it, with "
    "@sse.monitor_access"
)

_NOT_LOCAL = (
    "the monitor is open in debug mode, but only to browsers on this machine, at localhost, 127.0.0.1 or [::1], and "
    "through no proxy, not {}: decide who else may see it, with @sse.monitor_access"
)


class MonitorAccess:
    """The access rule for the monitor of one :class:`.SSE`.

    Without a rule, only debug mode opens the monitor, to requests that come from a loopback address, name this machine
    as their host, and show no sign of a proxy.
    """

    def __init__(self) -> None:
        self._rule: MonitorRule | None = None
        self._is_closed_logged = False

    def set_rule(self, rule: MonitorRule) -> None:
        """Set the rule, which returns whether the current request may use the monitor.

        :raises TypeError: where it is no function, or an async one.
        :raises RuntimeError: where another one is set already.
        """
        check_rule(rule, self._rule, "a monitor_access", "without arguments")
        self._rule = rule

    def check(self) -> Response | None:
        """Check the current request. May block, as the rule may.

        :return: the response that denies it; None where it may go on.
        """
        try:
            _check_origin()
            self._check_rule()
        except AccessDenied as error:
            log.debug("%s %r is denied: %s", request.method, request.path, error)
            return deny(error)
        return None

    def _check_rule(self) -> None:
        if self._rule is None:
            self._check_debug_mode()
            return
        answer: Any = ask_rule(self._rule, "rule of the monitor")
        if answer is not True:
            if answer not in (False, None):
                log.error("the rule of the monitor must return True or False, not %r, which denies", answer)
            raise AccessDenied(f"the rule of the monitor returned {answer!r}")

    def _check_debug_mode(self) -> None:
        if not current_app.debug:
            self._log_closed()
            raise AccessDenied(_CLOSED)
        reason = _find_reason_not_local()
        if reason is not None:
            raise AccessDenied(_NOT_LOCAL.format(reason))

    def _log_closed(self) -> None:
        if not self._is_closed_logged:
            self._is_closed_logged = True
            log.warning("%s; this is logged once", _CLOSED)


def _check_origin() -> None:
    """Deny requests of other sites' pages, including those that ``SSE_CORS_ORIGINS`` allows to read channels.

    A link from another site to the page, and a login that redirects to it, may pass: the other site can neither read
    the page then, nor frame it, nor act in it.

    :raises AccessDenied: where another site's page sends the request.
    """
    origin = origins.foreign_origin()
    if origin is not None and not _is_visit():
        raise AccessDenied(
            f"a page of {origin!r} requests the monitor, which is for its own page alone; behind a proxy that changes "
            "Host, put werkzeug.middleware.proxy_fix.ProxyFix with x_host=1 around app.wsgi_app"
        )


def _find_reason_not_local() -> str | None:
    """Return what shows that the current request comes from no browser on this machine; None where nothing does."""
    if not _LOCAL_HOST.fullmatch(request.host):
        return f"at {request.host!r}"
    if not _is_loopback(request.remote_addr or ""):
        return f"from {request.remote_addr!r}"
    if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":  # nginx sends it by default, browsers never do
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
    """Return whether the request follows a link to the page itself."""
    is_page = request.endpoint is not None and request.endpoint.rpartition(".")[2] == "page"
    sent = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest"))
    return is_page and "Origin" not in request.headers and sent == ("navigate", "document")
