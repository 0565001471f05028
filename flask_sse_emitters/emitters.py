"""A list of clients, and the way of an event to all of them."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeAlias, TypeVar

from . import settings as surroundings
from .backlog import Frame
from .copy_on_write import CopyOnWriteList
from .emitter import SseEmitter, make_frame
from .parking import guard
from .scheduler import SCHEDULER

#: After so many errands for others a sender leaves the rest to the background, and returns.
MAX_ERRANDS = 32

#: Where so many errands wait, events are sent faster than this process can hand them out, and senders give way.
CROWD = 1_000

# What is to be done for those who were in the list when it was asked for; no frame means that they are to end.
_Errand: TypeAlias = tuple[Frame | None, tuple[SseEmitter, ...]]

_E = TypeVar("_E", bound=SseEmitter)


class SseEmitters:
    """A thread-safe list of emitters, one for each purpose, which send the same events to many clients.

    ::

        emitters = SseEmitters()

        @app.get("/connect")
        def connect():
            return emitters.add(SseEmitter())

        @app.post("/notices")
        def post():
            emitters.send(SseEmitter.event().name("notice").data(request.json))
            return "", 204

    An emitter leaves the list by itself when it ends, in whatever way. Every method may be called from any thread (not
    from a signal handler), none blocks, and none raises because another thread changed the list. All clients get the
    list's events in one order.

    For those in this list only: it knows nothing of other processes.
    """

    _emitters: CopyOnWriteList[SseEmitter]
    _outbox: deque[_Errand]

    def __init__(self) -> None:
        self._begin_anew()
        _all.add(self)

    def _begin_anew(self) -> None:
        self._guard = guard()
        self._emitters = CopyOnWriteList()
        self._outbox = deque()
        self._walking = False  # somebody is at the outbox: whoever else puts something in leaves it to them

    def add(self, emitter: _E) -> _E:
        """Put an emitter in the list, until it ends. Again is nothing.

        :return: the emitter, so that a view may return what this returns.
        """
        if not isinstance(emitter, SseEmitter):
            raise TypeError(f"add() takes an SseEmitter, not {emitter!r}")
        if self._emitters.add_if_absent(emitter):
            emitter._join(self._emitters.remove)
        return emitter

    def remove(self, emitter: SseEmitter) -> None:
        """Take an emitter out of the list, and leave its stream open. That it is not there is no error."""
        if self._emitters.remove(emitter):
            emitter._part(self._emitters.remove)

    def send(self, event: Any) -> int:
        """Send an event, a builder's or plain data to every emitter in the list; encoded once for all of them.

        :return: how many open emitters were in the list.
        :raises InvalidEvent: where it cannot be written; then nobody gets anything.
        """
        return self._put(make_frame(event, self._dumps))

    def complete(self) -> None:
        """End every stream of the list, after all that was sent before. The list can be used on."""
        self._put(None)

    def __len__(self) -> int:
        return len(self._emitters)

    def __contains__(self, emitter: object) -> bool:
        return emitter in self._emitters

    def __iter__(self) -> Iterator[SseEmitter]:
        """Over a snapshot: what other threads do meanwhile does not show."""
        return iter(self._emitters)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def _dumps(self, data: Any) -> str | bytes:
        """JSON, as the app of the emitters makes it; where they have none, the app that is at hand."""
        own = (emitter._settings for emitter in self if emitter._settings.app_context is not None)
        settings = None if surroundings.app_state() is not None else next(own, None)
        return (surroundings.dumps() if settings is None else settings.dumps)(data)

    def _put(self, frame: Frame | None) -> int:
        with self._guard:
            emitters = self._emitters.snapshot()
            self._outbox.append((frame, emitters))
            mine, self._walking = not self._walking, True
        if mine:
            self._walk(MAX_ERRANDS)
        elif (crowd := len(self._outbox)) > CROWD:
            time.sleep(crowd / CROWD / 1000)
        return len(emitters)

    def _walk(self, errands: int = sys.maxsize) -> None:
        """Empty the outbox: one walker at a time, so that no event overtakes another."""
        try:
            while self._outbox and errands > 0:
                errands -= self._run_errands()
        finally:
            with self._guard:
                self._walking = bool(self._outbox)
                more = self._walking
            if more:
                SCHEDULER.deliver(self._walk)

    def _run_errands(self) -> int:
        """Run the next errand, together with those behind it that go to the same emitters.

        :return: how many that were.
        """
        frames, emitters = self._next_frames()
        rest = iter(emitters)
        try:
            for emitter in rest:
                if frames:
                    emitter._offer(frames)
                else:
                    emitter.complete()
        except BaseException:  # an interrupt of the sender's thread is no reason to forget the others
            left = tuple(rest)
            errands: list[_Errand] = [(frame, left) for frame in frames] or [(None, left)]
            self._outbox.extendleft(reversed(errands))
            raise
        return len(frames) or 1

    def _next_frames(self) -> tuple[list[Frame], tuple[SseEmitter, ...]]:
        """The next frames for the same emitters; none, where these are to end."""
        frame, emitters = self._outbox.popleft()
        if frame is None:
            return [], emitters
        frames = [frame]
        while len(frames) < MAX_ERRANDS and self._outbox:
            frame, others = self._outbox[0]
            if frame is None or others is not emitters:
                break
            frames.append(frame)
            self._outbox.popleft()
        return frames, emitters


#: Every list of the process. A forked child has none of its parent's clients, nor whoever was at an outbox.
_all: weakref.WeakSet[SseEmitters] = weakref.WeakSet()


def _begin_all_anew() -> None:
    for emitters in list(_all):
        emitters._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_anew)
