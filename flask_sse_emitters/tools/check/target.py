"""The address of a stream to check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import quote, urljoin, urlsplit

Headers: TypeAlias = tuple[tuple[str, str], ...]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, and the headers that every request for it sends.

    :ivar path: with the query, quoted for a request line.
    :ivar verifies: whether the server's certificate must be valid.
    """

    scheme: str
    host: str
    port: int
    path: str
    headers: Headers = ()
    verifies: bool = True

    @classmethod
    def of(cls, url: str, headers: Headers = (), *, verifies: bool = True) -> Target:
        """Make the target of this URL.

        :raises ValueError: where this cannot be the URL of a stream.
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
        """The origin as browsers write it, without a default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole URL."""
        return self.origin + self.path

    @property
    def is_tls(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme == "https"

    def redirected(self, location: str) -> Target:
        """Return the target of a redirect. Another origin gets none of this one's headers.

        :raises ValueError: where the location cannot be a stream.
        """
        target = Target.of(urljoin(self.url, location), self.headers, verifies=self.verifies)
        return target if target.origin == self.origin else replace(target, headers=())

    def has(self, name: str) -> bool:
        """Return whether every request sends this header."""
        return any(given.lower() == name.lower() for given, _ in self.headers)
