"""The reasons why streams end, and the errors of this package. Each message names what to change."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class CloseReason(Enum):
    """Why a stream ended."""

    COMPLETED = "completed"  #: ``complete()`` was called
    TIMEOUT = "timeout"  #: its lifetime was over
    DISCONNECTED = "disconnected"  #: the client left, or took nothing for ``SSE_WRITE_SECONDS``
    ERROR = "error"  #: ``complete_with_error()`` was called, its request failed, or no view returned it in time
    OVERFLOW = "overflow"  #: more events were pending than allowed
    SHUTDOWN = "shutdown"  #: the worker stops, or ``sse.shutdown()`` was called


class SseError(Exception):
    """The root of this package's errors."""


class InvalidEvent(SseError, ValueError):
    """The event cannot be written as an event stream (WHATWG HTML 9.2.5). Nothing was sent."""


class EmitterClosed(SseError):
    """The emitter takes no more events, because its stream has ended."""

    #: Why the stream ended.
    reason: CloseReason

    #: The error that ended it, if any.
    error: BaseException | None

    def __init__(self, reason: CloseReason, error: BaseException | None = None) -> None:
        because = f": {error}" if error is not None else ""
        super().__init__(f"this emitter ended with {reason.name}{because}; use try_send() where that may happen")
        self.reason = reason
        self.error = error

    def __reduce__(self) -> tuple[type[EmitterClosed], tuple[CloseReason, BaseException | None]]:
        return type(self), (self.reason, self.error)


class InvalidChannel(SseError, ValueError):
    """The name is not one that a channel can have. Nothing was published or read."""


class Denial(SseError):
    """The base of :class:`AccessDenied`, handled by this package, so that an app's own handler of that comes first."""


class AccessDenied(Denial):
    """The client may not do this. A rule may raise it to deny: as a 401 where it has a challenge, else as a 403.

    Its message is for the app's developers: clients see it in debug mode only.
    """

    #: How the client could authenticate (RFC 9110, section 11.6.1), such as ``Bearer``; None where nothing would help.
    challenge: str | None

    def __init__(self, message: str = "denied", *, challenge: str | None = None) -> None:
        super().__init__(message)
        self.challenge = challenge


class BrokerUnavailable(SseError):
    """The broker could not be reached in time, or refused. The message says whether the event may have been published.

    If it may have been, a ``key`` makes a retry safe.
    """

    #: False where the event was certainly not published.
    may_be_published: bool

    def __init__(self, message: str, *, may_be_published: bool = True) -> None:
        super().__init__(message)
        self.may_be_published = may_be_published


class PublishFailed(SseError):
    """Some of several events that were to be published in one step were not, or may not have been.

    :param results: for each of the events its id, or what kept it from being published.
    """

    #: For each of the events its id, or the :class:`BrokerUnavailable` that kept it from being published.
    results: list[str | Exception]

    def __init__(self, results: Sequence[str | Exception]) -> None:
        errors = [each for each in results if isinstance(each, Exception)]
        super().__init__(f"{len(errors)} of {len(results)} events failed, see results; the first: {errors[0]}")
        self.results = list(results)

    def __reduce__(self) -> tuple[type[PublishFailed], tuple[list[str | Exception]]]:
        return type(self), (self.results,)


class RunExists(SseError):
    """A run publishes to this channel already, in this process or another: cancel it, or wait for its end."""


class NotInTransaction(SseError, RuntimeError):
    """The session has no transaction whose commit could be waited for. Nothing was, nor will be, published."""


class TooManyClients(SseError):
    """The limit of open streams is reached: the stream ended before it began. Its client tries again later."""


class NotInitialized(SseError, RuntimeError):
    """No current app has an :class:`SSE`, or it is not clear which app is meant."""


class UnsupportedWorker(SseError, RuntimeError):
    """The server answers one request at a time, so a single open stream would block it."""
