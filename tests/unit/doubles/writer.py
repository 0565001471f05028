"""A writer under a test's control: it takes output when the test says so, and records what it is given."""

from __future__ import annotations

from flask_sse_emitters import Event, SseEmitter
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode


class FakeWriter:
    """Takes output when a test calls it, and records the calls it gets.

    :ivar got: all output, in order: what it took, and what lists gave it while it slept.
    :ivar is_awake: it is going to take, or has taken something; the stream may wake it only while it is not.
    :ivar in_flight: how many bytes the client has not acknowledged, if that is known.
    :ivar has_taken: how many bytes the client has acknowledged, if that is known.
    :param direct: lists may write straight to its client, which takes everything.
    """

    declined: str | None = None

    def __init__(self, emitter: SseEmitter, *, direct: bool = False) -> None:
        self.emitter = emitter
        self.got: list[bytes] = []
        self.is_awake = True
        self.wakes = self.cuts = self.beats = 0
        self.in_flight: int | None = None
        self.has_taken: int | None = None
        self.client = self if direct else None
        stream_of(emitter).begin(self)
        if direct:
            self.is_awake = False  # before that, as it may be woken right after it
            self.is_awake = stream_of(emitter).take_over(self) or self.is_awake

    def take(self) -> bytes | None:
        """Take the next output; fall asleep where there is none."""
        self.is_awake = False  # before the look, as it may be woken right after it
        if payload := stream_of(self.emitter).next_output():
            self.got.append(payload)
            self.is_awake = True
        return payload

    def take_all(self) -> list[bytes]:
        """Take everything up to the end, or up to where there is nothing."""
        taken = []
        while payload := self.take():
            taken.append(payload)
        return taken

    def events(self) -> list[Event]:
        return decode(b"".join(self.got))

    def texts(self) -> list[str]:
        return [event.data for event in self.events()]

    # What the stream calls.

    def wake(self) -> None:
        assert not self.is_awake, "woken twice"
        self.is_awake = True
        self.wakes += 1

    def wake_with(self, payload: bytes) -> None:
        self.got.append(payload)
        self.wake()

    def cut(self) -> None:
        self.cuts += 1

    def unsent(self) -> int | None:
        return self.in_flight

    def acknowledged(self) -> int | None:
        return self.has_taken

    # What lists and the stream call where it is direct.

    def send(self, data: bytes) -> int:
        size, _, rest = data.partition(b"\r\n")
        self.got.append(rest[: int(size, 16)])
        return len(data)

    def beat(self, payload: bytes) -> None:  # noqa: ARG002 - it is a heartbeat, which is no event
        self.beats += 1

    def keep(self, data: bytes, sent: int) -> None: ...

    def lose(self, error: OSError) -> None: ...


def events_of(emitter: SseEmitter) -> list[Event]:
    """Take what a stream without a writer has to give, up to its end or until there is nothing."""
    taken = []
    while payload := stream_of(emitter).next_output():
        taken.append(payload)
    return decode(b"".join(taken))


def texts_of(emitter: SseEmitter) -> list[str]:
    """Take what a stream without a writer has to give, and return the data of its events."""
    return [event.data for event in events_of(emitter)]
