"""An app's rules: who may read a channel, and who may publish to one over HTTP.

A channel is closed unless it is public, or the app's rule opens it to the client. The rule runs in the request, before
anything is registered. :mod:`.recheck` asks it again later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, TypeAlias, TypeVar

from flask import request
from werkzeug.exceptions import HTTPException

from ..channels.names import OWN_CHANNEL, private_name
from ..channels.options import OptionTable
from ..errors import AccessDenied
from ..streams.registry.identity import Reader
from .grants import Grant
from .request_copy import copy_request

log = logging.getLogger("flask_sse_emitters.access")

_Answer = TypeVar("_Answer")

Rule: TypeAlias = Callable[[str], bool | str | Grant | None]


class Admission(NamedTuple):
    """What a client may read."""

    channels: tuple[str, ...]  #: by their names in the broker
    reader: Reader | None  #: None where all of them are public
    seconds: float | None  #: how long the stream may last; None is no bound
    identities: tuple[str | None, ...] = ()  #: the reader of each channel, in order; None where the rule names none


class Rules:
    """The rules of one :class:`.SSE`.

    :param options: of its channels: which are public.
    """

    def __init__(self, options: OptionTable) -> None:
        self.authorizer: Rule | None = None
        self.publisher: Rule | None = None
        self._accepts_cookies = False  # from publishers that send no Authorization
        self._options = options
        self._is_warned_of_closed = False

    def set_authorizer(self, rule: Rule) -> None:
        """Set the rule that :meth:`admit_reader` asks.

        :raises TypeError: where it is no function, or an async one.
        :raises RuntimeError: where another one is set already.
        """
        check_rule(rule, self.authorizer, "an authorizer")
        self.authorizer = rule

    def set_publisher(self, rule: Rule, cookies: bool) -> None:
        """Set the rule that :meth:`admit_publisher` asks.

        :param cookies: whether a request may have cookies as its only credentials.
        :raises TypeError: where it is no function, or an async one.
        :raises RuntimeError: where another one is set already.
        """
        check_rule(rule, self.publisher, "a publisher")
        self.publisher = rule
        self._accepts_cookies = cookies

    def admit_reader(self, asked: Sequence[str]) -> Admission:
        """Ask whether the current request may read these channels. May block, as the rule may.

        :param asked: names of channels, as the client has sent them.
        :raises AccessDenied: where it may not read one of them.
        """
        grants = {name: self._ask_authorizer(name) for name in asked if not self._is_public(name)}
        channels = tuple(_own_channel(grants.get(name)) if name == OWN_CHANNEL else name for name in asked)
        by_channel = tuple(grants[name].identity if name in grants else None for name in asked)
        identities = tuple(dict.fromkeys(identity for identity in by_channel if identity is not None))
        differing = by_channel if len(set(by_channel)) > 1 else None
        copy = copy_request(request.environ) if identities else None  # without one, recheck() finds no stream
        return Admission(
            channels,
            Reader(identities, channels, tuple(asked), copy, differing) if grants else None,
            min((grant.seconds for grant in grants.values() if grant.seconds is not None), default=None),
            by_channel,
        )

    def admit_publisher(self, name: str) -> str | None:
        """Ask whether the current request may publish to this channel. May block, as the rule may.

        :return: the publisher's identity; None where the rule names none.
        :raises AccessDenied: where it may not publish.
        """
        if (
            not self._accepts_cookies
            and "HTTP_COOKIE" in request.environ
            and "HTTP_AUTHORIZATION" not in request.environ
        ):
            raise AccessDenied(
                "the request has cookies and no Authorization, so a page of another site may have sent it: send a "
                "token, or say @sse.publisher(cookies=True)"
            )
        assert self.publisher is not None
        return _ask_about(self.publisher, "publisher", name).identity

    def _is_public(self, name: str) -> bool:
        return self._options.of(name).public is True

    def _ask_authorizer(self, name: str) -> Grant:
        if self.authorizer is not None:
            return _ask_about(self.authorizer, "authorizer", name)
        if name == OWN_CHANNEL:
            advice = "it is each reader's own, which no public=True opens: say who reads, with @sse.authorizer"
        else:
            advice = (
                f"say sse.channel({name!r}, public=True) where anyone may read it, or who may, with @sse.authorizer"
            )
        closed = f"channel {name!r} is closed, because it was never opened: {advice}"
        if not self._is_warned_of_closed:
            self._is_warned_of_closed = True
            log.warning("%s; this is logged once", closed)
        raise AccessDenied(closed)


def check_rule(rule: object, current: object, called: str, takes: str = "of a channel's name") -> None:
    """Check what is to become a rule of the app.

    :param current: the rule that is set already, if any.
    :param called: its name in messages, with an article.
    :param takes: its arguments, as text.
    :raises TypeError: where it is no function, or an async one.
    :raises RuntimeError: where another one is set already.
    """
    if current is not None and current is not rule:
        raise RuntimeError(f"this SSE has {called} already: let one function ask both")
    if not callable(rule) or iscoroutinefunction(rule):
        decorator = called.rpartition(" ")[2]
        raise TypeError(f"{decorator}() takes a function {takes}, and none that is async, not {rule!r}")


def ask_rule(rule: Callable[[], _Answer], called: str, about: str = "") -> _Answer:
    """Ask a rule of the app. An exception denies; it is logged as an error unless it is an HTTPException.

    :param called: the rule's name in messages.
    :param about: the subject, as text that follows the name.
    :return: the rule's answer.
    :raises AccessDenied: where the rule raises.
    """
    try:
        return rule()
    except AccessDenied:
        raise
    except HTTPException as error:
        log.debug("the %s denies%s: %s", called, about, error)
        raise AccessDenied(f"the {called} denies{about}: {error}") from error
    except Exception as error:
        log.exception("the %s failed%s: access denied", called, about)
        raise AccessDenied(f"the {called} failed{about}: {error!r}") from error


def _ask_about(rule: Rule, called: str, name: str) -> Grant:
    return ask_rule(lambda: _as_grant(rule(name), called, name), called, f" for channel {name!r}")


def _as_grant(answer: Any, called: str, name: str) -> Grant:
    if isinstance(answer, Grant):
        if answer.seconds is not None and answer.seconds <= 0:
            raise AccessDenied(f"the {called} grants channel {name!r} for a time that is over")
        return answer
    if answer is True:
        return Grant()
    if answer is None or answer is False or answer == "":
        raise AccessDenied(f"the {called} returned {answer!r} for channel {name!r}")
    if isinstance(answer, str):
        return Grant(answer)
    raise TypeError(
        f"the {called} must return a bool, the reader's identity as a str, or a Grant, not {answer!r}: "
        "str() makes one of a number, and current_user.get_id() is one of Flask-Login's"
    )


def _own_channel(grant: Grant | None) -> str:
    if grant is None or grant.identity is None:
        raise AccessDenied(
            f"{OWN_CHANNEL!r} is the reader's own channel: have the authorizer return who that is, a str"
        )
    return private_name(grant.identity)
