"""``SseEmitters``: the public face of a list of clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from ..config import context
from ..config.settings import Settings
from ..streams.emitter import SseEmitter, stream_of
from ..wire.event import event_of
from ..wire.frame import make_frame
from .delivery import Delivery
from .named import NamedDelivery, named_list

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
    from a signal handler), and none raises because another thread changed the list. All clients get its events in one
    order. No method waits for a client. Where events are sent faster than this process can deliver them, ``send`` and
    ``complete`` wait a moment: a millisecond for each 1,000 events, or 16 MiB, that are still to be delivered. In a
    greenlet they let others run after each millisecond of sending.

    For those in this list only: ``send`` reaches no client of another process.

    :param name: makes it the same list wherever that is given: all that have it are equal, and have the same clients.
        When a worker stops, its streams move to the list of the same name in the worker that stays; those in a list
        without a name end. It holds in the whole process: where that serves several apps whose clients are to be kept
        apart, give each a name of its own. 1 to 200 characters.
    :raises ValueError: where it is empty, or longer.
    """

    __slots__ = ("__weakref__", "_delivery")

    _delivery: Delivery

    def __init__(self, name: str | None = None) -> None:
        self._delivery = Delivery() if name is None else named_list(name)

    @property
    def name(self) -> str | None:
        """Its name, or that of its channel, where it is the list of one; None where it has none."""
        own = self._delivery
        return own.own_name if isinstance(own, NamedDelivery) else own.name

    def add(self, emitter: _E) -> _E:
        """Put an emitter in the list, until it ends. Idempotent.

        :return: the emitter, so that a view may return what this returns.
        """
        if not isinstance(emitter, SseEmitter):
            raise TypeError(f"add() takes an SseEmitter, not {emitter!r}")
        self._delivery.add(emitter)
        return emitter

    def remove(self, emitter: SseEmitter) -> None:
        """Take an emitter out of the list, and leave its stream open. That it is not there is no error."""
        self._delivery.remove(emitter)

    def send(
        self, data: Any, /, *, event: str | None = None, id: str | int | None = None, retry: int | None = None
    ) -> int:
        """Send data as an event, or an event or a builder's, to every emitter in the list; encoded once for all.

        The other parameters are those of :meth:`SseEmitter.send`.

        :return: how many open emitters were in the list.
        :raises InvalidEvent: where it cannot be written; then no client gets anything.
        """
        given = event_of(data, event, id, retry)
        reached = self._delivery.put([make_frame(given, self._dumps, self._settings().max_event_bytes)])
        self._delivery.wait_for_room()
        return reached

    def complete(self) -> None:
        """End every stream of the list, after all that was sent before. The list can be used on.

        Streams of channels end as after :meth:`SseEmitter.complete`, which waits for what was published to them.
        """
        self._delivery.complete()

    def __len__(self) -> int:
        return len(self._delivery.members)

    def __contains__(self, emitter: object) -> bool:
        return isinstance(emitter, SseEmitter) and self._delivery.find(emitter) is not None

    def __iter__(self) -> Iterator[SseEmitter]:
        """Iterate over a snapshot: what other threads do meanwhile does not show."""
        return iter([member.emitter for member in self._delivery.members])

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same list: of the same name, or of the same channel of an app."""
        return self._delivery is other._delivery if isinstance(other, SseEmitters) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._delivery)

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<{type(self).__name__}{name} of {len(self)}>"

    def _settings(self) -> Settings:
        """Return the settings of the current app; without one, of the app that the emitters have."""
        if context.app_state() is None:
            own = (stream_of(emitter).settings for emitter in self)
            settings = next((each for each in own if each.app_context is not None), None)
            if settings is not None:
                return settings
        return context.current_settings()

    def _dumps(self, data: Any) -> str | bytes:
        settings = self._settings()
        return (context.dumps() if settings.app_context is None else settings.dumps)(data)
