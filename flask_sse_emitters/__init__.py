"""Server-Sent Events for Flask: an object for each client, which a view returns and anything may send to."""

from __future__ import annotations

from .callbacks import CloseReason
from .channel import Channel
from .copy_on_write import CopyOnWriteList
from .emitter import SseEmitter
from .emitters import SseEmitters
from .errors import (
    AccessDenied,
    BrokerUnavailable,
    EmitterClosed,
    InvalidChannel,
    InvalidEvent,
    NotInitialized,
    SseError,
    TooManyClients,
    UnsupportedWorker,
)
from .event import Event, EventBuilder
from .extension import SSE
from .publisher import Publisher

__all__ = [
    "SSE",
    "AccessDenied",
    "BrokerUnavailable",
    "Channel",
    "CloseReason",
    "CopyOnWriteList",
    "EmitterClosed",
    "Event",
    "EventBuilder",
    "InvalidChannel",
    "InvalidEvent",
    "NotInitialized",
    "Publisher",
    "SseEmitter",
    "SseEmitters",
    "SseError",
    "TooManyClients",
    "UnsupportedWorker",
]
