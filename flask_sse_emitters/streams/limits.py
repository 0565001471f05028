"""How many streams there may be: of a process, a channel, a reader, an address."""

from __future__ import annotations

import ipaddress
import sys

#: A process opens so many files beside its clients' sockets, at most: for itself, and for requests that are no streams.
OTHER_FILES = 64


class Quota:
    """How many streams there may be of one kind. Those who count hold the guard of the app's streams.

    :param limit: as it is called where it is said.
    :param whose: streams these are, where the limit is for each of many.
    """

    __slots__ = ("count", "limit", "most", "whose")

    def __init__(self, limit: str, most: int, whose: str = "") -> None:
        self.limit = limit
        self.most = most
        self.whose = whose
        self.count = 0

    @property
    def name(self) -> str:
        """The limit without its number, and without what it holds for."""
        return self.limit.partition("=")[0]


def quota_of_process(max_clients: int) -> Quota:
    """Make the quota of all streams of a process: ``SSE_MAX_CLIENTS``, or less, where it may open too few files.

    Beyond its files a process could not accept any connection: also no health check, and no client that is sent away.
    """
    files = file_limit()
    if files is not None and files - OTHER_FILES < max_clients:
        return Quota(f"RLIMIT_NOFILE={files} (less {OTHER_FILES} for other files)", max(0, files - OTHER_FILES))
    return Quota(f"SSE_MAX_CLIENTS={max_clients}", max_clients)


def file_limit() -> int | None:
    """Give the number of files that this process may open; None for any number, or where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def network_of(address: str) -> str:
    """Give what an address counts for: itself, or its /64 of IPv6, which one customer may use whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return repr(address)
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
