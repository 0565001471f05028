"""Pulling the items of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from ...brokers import INTERRUPTED
from ...config.settings import Settings
from ...runtime.gevent_loop import yield_if_due
from ...wire.event import Event
from ...wire.frame import Frame
from ..publishing import encode_for_channel
from .pending import Pending
from .publishing_thread import Stop

log = logging.getLogger("flask_sse_emitters.runs")

#: What is published where the iterable raises, unless the app has another event.
FAILED = Event({"reason": "error"}, event="interrupted")

OnError = Callable[[BaseException], Any]


class Items:
    """The iterable of a run, and what follows it.

    :param channel: the name, for messages.
    :param done: is published after the last item; None is nothing.
    :param on_error: returns what is published where the iterable raises; None is :data:`FAILED`.
    """

    def __init__(
        self, channel: str, items: Iterable[Any], done: Frame | None, on_error: OnError | None, settings: Settings
    ) -> None:
        self._channel = channel
        self._items: Iterable[Any] | None = items
        self._done = done
        self._on_error = on_error
        self._settings = settings

    def pull_all(self, pending: Pending, stopped: Callable[[], Stop | None]) -> list[Frame]:
        """Pull the items, encode them, and give them to what is pending, until the run is stopped; then close them.

        :param stopped: returns why the run is stopped; None while it is not.
        :return: what follows them.
        """
        items, self._items = self._items, None
        iterator: Any = None
        try:
            iterator = iter(items or ())
            for item in iterator:
                if (why := stopped()) is not None:  # its readers must know, whichever thread notices first
                    return [INTERRUPTED] if why is Stop.INTERRUPTED else []
                pending.give(encode_for_channel(item, None, None, self._settings))
                yield_if_due()
            return [] if self._done is None else [self._done]
        except BaseException as error:
            log.exception("the run of the channel %r failed", self._channel)
            return self.failed(error)
        finally:
            self._close(iterator)

    def failed(self, error: BaseException) -> list[Frame]:
        """Return what follows where this was raised."""
        event: Any = None
        try:
            event = None if self._on_error is None else self._on_error(error)
            return [encode_for_channel(FAILED if event is None else event, None, None, self._settings)]
        except BaseException:
            log.exception("on_error of the run of the channel %r failed", self._channel)
            return [encode_for_channel(FAILED, None, None, self._settings)]

    def _close(self, iterator: Any) -> None:
        try:
            if (close := getattr(iterator, "close", None)) is not None:
                close()
        except BaseException:
            log.exception("the iterable of the run of the channel %r failed as it was closed", self._channel)
