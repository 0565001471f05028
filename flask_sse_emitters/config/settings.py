"""The values that an app's config sets, their checks, and the defaults for code outside of any app."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from ..types import Drain, EndForNow, Overflow
from ..wire.event import Dumps, plain_text
from ..wire.frame import FINAL_BLOCK

Handoff: TypeAlias = Literal["auto", "on", "off"]
Move: TypeAlias = Literal["auto", "off"]

#: Stands for an argument that was left out, where None means something else.
UNSET: Any = object()

#: A source of its own, because apps may seed the shared one and rely on its numbers.
CHANCE = random.SystemRandom()

#: So many variants of an app's settings are kept, for streams that have the same options: an app that draws a lifetime
#: for each client would have a variant for each.
MAX_SHARED_VARIANTS = 64

_PREFIX = re.compile(r"[A-Za-z0-9._\-:/]{1,100}", re.ASCII)

_ORIGIN = re.compile(r"([a-z][a-z0-9+.\-]*)://([a-z0-9.\-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of one app. The config key of each field is its name in capitals, after ``SSE_``.

    But for the last ones, which only an emitter may have otherwise.
    """

    timeout: float = 1800.0
    heartbeat: float = 15.0
    retry: int | None = 3000
    max_pending: int = 1000
    max_pending_bytes: int = 1_048_576
    overflow: Overflow = "close"
    end: EndForNow = "clean"
    ahead: int = 16
    attach_seconds: float = 30.0
    write_seconds: float = 30.0
    handoff: Handoff = "auto"
    max_event_bytes: int = 1_048_576
    max_clients: int = 10_000
    history: int = 1000
    history_seconds: float = 300.0
    broker_url: str = "memory://"
    broker_prefix: str = "sse"
    broker_listen_url: str | None = None
    publish_seconds: float = 2.0
    drain_seconds: float = 5.0
    move: Move = "auto"
    max_clients_per_identity: int | None = None
    max_clients_per_address: int | None = None
    cors_origins: tuple[str, ...] = ()

    #: Encodes an event's data as JSON.
    dumps: Dumps = json.dumps
    #: Pushes the app's context; None where there is no app.
    app_context: Callable[[], AbstractContextManager[Any]] | None = None

    #: Nothing is written but events without ids, and comments.
    bare: bool = False
    #: What a worker that stops does with the stream.
    drain: Drain = "end"
    #: An iterable is pulled for it.
    is_produced: bool = False

    #: What the stream's view has given, by name: that holds in any app.
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    _variants: dict[tuple[tuple[str, Any], ...], Settings] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def with_own(self, own: Mapping[str, Any]) -> Settings:
        """Return these settings with some that a stream has of its own.

        Streams with the same ones share the result: a copy for each would be a sixth of what an idle client takes.
        """
        if not own:
            return self
        key = tuple(own.items())
        variant = self._variants.get(key)
        if variant is None:
            variant = replace(self, **own, own=own)
            if len(self._variants) < MAX_SHARED_VARIANTS:
                self._variants[key] = variant
        return variant

    def config_values(self) -> dict[str, Any]:
        """Return the values that the app's config sets, by field."""
        return {name: getattr(self, name) for name in _CHECKS}

    @property
    def final_block(self) -> bytes:
        """What a client is written last where its stream is over for good."""
        return b"" if self.bare else FINAL_BLOCK

    def first_retry(self) -> int | None:
        """Return the milliseconds that the client is told first; None where it is told none."""
        return None if self.bare else self.retry

    def spread_retry(self) -> int | None:
        """Draw the milliseconds until a client reconnects, so that clients sent away do not all come back at once.

        None where it is told none.
        """
        return None if self.bare or self.retry is None else CHANCE.randint(self.retry // 2, self.retry * 2)

    def context(self) -> AbstractContextManager[Any]:
        """Return the app's context, to be entered; without an app, one that does nothing."""
        return nullcontext() if self.app_context is None else self.app_context()


DEFAULTS = Settings()


def read_config(config: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an app's config sets, checked. Keys that it lacks are added to it with their defaults.

    :raises ValueError: names the key and the accepted values.
    """
    values = {}
    for each in fields(Settings):
        if each.name in _CHECKS:
            key = f"SSE_{each.name.upper()}"
            values[each.name] = checked(each.name, config.setdefault(key, each.default), key)
    return values


def checked(field: str, value: Any, called: str = "") -> Any:
    """Return the value as the field has it, durations as float seconds.

    :param called: the name of the field in the error, as the user knows it.
    :raises ValueError: names the field and the accepted values.
    """
    accepts, convert = _CHECKS.get(field) or _CHECKS_OF_EMITTERS[field]
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{called or field} must be {accepts}, not {value!r}") from None


def _duration(value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number(value, int, float)
    if not (0 <= seconds < math.inf):
        raise ValueError
    return float(seconds)


def _positive_duration(value: Any) -> float:
    seconds = _duration(value)
    if not seconds:
        raise ValueError
    return seconds


def _milliseconds(value: Any) -> int | None:
    return None if value is None else _count(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _bound(value: Any) -> int:
    if _number(value, int) < 1:
        raise ValueError
    return int(value)


def _bound_or_none(value: Any) -> int | None:
    return None if value is None else _bound(value)


def _count(value: Any) -> int:
    if _number(value, int) < 0:
        raise ValueError
    return int(value)


def _url(value: Any) -> str:
    if not isinstance(value, str) or "://" not in value:
        raise ValueError
    return plain_text(value)


def _url_or_none(value: Any) -> str | None:
    return None if value is None else _url(value)


def _prefix(value: Any) -> str:
    if not isinstance(value, str) or not _PREFIX.fullmatch(plain_text(value)):
        raise ValueError
    return plain_text(value)


def _origins(value: Any) -> tuple[str, ...]:
    origins = (value,) if isinstance(value, str) else tuple(value)
    if "*" in origins and len(origins) > 1:
        raise ValueError
    return tuple(origin if origin == "*" else _origin(origin) for origin in origins)


def _origin(value: Any) -> str:
    """Return the origin as browsers write it (RFC 6454, section 6.2): in lower case, without its scheme's own port."""
    found = _ORIGIN.fullmatch(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" + ("" if port in (None, _PORTS.get(scheme)) else f":{port}")


def _one_of(*words: str) -> Callable[[Any], str]:
    def word(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return plain_text(value)

    return word


def _number(value: Any, *kinds: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError
    return value


_SECONDS_OR_NEVER = ("seconds as a number or a timedelta, 0 for never", _duration)
_CHECKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "timeout": _SECONDS_OR_NEVER,
    "heartbeat": _SECONDS_OR_NEVER,
    "retry": ("an int of milliseconds, 0 or more, or None", _milliseconds),
    "end": ('"clean" or "cut"', _one_of("clean", "cut")),
    "ahead": ("an int, 1 or more", _bound),
    "max_pending": ("an int, 1 or more", _bound),
    "max_pending_bytes": ("an int, 1 or more", _bound),
    "overflow": ('"close", "drop_oldest" or "coalesce"', _one_of("close", "drop_oldest", "coalesce")),
    "handoff": ('"auto", "on" or "off"', _one_of("auto", "on", "off")),
    "max_event_bytes": ("an int, 1 or more", _bound),
    "max_clients": ("an int, 1 or more", _bound),
    "max_clients_per_identity": ("an int, 1 or more, or None for any number", _bound_or_none),
    "max_clients_per_address": ("an int, 1 or more, or None for any number", _bound_or_none),
    "cors_origins": (
        'a list of origins, such as ["https://example.com"] with no slash at the end, or "*" alone',
        _origins,
    ),
    "history": ("an int, 0 or more", _count),
    "history_seconds": ("seconds as a number or a timedelta, 0 for as long as SSE_HISTORY allows", _duration),
    "broker_url": ('a URL, such as "memory://" or "redis://localhost:6379/0"', _url),
    "broker_listen_url": ("a URL such as postgresql://localhost/database, or None", _url_or_none),
    "broker_prefix": ("1 to 100 ASCII letters, digits and . _ - : /", _prefix),
    "publish_seconds": ("seconds as a number or a timedelta, more than 0", _positive_duration),
    "drain_seconds": ("seconds as a number or a timedelta, 0 or more", _duration),
    "move": ('"auto" or "off"', _one_of("auto", "off")),
    "write_seconds": _SECONDS_OR_NEVER,
    "attach_seconds": ("seconds as a number or a timedelta, more than 0", _positive_duration),
}

#: Of fields that are no config keys.
_CHECKS_OF_EMITTERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "bare": ("True or False", _flag),
    "drain": ('"end" or "finish"', _one_of("end", "finish")),
}
