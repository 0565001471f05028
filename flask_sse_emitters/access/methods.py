"""The methods of :class:`.SSE` that say who may read and publish, and that end the streams of those who may not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

from ..streams.registry.identity import check_identity
from .revocation import Revocation, make_revocation
from .rules import Rule, Rules

_Rule = TypeVar("_Rule", bound=Rule)


class AccessMethods(ABC):
    """What :class:`.SSE` offers of this."""

    _rules: Rules

    @abstractmethod
    def _revoke(self, revocation: Revocation) -> None:
        """End streams of the current app, here and in all other processes."""

    def authorizer(self, rule: _Rule) -> _Rule:
        """Set the rule that decides who may read the channels that are not public. Usable as a decorator.

        ::

            @sse.authorizer
            def may_read(channel: str) -> bool | str:
                return current_user.get_id() if current_user.is_authenticated else False

        It is called in the request, once for each channel, before anything is registered, and may block. It returns
        True or False; or a str, which allows, and is the reader's identity; or a :class:`.Grant`. An empty str and None
        deny. The reader's own channel ``~`` needs an identity. An exception denies, and is logged;
        :class:`AccessDenied` can make that a 401.

        :raises RuntimeError: where another rule is set already.
        """
        self._rules.set_authorizer(rule)
        return rule

    @overload
    def publisher(self, rule: _Rule) -> _Rule: ...

    @overload
    def publisher(self, *, cookies: bool = ...) -> Callable[[_Rule], _Rule]: ...

    def publisher(self, rule: Any = None, *, cookies: bool = False) -> Any:
        """Set the rule that lets clients publish with ``POST <prefix>/<channel>``. Usable as a decorator.

        ::

            @sse.publisher
            def may_publish(channel: str) -> bool:
                sent = request.headers.get("Authorization", "")
                return secrets.compare_digest(sent.encode(), f"Bearer {TOKEN}".encode())

        The body is the data: ``application/json``, or ``text/plain``; ``event`` and ``key`` are in the query. The
        response is a 201 with the event's ``id`` as JSON. A key holds for this channel and the identity that the rule
        returns, apart from your own keys. Events must not be named ``gap``, ``open`` or ``error``. The rule is called
        as an authorizer is.

        :param cookies: whether a request may have cookies as its only credentials. If not, a request that has cookies
            and no ``Authorization`` is denied, because a page of another site could have sent it. If so, only its
            ``Origin`` shows that.
        :raises RuntimeError: where another rule is set already.
        """
        if rule is None:
            return partial(self.publisher, cookies=cookies)
        self._rules.set_publisher(rule, cookies)
        return rule

    def disconnect(self, identity: str | None = None, *, channel: str | None = None) -> None:
        """End the streams of this reader, or of this channel, or those that have both, in every process.

        Pending events are dropped. Their clients reconnect and the rule is asked, so first make sure that it denies. A
        rule that calls this does not end the stream that it decides about. Streams of this process have ended when this
        returns; those of others end before they get anything that you publish later, but a moment later in a cluster.

        :raises BrokerUnavailable: where other processes cannot be reached; call it again.
        """
        if identity is None and channel is None:
            raise TypeError("disconnect() takes an identity, a channel, or both, not None: is anybody logged in?")
        self._revoke(make_revocation(identity, channel))

    def recheck(self, identity: str) -> None:
        """Ask the rule again about every stream of this reader, in every process, and end those that it denies.

        This happens in the background, with a copy of each stream's request: its headers, its cookies, after
        ``before_request``. So the rule should read what can change, such as a database: a session kept in a cookie is
        as it was. A stream that a view of yours has begun ends, and its client asks the view.

        :raises BrokerUnavailable: where other processes cannot be reached; call it again.
        """
        self._revoke(make_revocation(check_identity(identity), is_recheck=True))
