"""Where a stream is to be had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import quote, urljoin, urlsplit

Headers: TypeAlias = tuple[tuple[str, str], ...]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, and what every request for it sends besides."""

    scheme: str
    host: str
    port: int
    path: str
    headers: Headers = ()
    verifies: bool = True  #: the server's certificate

    @classmethod
    def of(cls, url: str, headers: Headers = (), *, verifies: bool = True) -> Target:
        """
        :raises ValueError: where this is no URL of a stream.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("it must begin with http:// or https:// and a host")
        if "@" in parts.netloc:
            raise ValueError("a name and password go in a header: --header 'Authorization: Basic ...'")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
        port = parts.port or _PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname, port, f"{path}?{query}" if query else path, headers, verifies)

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        return self.origin + self.path

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    def redirected(self, location: str) -> Target:
        """Another origin gets none of the headers that were meant for this one.

        :raises ValueError: where it leads nowhere.
        """
        target = Target.of(urljoin(self.url, location), self.headers, verifies=self.verifies)
        return target if target.origin == self.origin else replace(target, headers=())

    def has(self, name: str) -> bool:
        return any(given.lower() == name.lower() for given, _ in self.headers)
