"""Hold up the delivery pass of a list, so that a test can do something while it is under way."""

from __future__ import annotations

import threading

from flask_sse_emitters import SseEmitter, SseEmitters
from tests.support.waiting import PATIENCE, until


class Gate(SseEmitter):
    """An emitter at which each delivery pass waits, until it is opened. See the fixture of this folder."""

    def __init__(self) -> None:
        self.reached, self.let = threading.Event(), threading.Event()
        super().__init__()

    def stop(self) -> None:
        """Wait, in place of a delivery."""
        self.reached.set()
        assert self.let.wait(PATIENCE)

    def hold_up(self, emitters: SseEmitters, event: object) -> None:
        """Send an event on another thread, and wait until its delivery pass is here."""
        self._emitters = emitters
        self._sender = threading.Thread(target=emitters.send, args=(event,))
        self._sender.start()
        assert self.reached.wait(PATIENCE)

    def let_through(self) -> None:
        """Let the delivery pass go on, and wait for the sender."""
        self.let.set()
        self._sender.join(PATIENCE)
        assert not self._sender.is_alive()

    def open(self) -> None:
        """Let the delivery pass go on, and wait until it has ended."""
        self.let_through()
        await_pass(self._emitters)


def held_up(emitters: SseEmitters, *others: SseEmitter, event: object = "before") -> Gate:
    """Begin a delivery pass that waits at a gate, and has not reached the others, which are added behind it."""
    gate = emitters.add(Gate())
    for other in others:
        emitters.add(other)
    gate.hold_up(emitters, event)
    return gate


def await_pass(emitters: SseEmitters) -> None:
    """Wait until all that was sent to a list is delivered."""
    until(lambda: not emitters._delivery._is_passing, "the delivery pass")
