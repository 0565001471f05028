"""Pulling the items of an iterable into one client's stream, while there is room for them.

A stream that has its own end (the tokens of a language model, the rows of an export) is made by a generator, as in
plain Flask. Here a thread of its own runs it, and the stream's writer writes: so what is slow on one side holds up
nothing on the other. A slow client pauses the generator; a slow generator does not keep heartbeats from going out, nor
a client that leaves from being noticed.

Where threads are greenlets, the generator gives way after each item that took longer than a moment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import SseError
from ...runtime.gevent_loop import yield_if_due
from ...runtime.scheduler import start_on_main_loop
from ..stream import Stream

log = logging.getLogger("flask_sse_emitters.emitter")

#: Bytes of events that may be pending while the next item is asked for. So many events may: ``SSE_AHEAD``.
AHEAD_BYTES = 65_536


class StreamProducer:
    """The :class:`.Producer` of one stream.

    :param stream: that it pulls into.
    :param send: sends one item to it; returns False once it has ended.
    :param items: closed when they are not wanted any more, if they can be.
    :param done: the last item; None is none.
    :param on_error: returns the item that follows an error of the iterable; None where nothing does.
    :param in_context: makes a call that runs in the contexts that the items need.
    """

    def __init__(
        self,
        stream: Stream,
        send: Callable[[Any], bool],
        items: Iterable[Any],
        done: Any,
        on_error: Callable[[Exception], Any] | None,
        in_context: Callable[[Callable[[], object]], Callable[[], object]],
    ) -> None:
        self._stream = stream
        self._send = send
        self._items = items
        self._done = done
        self._on_error = on_error
        self._run: Callable[[], object] | None = in_context(self._pull_and_end)  # None from when it has started

    def start(self) -> None:
        """Begin to pull; where the stream has ended, only to close the items. Idempotent; never blocks.

        Where the system has no thread, the stream breaks off, and a helper thread closes the items.
        """
        with self._stream.lock:
            run, self._run = self._run, None
        if run is None:
            return
        try:
            start_on_main_loop(threading.Thread(target=run, name="sse-producer", daemon=True).start)
        except RuntimeError as error:  # the system has no thread, now
            log.error("cannot start a thread to pull an iterable for a client, whose stream breaks off: %s", error)
            self._stream.producer = None
            self._stream.abort(error)
            self._stream.scheduler.run(run)  # which only closes them, as the stream has ended

    def _pull_and_end(self) -> None:
        try:
            is_whole = self._pull()
            if is_whole and self._done is not None:
                self._send(self._done)
        except Exception as error:
            log.exception("an error in the iterable whose items are sent to a client")
            self._fail(error)
        except BaseException as error:
            self._fail(SseError(f"the iterable was stopped by {error!r}"))
            raise
        else:
            self._stream.producer = None
            if is_whole:
                self._stream.complete(is_final=True)

    def _pull(self) -> bool:
        """Send the items, and close them. Return whether that were all of them."""
        try:
            if self._stream.close_reason is not None:
                return False
            iterator = iter(self._items)
            try:
                while self._has_room():
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return True
                    self._send(item)
                    yield_if_due()
                return False
            finally:
                _close(iterator)
        finally:
            _close(self._items)

    def _has_room(self) -> bool:
        """Wait until there is room for the next item. Return False once the stream has ended."""
        stream = self._stream
        if not self._is_behind():  # mostly; looking without the lock is good enough
            stream.wait_until(self._is_behind)
        return stream.close_reason is None

    def _is_behind(self) -> bool:
        """Return whether fewer events are pending than may be."""
        backlog = self._stream.outgoing.backlog
        return len(backlog) < self._stream.settings.ahead and backlog.size < AHEAD_BYTES

    def _fail(self, error: BaseException) -> None:
        """Send what tells the client of the error, and break the connection."""
        stream = self._stream
        stream.producer = None
        try:
            if self._on_error is not None and isinstance(error, Exception):
                self._send(self._on_error(error))
        except Exception:
            log.exception("an error in on_error of send_from")
        stream.abort(error)


def _close(items: Any) -> None:
    close = getattr(items, "close", None)
    if callable(close):
        close()
