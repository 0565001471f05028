"""A rule that accepts JSON Web Tokens (RFC 7519): needs the extra ``[jwt]``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import request

from ..errors import AccessDenied
from .grants import Grant

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: A longer token is refused unread.
MAX_TOKEN_CHARACTERS = 16_384


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
    """Make a rule that accepts signed tokens: ``sse.authorizer(jwt_authorizer(key, algorithms=["HS256"]))``.

    The token is in ``Authorization: Bearer`` (RFC 6750), which browsers' ``EventSource`` cannot send, or else in the
    cookie or the query parameter that you name here. A missing or bad token is a 401, a channel that it does not name a
    403. The stream ends when the token's ``exp`` has passed, if it has one. The rule also works for publishers.

    :param key: verifies the signature: a key as PyJWT takes it; or a function that returns one, called without
        arguments or with the unverified token, such as ``PyJWKClient(url).get_signing_key_from_jwt``. Without a key for
        the token it returns None, or raises LookupError.
    :param algorithms: the accepted ones, such as ``["RS256"]``; never ``"none"``.
    :param audience: one of these must be in the token's ``aud``; None accepts only tokens without one.
    :param cookie: the name of the cookie; None reads none.
    :param query: the name of the parameter; None reads none. Mind that URLs end up in logs.
    :param claim: the claim with the channels: a list of names, where a final ``*`` stands for any rest.
    :param identity: the claim with the reader's identity.
    :raises ImportError: names the package to install.
    :raises ValueError: names the parameter and the accepted values.
    """
    return _TokenRule(key, algorithms, audience, cookie, query, claim, identity)


class _TokenRule:
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
        subject, expires = claims.get(self._identity), claims.get("exp")
        try:
            identity: Any = str(subject) if isinstance(subject, int) and not isinstance(subject, bool) else subject
            grant = Grant(identity, seconds=None if expires is None else float(expires) - time.time())
        except (TypeError, ValueError, OverflowError) as error:
            raise _bad(f"the token's claims cannot be used: {error}") from error
        if grant.seconds is not None and grant.seconds <= 0:
            raise _bad("the token has just expired")
        return grant

    def _claims(self) -> Mapping[str, Any]:
        """Return the claims of the request's token, which is verified once for all channels."""
        verified = request.environ.setdefault("flask_sse_emitters.claims", {})
        if self not in verified:
            verified[self] = self._verify(self._find_token())
        claims: Mapping[str, Any] = verified[self]
        return claims

    def _find_token(self) -> str:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return credentials.strip()
        found = request.cookies.get(self._cookie) if self._cookie is not None else None
        if not found and self._query is not None:
            found = request.args.get(self._query)
        if not found:
            raise AccessDenied("there is no token in the request", challenge="Bearer")
        return found

    def _verify(self, token: str) -> Mapping[str, Any]:
        if not token or len(token) > MAX_TOKEN_CHARACTERS:
            raise _bad(f"the token has {len(token)} characters")
        if not token.isascii():  # PyJWT before 2.14 ignores such characters in the signature
            raise _bad("the token is not ASCII")
        jwt = self._jwt
        try:
            key = self._find_key(token)
        except jwt.PyJWKClientError as error:
            if isinstance(error, getattr(jwt, "PyJWKClientConnectionError", ())):
                raise  # not the token's fault
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
            raise  # not the token's fault either
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _bad(f"the token is bad: {error}") from error
        if "crit" in decoded["header"]:  # RFC 7515, 4.1.11; PyJWT before 2.12 does not check
            raise _bad("the token's header has extensions that must be understood, and are not: crit")
        claims: Mapping[str, Any] = decoded["payload"]
        return claims


def _bad(message: str) -> AccessDenied:
    return AccessDenied(message, challenge='Bearer error="invalid_token"')


def _matches(pattern: str, channel: str) -> bool:
    return channel.startswith(pattern[:-1]) if pattern.endswith("*") else channel == pattern


def _patterns(claim: Any) -> list[str]:
    listed = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
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
    """Return a function that returns the key for a token."""
    if callable(key):
        takes_token = _takes_token(key)
        return lambda token: _unwrap(key(token) if takes_token else key(), jwt)
    if not key:
        raise ValueError("key must be what verifies the tokens, or a function that gives it, not nothing")
    unwrapped = _unwrap(key, jwt)
    for name in algorithms:
        try:
            jwt.get_algorithm_by_name(name).prepare_key(unwrapped)
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise ValueError(f"key is none for the algorithm {name!r}: {error}") from error
    return lambda _token: unwrapped


def _takes_token(find_key: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(find_key).parameters.values()
    except (TypeError, ValueError):  # a function in C may have no signature
        return True
    return any(each.default is each.empty and each.kind in _POSITIONAL for each in parameters)


def _unwrap(key: Any, jwt: Any) -> Any:
    """Return the key that a ``PyJWK`` holds, since older versions of PyJWT do not take that class."""
    return key.key if isinstance(key, jwt.PyJWK) else key
