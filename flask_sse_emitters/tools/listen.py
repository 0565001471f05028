"""Read channels as their clients do, on one thread and without a server."""

from __future__ import annotations

import os
import select
import selectors
import stat
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..channels.registry import Channels
from ..errors import BrokerUnavailable
from ..runtime.waiter import WakeupSocket
from ..streams.emitter import SseEmitter, stream_of
from ..wire.frame import FINAL_BLOCK


class ChannelReader:
    """Reads channels, and prints what comes. Only the thread that made it may call.

    :param last_event_id: the id after which to begin; None begins with what is new.
    :param out: where the output goes; if it is a pipe, reading ends once the pipe has no reader.
    :param deadline: by ``time.monotonic``, when the broker must have answered for every channel.
    """

    def __init__(
        self, channels: Channels, names: tuple[str, ...], last_event_id: str | None, out: BinaryIO, deadline: float
    ) -> None:
        self._channels = channels
        self._names = names
        self._last_event_id = last_event_id
        self._is_over = False  # all channels have ended
        self._deadline: float | None = deadline
        self._wakeup = WakeupSocket()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakeup.fileno(), selectors.EVENT_READ)
        self._out = out
        self._pipe = _pipe_of(out)
        if self._pipe is not None:
            self._selector.register(self._pipe, selectors.EVENT_READ)  # it becomes readable only where it is broken

    def __enter__(self) -> ChannelReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.close()
        self._wakeup.close()

    def print_blocks(self, shown: Callable[[bytes], bytes]) -> None:
        """Write the blocks of the stream as they arrive, and wait for more.

        They end when the channels do. Where the stream ends before that, because too much is pending or Redis has lost
        events, a new one continues after the last block. A signal whose handler raises ends this at any time.

        :param shown: returns what is written of a block.
        :raises BrokerUnavailable: where the broker does not answer before the deadline.
        :raises BrokenPipeError: where the output has no reader any more.
        """
        with self._wakeup.woken_by_signals():
            for block in self._read_blocks():
                self._write(shown(block))

    def _read_blocks(self) -> Iterator[bytes]:
        while not self._is_over:
            emitter = self._channels.subscribe(self._names, 0, self._last_event_id, heartbeat=0, overflow="close")
            if stream_of(emitter).outgoing.is_needless:
                return
            try:
                yield from self._read_stream(ReadingWriter(emitter, self._wakeup))
            finally:
                emitter.complete()

    def _read_stream(self, stream: ReadingWriter) -> Iterator[bytes]:
        rest = b""
        while (output := stream.read()) is not None:
            if not output:
                self._wait()
            *blocks, rest = (rest + output).split(b"\n\n")
            for block in blocks:
                if block + b"\n\n" == FINAL_BLOCK:
                    self._is_over = True
                    return
                if block.startswith(b"retry: "):  # the end of a stream, which is not shown
                    continue
                yield block + b"\n\n"
                if block.startswith(b"id: "):
                    self._last_event_id = block[len(b"id: ") :].partition(b"\n")[0].decode()

    def _write(self, rest: bytes) -> None:
        while rest:
            most = len(rest)
            if self._pipe is not None:
                self._wait_for_room(self._pipe)
                most = select.PIPE_BUF
            rest = rest[self._out.write(rest[:most]) :]

    def _wait_for_room(self, pipe: int) -> None:
        """Wait until the pipe takes PIPE_BUF bytes at once: a signal just before a write would not end it."""
        self._selector.modify(pipe, selectors.EVENT_WRITE)
        while not any(key.fd == pipe for key, _ in self._selector.select()):
            self._wakeup.drain()  # the stream itself knows what is new
        self._selector.modify(pipe, selectors.EVENT_READ)

    def _wait(self) -> None:
        ready = self._selector.select(self._seconds_left())
        self._wakeup.drain()
        if any(key.fd == self._pipe for key, _ in ready):
            raise BrokenPipeError

    def _seconds_left(self) -> float | None:
        """Return the seconds until the deadline; None once the broker has answered for every channel."""
        if self._deadline is None:
            return None
        if all(self._channels.subscription(name).log is not None for name in self._names):
            self._deadline = None
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            reason = self._channels.broker.status().get("error", "no answer in SSE_PUBLISH_SECONDS")
            raise BrokerUnavailable(f"the broker does not let us listen: {reason}; is SSE_BROKER_URL right?")
        return left


class ReadingWriter:
    """The writer of an emitter whose stream this process reads itself.

    :param wakeup: is woken when there is something to read again.
    """

    declined: str | None = None

    def __init__(self, emitter: SseEmitter, wakeup: WakeupSocket) -> None:
        self._stream = stream_of(emitter)
        self._wakeup = wakeup
        self._is_idle = False  # there was nothing to read
        self._is_woken = False  # and now there is
        self._given = b""
        self._stream.begin(self)

    def read(self) -> bytes | None:
        """Return what the stream has; ``b""`` where there is nothing until the wakeup, None at the end."""
        if self._is_idle:
            if not self._is_woken:
                return b""
            self._is_idle = self._is_woken = False
            given, self._given = self._given, b""
            if given:
                return given
        output = self._stream.next_output()
        self._is_idle = output == b""
        return output

    def wake(self) -> None:
        """Have the reader read again. From any thread."""
        self._is_woken = True
        self._wakeup.wake()

    def wake_with(self, payload: bytes) -> None:
        """Have the reader read this. From any thread."""
        self._given = payload
        self.wake()

    def cut(self) -> None:
        """Do nothing: there is no connection, and the reader finds the end."""

    def unsent(self) -> int | None:
        """Return None: nothing is sent."""
        return None

    def acknowledged(self) -> int | None:
        """Return None: nothing is sent."""
        return None


def _pipe_of(out: BinaryIO) -> int | None:
    try:
        descriptor = out.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except OSError:  # of a test's output
        return None
