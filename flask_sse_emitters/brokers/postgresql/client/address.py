"""The address of a database, read from a URL."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: Is shown by ``pg_stat_activity``, unless the URL has another.
APPLICATION_NAME = "flask_sse_emitters"


class Address:
    """The address of a database: ``postgresql://user:password@host:5432/database?options``, as libpq takes it.

    :raises ValueError: where it is none.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError(f"{parts.scheme}:// is not a scheme of PostgreSQL")
        #: The URL as it may be shown: without a password.
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        try:
            self._options = {key: f"{value}" for key, value in conninfo_to_dict(url).items()}
        except psycopg.Error as error:  # which may show the password
            raise ValueError(f"{self.shown}: libpq does not know an option of it, or cannot read it") from error
        self._options.setdefault("application_name", APPLICATION_NAME)
        self._options.setdefault("client_encoding", "UTF8")

    def attempts(self) -> list[str]:
        """Return what to connect to, in this order: hosts are looked up here, as libpq would block all greenlets.

        :raises OSError: where no host is known.
        """
        found, error = [], None
        for host, port in self._hosts():
            options = {**self._options, "host": host, "port": port}
            try:
                addresses = _look_up(host, port) if "hostaddr" not in self._options else [self._options["hostaddr"]]
            except OSError as failed:
                error = failed
                continue
            for address in addresses:  # what is empty would hide PGHOST and the like
                given = {key: value for key, value in {**options, "hostaddr": address}.items() if value}
                found.append(make_conninfo(**given))
        if not found and error is not None:
            raise error
        return found

    def _hosts(self) -> Iterator[tuple[str, str]]:
        hosts = self._options.get("host", "").split(",")
        ports = self._options.get("port", "").split(",")
        for index, host in enumerate(hosts):
            yield host, ports[index] if len(ports) > 1 else ports[0]


def _look_up(host: str, port: str) -> list[str]:
    """Return the addresses of a host; one that is empty where there is nothing to look up."""
    if not host or host.startswith(("/", "@")):  # a unix socket, or what libpq takes by itself
        return [""]
    with suppress(ValueError):
        return [str(ip_address(host))]
    found = socket.getaddrinfo(host, int(port or 5432), type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
