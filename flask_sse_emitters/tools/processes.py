"""What other processes say of themselves, as far as it can be read here: pure.

They may run another version of this package, which counts otherwise; and anything may be in a broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What is counted in every process, and shown as one total.
TOTALS = ("opened", "refused", "denied", "published", "deliveries", "bytes", "replayed", "gaps", "dropped", "pending")

#: What is counted by something.
_COUNTS = ("outlets", "declined", "closed", "channels", "publish")

#: No figure is as large, nor is one less than 0.
_TOO_MUCH = 2**63


def readable(process: object) -> dict[str, Any] | None:
    """Copy what can be read of a process; None where that is nothing at all.

    :param process: as :meth:`.SSE.processes` has it.
    """
    if not isinstance(process, Mapping) or not isinstance(process.get("id"), str):
        return None
    names = (*TOTALS, "clients", "pid", "since", "age")
    numbers = {name: process[name] for name in names if _is_number(process.get(name))}
    counts = {key: _numbers(process[key]) for key in _COUNTS if isinstance(process.get(key), Mapping)}
    host, broker = process.get("host"), process.get("broker")
    told = broker if isinstance(broker, Mapping) else {}
    texts = {key: text for key in ("state", "error") if isinstance(text := told.get(key), str)}
    return {
        "age": 0.0,
        **numbers,
        **counts,
        **({"host": host} if isinstance(host, str) else {}),
        "id": process["id"],
        "broker": {**texts, "troubles": _texts(told.get("troubles"))},
        "draining": process.get("draining") is True,
        "warnings": _texts(process.get("warnings")),
    }


def _numbers(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: count for name, count in counts.items() if _is_number(count)}


def _texts(texts: object) -> list[str]:
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < _TOO_MUCH  # and so finite
