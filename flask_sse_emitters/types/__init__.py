"""Types for the annotations of your own code: of figures, of the receivers of signals, of arguments.

::

    from flask_sse_emitters.types import Stats

    def is_full(stats: Stats) -> bool:
        return stats["clients"] >= stats["max_clients"]

Type checkers read them. At run time they check nothing.
"""

from __future__ import annotations

from .arguments import (
    BrokerFactory,
    BrokerOptions,
    Drain,
    Duration,
    EndForNow,
    MonitorRule,
    Overflow,
    SqlSession,
    StreamSource,
)
from .figures import (
    BrokerFigures,
    BrokerState,
    BrokerStatus,
    Figures,
    MovedFigures,
    Outlet,
    Outlets,
    Process,
    PublishFigures,
    ServerFigures,
    SlowStream,
    Stats,
)
from .signals import (
    BrokerChangedReceiver,
    BrokerChangedSignal,
    EmitterClosedReceiver,
    EmitterClosedSignal,
    EmitterMovedReceiver,
    EmitterMovedSignal,
    EmitterOpenedReceiver,
    EmitterOpenedSignal,
    EventPublishedReceiver,
    EventPublishedSignal,
    GapSentReceiver,
    GapSentSignal,
    Signal,
)

__all__ = [
    "BrokerChangedReceiver",
    "BrokerChangedSignal",
    "BrokerFactory",
    "BrokerFigures",
    "BrokerOptions",
    "BrokerState",
    "BrokerStatus",
    "Drain",
    "Duration",
    "EmitterClosedReceiver",
    "EmitterClosedSignal",
    "EmitterMovedReceiver",
    "EmitterMovedSignal",
    "EmitterOpenedReceiver",
    "EmitterOpenedSignal",
    "EndForNow",
    "EventPublishedReceiver",
    "EventPublishedSignal",
    "Figures",
    "GapSentReceiver",
    "GapSentSignal",
    "MonitorRule",
    "MovedFigures",
    "Outlet",
    "Outlets",
    "Overflow",
    "Process",
    "PublishFigures",
    "ServerFigures",
    "Signal",
    "SlowStream",
    "SqlSession",
    "Stats",
    "StreamSource",
]
