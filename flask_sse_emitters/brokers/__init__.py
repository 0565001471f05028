"""What keeps the events of channels and takes them to every process: one broker, picked by the scheme of a URL."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from .base import Broker, Listener, Published, Start

__all__ = ["GROUP", "Broker", "Listener", "Published", "Start", "make_broker"]

#: The entry points by which packages offer brokers of their own: the name is a URL scheme, the object makes a broker.
GROUP = "flask_sse_emitters.brokers"

_OWN = {"memory": ".memory:MemoryBroker"}


def make_broker(url: str) -> Broker:
    """The broker for a URL. It is imported here, and connects to nothing yet.

    :raises ValueError: where no broker is known for its scheme, or the broker does not take the URL.
    """
    scheme = urlsplit(url).scheme
    if scheme in _OWN:
        module, name = _OWN[scheme].split(":")
        factory = getattr(import_module(module, __name__), name)
    else:
        found = next(iter(entry_points(group=GROUP, name=scheme)), None)
        if found is None:
            known = sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})
            raise ValueError(
                f"no broker is known for {scheme or url!r}: known schemes are {', '.join(known)}; packages add more by "
                f"an entry point in the group {GROUP!r}"
            )
        factory = found.load()
    broker: Broker = factory(url)
    return broker
