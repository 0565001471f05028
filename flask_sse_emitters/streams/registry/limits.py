"""How many streams there may be: of a process, a channel, a reader, an address."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable

from ...config.settings import Settings

#: A process opens so many files beside its clients' sockets, at most: for itself, and for requests that are no streams.
OTHER_FILES = 64


class Limit:
    """How many streams there may be of one kind. The lock of the app's registry guards the count.

    :param text: the limit, as it is called in messages.
    :param maximum: so many.
    :param owner: whose streams these are, where the limit is for each of many.
    """

    __slots__ = ("__weakref__", "count", "maximum", "owner", "text")

    def __init__(self, text: str, maximum: int, owner: str = "") -> None:
        self.text = text
        self.maximum = maximum
        self.owner = owner
        self.count = 0

    @property
    def name(self) -> str:
        """The limit without its number, and without what it holds for."""
        return self.text.partition("=")[0]

    @property
    def is_reached(self) -> bool:
        """Whether there may be no more."""
        return self.count >= self.maximum


def limit_of_process(max_clients: int) -> Limit:
    """Make the limit of all streams of a process: ``SSE_MAX_CLIENTS``, or less, where it may open too few files.

    Beyond its files a process could not accept any connection: also no health check, and no client that is sent away.
    """
    files = file_limit()
    if files is not None and files - OTHER_FILES < max_clients:
        return Limit(f"RLIMIT_NOFILE={files} (less {OTHER_FILES} for other files)", max(0, files - OTHER_FILES))
    return Limit(f"SSE_MAX_CLIENTS={max_clients}", max_clients)


def limits_of_reader(settings: Settings, identities: Iterable[str], address: str | None) -> list[Limit]:
    """Make the limits that hold for each reader and each address.

    :param identities: of the reader; none where that is unknown.
    :param address: of the client; None where that is unknown.
    """
    limits = []
    maximum = settings.max_clients_per_identity
    if maximum is not None:
        text = f"SSE_MAX_CLIENTS_PER_IDENTITY={maximum}"
        limits += [Limit(text, maximum, f" of the identity {identity!r}") for identity in identities]
    maximum = settings.max_clients_per_address
    if maximum is not None and address:
        text = f"SSE_MAX_CLIENTS_PER_ADDRESS={maximum}"
        limits.append(Limit(text, maximum, f" of the address {network_of(address)}"))
    return limits


def file_limit() -> int | None:
    """Return the number of files that this process may open; None for any number, or where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def network_of(address: str) -> str:
    """Return what an address counts for: itself, or its /64 of IPv6, which one customer may use whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return repr(address)
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
