"""The signals, and what receives them: they are those of blinker, whose own types let a receiver take anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from blinker import ANY

from .figures import BrokerState

if TYPE_CHECKING:  # modules above this one
    from flask import Flask

    from ..errors import CloseReason
    from ..streams.emitter import SseEmitter


class EmitterOpenedReceiver(Protocol):
    """A receiver of :data:`.emitter_opened`."""

    def __call__(self, app: Flask, /, *, emitter: SseEmitter) -> object:
        """Take note: the signals say when, and on which thread."""


class EmitterClosedReceiver(Protocol):
    """A receiver of :data:`.emitter_closed`."""

    def __call__(
        self, app: Flask, /, *, emitter: SseEmitter, reason: CloseReason, error: BaseException | None
    ) -> object:
        """Take note."""


class EmitterMovedReceiver(Protocol):
    """A receiver of :data:`.emitter_moved`."""

    def __call__(self, app: Flask, /, *, emitter: SseEmitter, direction: Literal["in", "out"]) -> object:
        """Take note."""


class EventPublishedReceiver(Protocol):
    """A receiver of :data:`.event_published`."""

    def __call__(self, app: Flask, /, *, channel: str, id: str, event: str | None, size: int, seconds: float) -> object:
        """Take note."""


class GapSentReceiver(Protocol):
    """A receiver of :data:`.gap_sent`."""

    def __call__(self, app: Flask, /, *, emitter: SseEmitter, requested: str) -> object:
        """Take note."""


class BrokerChangedReceiver(Protocol):
    """A receiver of :data:`.broker_changed`."""

    def __call__(self, app: Flask, /, *, state: BrokerState, error: str | None) -> object:
        """Take note."""


_Opened = TypeVar("_Opened", bound=EmitterOpenedReceiver)
_Closed = TypeVar("_Closed", bound=EmitterClosedReceiver)
_Moved = TypeVar("_Moved", bound=EmitterMovedReceiver)
_Published = TypeVar("_Published", bound=EventPublishedReceiver)
_Gap = TypeVar("_Gap", bound=GapSentReceiver)
_Changed = TypeVar("_Changed", bound=BrokerChangedReceiver)


class Signal(Protocol):
    """What all signals have, as blinker documents it."""

    @property
    def name(self) -> str:
        """The name."""

    @property
    def receivers(self) -> Mapping[Any, Any]:
        """All receivers, by their ids."""

    @property
    def is_muted(self) -> bool:
        """Whether it is not sent just now."""

    def muted(self) -> AbstractContextManager[None]:
        """Send nothing while a ``with`` block runs."""

    def has_receivers_for(self, sender: Any) -> bool:
        """Return whether there is any receiver for the app."""

    def receivers_for(self, sender: Any) -> Iterator[Callable[..., Any]]:
        """Iterate over the receivers for the app."""

    def send(self, sender: Any, /, **values: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call the receivers for the app, as a test may."""

    def disconnect(self, receiver: Callable[..., Any], sender: Any = ANY) -> None:
        """Call this receiver no more."""


class EmitterOpenedSignal(Signal, Protocol):
    """The signal that takes an :class:`EmitterOpenedReceiver`."""

    def connect(self, receiver: _Opened, sender: Any = ANY, weak: bool = True) -> _Opened:
        """Call this receiver from now on, of one app or, without it, of all."""

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[_Opened], _Opened]:
        """Decorate a receiver that is called from now on, of this app."""

    def connected_to(self, receiver: EmitterOpenedReceiver, sender: Any = ANY) -> AbstractContextManager[None]:
        """Call this receiver while a ``with`` block runs."""


class EmitterClosedSignal(Signal, Protocol):
    """The signal that takes an :class:`EmitterClosedReceiver`."""

    def connect(self, receiver: _Closed, sender: Any = ANY, weak: bool = True) -> _Closed:
        """Call this receiver from now on, of one app or, without it, of all."""

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[_Closed], _Closed]:
        """Decorate a receiver that is called from now on, of this app."""

    def connected_to(self, receiver: EmitterClosedReceiver, sender: Any = ANY) -> AbstractContextManager[None]:
        """Call this receiver while a ``with`` block runs."""


class EmitterMovedSignal(Signal, Protocol):
    """The signal that takes an :class:`EmitterMovedReceiver`."""

    def connect(self, receiver: _Moved, sender: Any = ANY, weak: bool = True) -> _Moved:
        """Call this receiver from now on, of one app or, without it, of all."""

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[_Moved], _Moved]:
        """Decorate a receiver that is called from now on, of this app."""

    def connected_to(self, receiver: EmitterMovedReceiver, sender: Any = ANY) -> AbstractContextManager[None]:
        """Call this receiver while a ``with`` block runs."""


class EventPublishedSignal(Signal, Protocol):
    """The signal that takes an :class:`EventPublishedReceiver`."""

    def connect(self, receiver: _Published, sender: Any = ANY, weak: bool = True) -> _Published:
        """Call this receiver from now on, of one app or, without it, of all."""

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[_Published], _Published]:
        """Decorate a receiver that is called from now on, of this app."""

    def connected_to(self, receiver: EventPublishedReceiver, sender: Any = ANY) -> AbstractContextManager[None]:
        """Call this receiver while a ``with`` block runs."""


class GapSentSignal(Signal, Protocol):
    """The signal that takes a :class:`GapSentReceiver`."""

    def connect(self, receiver: _Gap, sender: Any = ANY, weak: bool = True) -> _Gap:
        """Call this receiver from now on, of one app or, without it, of all."""

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[_Gap], _Gap]:
        """Decorate a receiver that is called from now on, of this app."""

    def connected_to(self, receiver: GapSentReceiver, sender: Any = ANY) -> AbstractContextManager[None]:
        """Call this receiver while a ``with`` block runs."""


class BrokerChangedSignal(Signal, Protocol):
    """The signal that takes a :class:`BrokerChangedReceiver`."""

    def connect(self, receiver: _Changed, sender: Any = ANY, weak: bool = True) -> _Changed:
        """Call this receiver from now on, of one app or, without it, of all."""

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[_Changed], _Changed]:
        """Decorate a receiver that is called from now on, of this app."""

    def connected_to(self, receiver: BrokerChangedReceiver, sender: Any = ANY) -> AbstractContextManager[None]:
        """Call this receiver while a ``with`` block runs."""
