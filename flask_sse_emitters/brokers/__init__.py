"""Brokers keep the events of channels and carry them to every process; the scheme of a URL picks one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Unpack
from urllib.parse import urlsplit

from ..config.settings import DEFAULTS, Settings
from ..types import BrokerOptions
from ..wire.frame import CHANNEL_END, Frame
from .base import INTERRUPTED, Broker, ChannelState, Listener, MemberChange, Publication, Published, RunLost, Start
from .event_ids import Position, new_epoch
from .event_log import Bounds, Log

__all__ = [
    "CHANNEL_END",
    "GROUP",
    "INTERRUPTED",
    "Bounds",
    "Broker",
    "ChannelState",
    "Frame",
    "Listener",
    "Log",
    "MemberChange",
    "Position",
    "Publication",
    "Published",
    "RunLost",
    "Start",
    "broker_of",
    "make_broker",
    "new_epoch",
]

#: The entry points by which packages offer brokers of their own: the name is a URL scheme, the object makes a broker.
GROUP = "flask_sse_emitters.brokers"

_REDIS = ".redis:RedisBroker"
_POSTGRESQL = ".postgresql:PostgresqlBroker"
_OWN = {
    "memory": ".memory:MemoryBroker",
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "postgresql": _POSTGRESQL,
    "postgres": _POSTGRESQL,
}

#: The extra that installs a missing module.
_EXTRAS = {"redis": "redis", "psycopg": "postgresql"}


def broker_of(settings: Settings) -> Broker:
    """Make the broker that these settings name: see :func:`.make_broker`, also for the errors."""
    options: BrokerOptions = {}
    if settings.broker_prefix != DEFAULTS.broker_prefix:
        options["prefix"] = settings.broker_prefix
    if settings.publish_seconds != DEFAULTS.publish_seconds:
        options["publish_seconds"] = settings.publish_seconds
    if settings.broker_listen_url != DEFAULTS.broker_listen_url:
        options["listen_url"] = settings.broker_listen_url
    if settings.broker_listen_url and _OWN.get(urlsplit(settings.broker_url).scheme, _POSTGRESQL) != _POSTGRESQL:
        raise ValueError("SSE_BROKER_LISTEN_URL is for postgresql:// alone: leave it out, or change SSE_BROKER_URL")
    return make_broker(settings.broker_url, **options)


def make_broker(url: str, **options: Unpack[BrokerOptions]) -> Broker:
    """Make the broker for a URL. Its module is imported here, and it connects to nothing yet.

    :param options: ``prefix`` and ``publish_seconds``, see :class:`.Broker`, and ``listen_url``, which only PostgreSQL
        takes; pass only those that are not the default.
    :raises ValueError: where no broker is known for its scheme, or the broker does not take the URL.
    :raises ImportError: where a package that it needs is not installed.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise ValueError(f"{error}: give a URL such as redis://localhost:6379/0") from error
    factory = _import_own(scheme) if scheme in _OWN else _load_entry_point(scheme, url)
    return factory(url, **options)


def _import_own(scheme: str) -> Callable[..., Broker]:
    module, name = _OWN[scheme].split(":")
    try:
        found = import_module(module, __name__)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise ImportError(
            f"{scheme}:// needs the package {error.name}: pip install 'flask-sse-emitters[{_EXTRAS[error.name]}]'",
            name=error.name,
        ) from error
    factory: Callable[..., Broker] = getattr(found, name)
    return factory


def _load_entry_point(scheme: str, url: str) -> Callable[..., Broker]:
    found = next(iter(entry_points(group=GROUP, name=scheme)), None)
    if found is None:
        known = sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})
        raise ValueError(
            f"no broker is known for {scheme or url!r}: known schemes are {', '.join(known)}; packages add more by "
            f"an entry point in the group {GROUP!r}"
        )
    factory: Callable[..., Broker] = found.load()
    return factory
