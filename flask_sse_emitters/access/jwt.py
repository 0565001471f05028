"""JSON Web Tokens (RFC 7519) as a rule: behind the extra ``[jwt]``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import request

from ..errors import AccessDenied
from .grants import Grant

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: A longer token is not even looked at.
LONGEST_TOKEN = 16_384


def jwt_authorizer(
    key: Any,
    *,
    algorithms: Sequence[str],
    audience: str | Sequence[str] | None = None,
    cookie: str | None = None,
    query: str | None = None,
    claim: str = "sse",
    identity: str = "sub",
) -> Callable[[str], bool | Grant]:
    """A rule that goes by a signed token: ``sse.authorizer(jwt_authorizer(key, algorithms=["HS256"]))``.

    The token is looked for in ``Authorization: Bearer`` (RFC 6750), which browsers' ``EventSource`` cannot send, then
    in a cookie or in the query, where these have a name here. A missing or bad one is a 401, a channel that it does not
    name a 403. Where it has an ``exp``, the stream ends when that has passed. It may be a rule for publishers, too.

    :param key: verifies the signature: what PyJWT takes; or a function that gives it, without arguments or with the
        token, which has not been verified yet: ``PyJWKClient(url).get_signing_key_from_jwt``, say. Where there is none,
        it gives None, or raises LookupError.
    :param algorithms: that are accepted, such as ``["RS256"]``; never ``"none"``.
    :param audience: one of these must be in the token's ``aud``; None accepts only tokens without one.
    :param cookie: the name of the cookie; None looks at none.
    :param query: the name of the parameter; None looks at none. Mind that URLs end up in logs.
    :param claim: names the channels: a list of names, where ``*`` at the end stands for any rest.
    :param identity: the claim that says whose stream it is.
    :raises ImportError: says what to install.
    :raises ValueError: names the parameter, and what it accepts.
    """
    return _Tokens(key, algorithms, audience, cookie, query, claim, identity)


class _Tokens:
    def __init__(
        self,
        key: Any,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None,
        cookie: str | None,
        query: str | None,
        claim: str,
        identity: str,
    ) -> None:
        self._jwt = _import_jwt()
        self._algorithms = _check_algorithms(algorithms, self._jwt)
        self._find_key = _key_finder(key, self._algorithms, self._jwt)
        self._audience = audience
        self._cookie = cookie
        self._query = query
        self._claim = claim
        self._identity = identity

    def __call__(self, channel: str) -> bool | Grant:
        claims = self._claims()
        if not any(_matches(pattern, channel) for pattern in _patterns(claims.get(self._claim))):
            return False
        said, expires = claims.get(self._identity), claims.get("exp")
        try:
            identity: Any = str(said) if isinstance(said, int) and not isinstance(said, bool) else said
            grant = Grant(identity, seconds=None if expires is None else float(expires) - time.time())
        except (TypeError, ValueError, OverflowError) as error:
            raise _bad(f"the token's claims cannot be used: {error}") from error
        if grant.seconds is not None and grant.seconds <= 0:
            raise _bad("the token has just expired")
        return grant

    def _claims(self) -> Mapping[str, Any]:
        """Of the request's token; it is verified once."""
        kept = request.environ.setdefault("flask_sse_emitters.claims", {})
        if self not in kept:
            kept[self] = self._verified(self._token())
        claims: Mapping[str, Any] = kept[self]
        return claims

    def _token(self) -> str:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return credentials.strip()
        found = request.cookies.get(self._cookie) if self._cookie is not None else None
        if not found and self._query is not None:
            found = request.args.get(self._query)
        if not found:
            raise AccessDenied("there is no token in the request", challenge="Bearer")
        return found

    def _verified(self, token: str) -> Mapping[str, Any]:
        if not token or len(token) > LONGEST_TOKEN:
            raise _bad(f"the token has {len(token)} characters")
        if not token.isascii():  # which PyJWT before 2.14 passes over in the signature
            raise _bad("the token is not ASCII")
        jwt = self._jwt
        try:
            key = self._find_key(token)
        except jwt.PyJWKClientError as error:
            if isinstance(error, getattr(jwt, "PyJWKClientConnectionError", ())):
                raise  # which is not the token's fault
            raise _bad(f"there is no key for the token: {error}") from error
        except (jwt.InvalidTokenError, LookupError, ValueError, RecursionError) as error:
            raise _bad(f"there is no key for the token: {error!r}") from error
        if not key:
            raise _bad("there is no key for the token")
        try:
            decoded = jwt.api_jwt.decode_complete(
                token, key, algorithms=self._algorithms, audience=self._audience, options={"verify_sub": False}
            )
        except jwt.InvalidKeyError:
            raise  # nor is this
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _bad(f"the token is bad: {error}") from error
        if "crit" in decoded["header"]:  # RFC 7515, 4.1.11; PyJWT before 2.12 does not look
            raise _bad("the token's header has extensions that must be understood, and are not: crit")
        claims: Mapping[str, Any] = decoded["payload"]
        return claims


def _bad(message: str) -> AccessDenied:
    return AccessDenied(message, challenge='Bearer error="invalid_token"')


def _matches(pattern: str, channel: str) -> bool:
    return channel.startswith(pattern[:-1]) if pattern.endswith("*") else channel == pattern


def _patterns(named: Any) -> list[str]:
    listed = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    return [pattern for pattern in listed if isinstance(pattern, str)]


def _import_jwt() -> Any:
    try:
        import jwt
    except ImportError as error:
        raise ImportError("jwt_authorizer needs PyJWT: pip install 'flask-sse-emitters[jwt]'") from error
    return jwt


def _check_algorithms(algorithms: Sequence[str], jwt: Any) -> list[str]:
    names = [] if isinstance(algorithms, str) else list(algorithms)
    if not names or any(not isinstance(name, str) or name.lower() == "none" for name in names):
        raise ValueError(f'algorithms must be a list such as ["HS256"], without "none", not {algorithms!r}')
    for name in names:
        try:
            jwt.get_algorithm_by_name(name)
        except NotImplementedError as error:
            raise ValueError(
                f"algorithms: PyJWT knows no {name!r}, or not without pip install 'pyjwt[crypto]'"
            ) from error
    return names


def _key_finder(key: Any, algorithms: Sequence[str], jwt: Any) -> Callable[[str], Any]:
    """What gives the key for a token."""
    if callable(key):
        takes_token = _takes_token(key)
        return lambda token: _bare(key(token) if takes_token else key(), jwt)
    if not key:
        raise ValueError("key must be what verifies the tokens, or a function that gives it, not nothing")
    bare = _bare(key, jwt)
    for name in algorithms:
        try:
            jwt.get_algorithm_by_name(name).prepare_key(bare)
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise ValueError(f"key is none for the algorithm {name!r}: {error}") from error
    return lambda _token: bare


def _takes_token(find_key: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(find_key).parameters.values()
    except (TypeError, ValueError):  # it is written in C, and does not say
        return True
    return any(each.default is each.empty and each.kind in _POSITIONAL for each in parameters)


def _bare(key: Any, jwt: Any) -> Any:
    """The key itself: PyJWT has a class that holds one, which its older versions do not take."""
    return key.key if isinstance(key, jwt.PyJWK) else key
