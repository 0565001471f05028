"""Reading channels as their clients do, for ever, on one thread and without any client."""

from __future__ import annotations

import os
import selectors
import stat
import time
from collections.abc import Iterator
from typing import BinaryIO

from ..channels.channel import Channels
from ..errors import BrokerUnavailable
from ..runtime.scheduler import Bell
from ..streams.emitter import SseEmitter, stream_of


class Listening:
    """Reads channels, for ever, on one thread.

    :param out: is noticed to have no reader any more, where it is a pipe.
    :param ends: when the broker must have said what there is, by ``time.monotonic``.
    """

    def __init__(
        self, channels: Channels, names: tuple[str, ...], last_event_id: str | None, out: BinaryIO, ends: float
    ) -> None:
        self._channels = channels
        self._names = names
        self._last_event_id = last_event_id
        self._ends: float | None = ends
        self._bell = Bell()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell.fileno(), selectors.EVENT_READ)
        self._pipe = _pipe(out)
        if self._pipe is not None:
            self._selector.register(self._pipe, selectors.EVENT_READ)  # it can be read only in so far as it is broken

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.close()
        self._bell.close()

    def blocks(self) -> Iterator[bytes]:
        """The blocks of a stream as they come.

        It ends where more is pending than may be, or Redis has lost events; then another goes on after the last block.

        :raises BrokerUnavailable: where the broker does not say in time what there is.
        :raises BrokenPipeError: where nobody reads the output any more.
        """
        while True:
            emitter = self._channels.subscribe(self._names, 0, self._last_event_id, heartbeat=0, overflow="close")
            try:
                yield from self._blocks_of(_Tap(emitter, self._bell))
            finally:
                emitter.complete()

    def _blocks_of(self, tap: _Tap) -> Iterator[bytes]:
        begun = b""
        while (piece := tap.take()) is not None:
            if not piece:
                self._wait()
            *blocks, begun = (begun + piece).split(b"\n\n")
            for block in blocks:
                if block.startswith(b"retry: "):  # the end of a stream, which nobody is to see here
                    continue
                yield block + b"\n\n"
                if block.startswith(b"id: "):
                    self._last_event_id = block[len(b"id: ") :].partition(b"\n")[0].decode()

    def _wait(self) -> None:
        ready = self._selector.select(self._time_left())
        self._bell.hush()
        if any(key.fd == self._pipe for key, _ in ready):
            raise BrokenPipeError

    def _time_left(self) -> float | None:
        """Until the broker must have said what there is; None once it has."""
        if self._ends is None:
            return None
        if all(self._channels.feed(name).log is not None for name in self._names):
            self._ends = None
            return None
        left = self._ends - time.monotonic()
        if left <= 0:
            because = self._channels.broker.status().get("error", "no answer in SSE_PUBLISH_SECONDS")
            raise BrokerUnavailable(f"the broker does not let us listen: {because}; is SSE_BROKER_URL right?")
        return left


class _Tap:
    """The outlet of an emitter whose stream is read here.

    :param bell: rings when there is something to take again.
    """

    declined: str | None = None

    def __init__(self, emitter: SseEmitter, bell: Bell) -> None:
        self._stream = stream_of(emitter)
        self._bell = bell
        self._asleep = False  # there was nothing to take
        self._woken = False  # but now there is
        self._given = b""
        self._stream.begin(self)

    def take(self) -> bytes | None:
        """What has come; ``b""`` where there is nothing until the bell rings, None at the end."""
        if self._asleep:
            if not self._woken:
                return b""
            self._asleep = self._woken = False
            given, self._given = self._given, b""
            if given:
                return given
        piece = self._stream.next_output()
        self._asleep = piece == b""
        return piece

    def wake(self) -> None:
        self._woken = True
        self._bell.ring()

    def wake_with(self, payload: bytes) -> None:
        self._given = payload
        self.wake()

    def cut(self) -> None:
        """There is no client to let go of: whoever reads finds the end."""

    def unsent(self) -> int | None:
        return None

    def acknowledged(self) -> int | None:
        return None


def _pipe(out: BinaryIO) -> int | None:
    try:
        descriptor = out.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except OSError:  # a test's
        return None
