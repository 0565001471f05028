"""The address of Redis: one server, the master that sentinels know, or a cluster."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.connection import parse_url

_SCHEMES = re.compile(r"(?:(redis|rediss)(?:\+(sentinel|cluster))?|unix)", re.ASCII)

#: Options of a URL that a connection does not take.
_NOT_OF_CONNECTIONS = ("connection_class", "max_connections", "timeout", "sentinel_username", "sentinel_password")


class Address:
    """The address of Redis, read from a URL.

    ``redis://``, ``rediss://`` (TLS) and ``unix://`` are redis-py's own. ``redis+sentinel://host:port,host:port/service``
    asks sentinels for the master, and ``redis+cluster://host:port,host:port`` is a cluster: each with ``/db`` where
    there are databases, and redis-py's options as a query; ``rediss+...`` with TLS.

    :raises ValueError: where it is none of these.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        known = _SCHEMES.fullmatch(parts.scheme)
        if known is None:
            raise ValueError(f"{parts.scheme}:// is not a Redis scheme")
        self.kind = known[2] or "single"
        user, _, hosts = parts.netloc.rpartition("@")
        login = f"{user}@" if user else ""
        #: The URL as it may be shown: without a password.
        self.shown = f"{parts.scheme}://{hosts}{parts.path}"
        self.service = ""
        self.hosts: list[tuple[str, int]] = []
        if self.kind == "single":
            self.options = self._read(url)
            if parts.scheme == "unix" and not parts.path.strip("/"):
                raise ValueError("unix:// lacks the path of a socket: unix:///run/redis.sock")
            return
        self.hosts = [_host(host, 26379 if self.kind == "sentinel" else 6379) for host in hosts.split(",")]
        path = parts.path
        if self.kind == "sentinel":
            self.service, _, path = path.lstrip("/").partition("/")
            self.service = unquote(self.service)
            if not self.service:
                raise ValueError(f"{self.shown} lacks the name of the service: /mymaster")
        elif path.strip("/"):
            raise ValueError(f"a cluster has no databases, unlike {self.shown}")
        self.options = self._read(urlunsplit((known[1], f"{login}localhost", path, parts.query, "")))

    @property
    def db(self) -> int:
        """The number of the database."""
        return int(self.options.get("db", 0))

    def _read(self, url: str) -> dict[str, Any]:
        parsed: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        options: dict[str, Any] = {"connection_class": redis.Connection, **parsed}
        own = {key: value for key, value in options.items() if key not in _NOT_OF_CONNECTIONS}
        try:
            options["connection_class"](**own)  # which connects to nothing
        except (TypeError, redis.RedisError) as error:
            raise ValueError(f"{self.shown}: redis-py does not know an option of it: {error}") from error
        path = urlsplit(url).path.strip("/")
        if not urlsplit(url).scheme.startswith("unix") and path and not path.isdecimal():
            raise ValueError(f"{self.shown}: the path is the number of a database, not {path!r}")
        return options


def _host(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is not host:port")
    return parts.hostname, parts.port or port
