"""Hints at config values that are valid and probably a mistake."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from .settings import DEFAULTS, Settings

#: The names of all keys, without their ``SSE_``.
_NAMES = [field.name.upper() for field in fields(Settings) if field.name not in ("dumps", "app_context")]

#: Flask-SSE reads these keys, in this order.
_FLASK_SSE_KEYS = ("SSE_REDIS_URL", "REDIS_URL")

#: A lifetime of so many seconds or more is suspected if it is a multiple of the step. No number of whole hours is, up
#: to a day.
_SUSPECTED_SECONDS, _SUSPECTED_STEP = 10_000, 5_000

_DAY_SECONDS = 86_400


def config_hints(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each key that is probably a mistake; it says what to change.

    :param config: an app's, before the defaults of this package are added.
    """
    lifetime = lifetime_hint("SSE_TIMEOUT", config.get("SSE_TIMEOUT"))
    hints = [*_unknown_keys(config), *_broker_url_elsewhere(config), *_too_little_pending(config)]
    return hints if lifetime is None else [*hints, lifetime]


def lifetime_hint(called: str, value: Any) -> str | None:
    """Return a sentence if this lifetime was probably meant to be milliseconds, as in Spring; else None.

    A number of more than a day is suspected, and one such as 30000 or 60000. A timedelta is unambiguous.
    """
    if isinstance(value, timedelta) or value is None or value < _SUSPECTED_SECONDS:
        return None
    if value <= _DAY_SECONDS and value % _SUSPECTED_STEP:
        return None
    return (
        f"{called}={value} is {value / 3600:,.1f} hours: it takes seconds, not milliseconds as in Spring. Write "
        f"{called}={value / 1000:g} if milliseconds were meant, and a timedelta if not"
    )


def _unknown_keys(config: Mapping[str, Any]) -> list[str]:
    ours = [key for key in config if isinstance(key, str) and key.startswith("SSE_") and key not in _FLASK_SSE_KEYS]
    return [
        f"the config key {key} is not one of flask_sse_emitters, and changes nothing: {_nearest(key)}"
        for key in ours
        if key.removeprefix("SSE_") not in _NAMES
    ]


def _nearest(key: str) -> str:
    name = key.removeprefix("SSE_")
    begins_it = sorted((each for each in _NAMES if name.startswith(each)), key=len, reverse=True)
    near = begins_it or get_close_matches(name, _NAMES, n=1)
    return f"did you mean SSE_{near[0]}?" if near else f"its keys are {', '.join(f'SSE_{name}' for name in _NAMES)}"


def _too_little_pending(config: Mapping[str, Any]) -> list[str]:
    pending = config.get("SSE_MAX_PENDING_BYTES", DEFAULTS.max_pending_bytes)
    event = config.get("SSE_MAX_EVENT_BYTES", DEFAULTS.max_event_bytes)
    hint = (
        f"SSE_MAX_PENDING_BYTES={pending} is less than SSE_MAX_EVENT_BYTES={event}: an event with a size between them "
        f"can be published, and reaches no connected client. Set SSE_MAX_EVENT_BYTES={pending}, or raise the other"
    )
    return [hint] if pending < event else []


def _broker_url_elsewhere(config: Mapping[str, Any]) -> list[str]:
    """Return a hint where the URL of a broker is set in a place that this package does not read.

    ``REDIS_URL`` counts only in the config: hosting services put it into the environment of every app, also for a
    cache. ``SSE_BROKER_URL`` has one meaning, and so counts in the environment too.
    """
    if "SSE_BROKER_URL" in config:
        return []
    if "SSE_BROKER_URL" in os.environ:
        where, source = (
            "SSE_BROKER_URL is set in the environment, and not in the config",
            'os.environ["SSE_BROKER_URL"]',
        )
    elif key := next((key for key in _FLASK_SSE_KEYS if config.get(key)), None):
        where, source = f"{key} is set in the config, and SSE_BROKER_URL is not", f'app.config["{key}"]'
    else:
        return []
    return [
        (
            f"{where}: channels stay in this process. Where they should not, write "
            f'app.config["SSE_BROKER_URL"] = {source} before SSE(app); where they should, "memory://" says so'
        )
    ]
