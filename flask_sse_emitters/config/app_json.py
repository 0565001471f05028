"""The JSON of an app's events: what its provider, ``app.json``, makes of their data."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from json import JSONEncoder
from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider, JSONProvider


def dumps_of(app: Flask) -> Callable[[Any], str]:
    """Return a function that encodes data as ``app.json.dumps`` does at the time of the call. From any thread.

    Flask's own provider makes an encoder for each call, which takes longer than to encode a small event. This keeps the
    last one, for as long as the provider has the same settings.
    """
    encoder_with = lru_cache(maxsize=1)(_make_encoder)

    def dumps(data: Any) -> str:
        provider = app.json
        if isinstance(provider, DefaultJSONProvider) and not _has_own_dumps(provider):
            return encoder_with(provider.default, provider.ensure_ascii, provider.sort_keys).encode(data)
        return provider.dumps(data)

    return dumps


def _has_own_dumps(provider: JSONProvider) -> bool:
    return type(provider).dumps is not DefaultJSONProvider.dumps or "dumps" in vars(provider)


def _make_encoder(default: Callable[[Any], Any], ensure_ascii: bool, sort_keys: bool) -> JSONEncoder:
    return JSONEncoder(default=default, ensure_ascii=ensure_ascii, sort_keys=sort_keys)
