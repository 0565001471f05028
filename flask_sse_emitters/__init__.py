"""Server-Sent Events for Flask: an emitter for each client, which a view returns and any code may send to."""

from __future__ import annotations

from .broadcast.copy_on_write import CopyOnWriteList
from .broadcast.emitters import SseEmitters
from .channels.channel import Channel
from .channels.runs.run import Run
from .errors import (
    AccessDenied,
    BrokerUnavailable,
    CloseReason,
    EmitterClosed,
    InvalidChannel,
    InvalidEvent,
    NotInitialized,
    NotInTransaction,
    PublishFailed,
    RunExists,
    SseError,
    TooManyClients,
    UnsupportedWorker,
)
from .extension import SSE
from .publisher import Publisher
from .streams.emitter import SseEmitter
from .wire.event import Event, EventBuilder

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
    "NotInTransaction",
    "NotInitialized",
    "PublishFailed",
    "Publisher",
    "Run",
    "RunExists",
    "SseEmitter",
    "SseEmitters",
    "SseError",
    "TooManyClients",
    "UnsupportedWorker",
]
