"""What the monitor shows of the figures of all processes. Pure: no clock, no I/O."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ...errors import CloseReason
from ..process_table import add_up

#: So many channels are shown, those with most clients first.
CHANNELS_SHOWN = 200

#: A calm rate is of the last so many seconds.
CALM_SECONDS = 10.0

#: Seconds that must lie between two figures of which a rate is made.
LEAST_APART = 0.1

#: Whose rates those of channels are: no process has such an id.
_CHANNELS = "channels"

#: What of a process is shown as it says it.
_OF_PROCESS = ("id", "age", "pid", "host", "since", "clients", "pending", "dropped", "draining")


class _Said(NamedTuple):
    at: float
    counts: Mapping[str, float]


class Rates:
    """How fast counts grow: from what was said last to what was said before, also where that is rare.

    :param window: so many seconds they go back, where more than one figure is that young.
    """

    def __init__(self, window: float = 0.0) -> None:
        self._window = window
        self._said: dict[str, deque[_Said]] = {}

    def note(self, whose: str, at: float, counts: Mapping[str, float]) -> dict[str, float]:
        """Per second, by name; nothing of what is counted for the first time.

        :param at: when these counts were right, in seconds of a clock that nobody sets back.
        """
        said = self._said.setdefault(whose, deque())
        if not said or at - said[-1].at >= LEAST_APART:
            said.append(_Said(at, dict(counts)))
        while len(said) > 2 and said[1].at <= said[-1].at - self._window:
            said.popleft()
        rates = ((name, _rate(said, name)) for name in said[-1].counts)
        return {name: rate for name, rate in rates if rate is not None}

    def forget_others(self, whose: Collection[str]) -> None:
        """All but these."""
        for gone in self._said.keys() - set(whose):
            del self._said[gone]


def _rate(said: Sequence[_Said], name: str) -> float | None:
    first, last = next(each for each in said if name in each.counts), said[-1]
    if first is last:
        return None
    before, now = first.counts[name], last.counts[name]
    grown = now - before if now >= before else now  # it began anew
    return grown / (last.at - first.at)


def make_report(
    processes: Sequence[Mapping[str, Any]], rates: Rates, calm_rates: Rates, now: float, clock: float
) -> dict[str, Any]:
    """What the page shows of them.

    :param processes: this process first, then the others as :func:`.check_processes` returns them.
    :param rates: of this process, from one look to the next.
    :param calm_rates: of channels, and of processes that are heard of now and then.
    :param now: the time, in seconds since 1970.
    :param clock: the same by a clock that nobody sets back, for the rates.
    """
    here = processes[0]
    shown = [_process(process, rates if process is here else calm_rates, clock) for process in processes]
    totals = add_up(processes)
    channels = _channels(totals.channels, here["events"], calm_rates, clock)
    calm_rates.forget_others([_CHANNELS, *(process["id"] for process in processes)])
    return {
        "at": round(now * 1000),
        "point": {
            "at": round(now * 1000),
            "clients": totals.clients,
            "deliveries": round(sum(process["deliveries"] for process in shown), 2),
            "published": round(sum(process["published"] for process in shown), 2),
        },
        "totals": {
            **totals.numbers,
            "confirmed": totals.publish.get("count", 0),
            "seconds": totals.publish.get("seconds", 0.0),
            "failed": totals.publish.get("failed", 0),
        },
        "outlets": totals.outlets,
        "declined": totals.declined,
        "ends": {reason.name: totals.closed.get(reason.value, 0) for reason in CloseReason},
        "channels": channels,
        "channels_in_all": len(totals.channels),
        "processes": shown,
        "slow": here["slow"],
        "broker": here["broker"],
        "warnings": list(dict.fromkeys(text for process in processes for text in process.get("warnings", ()))),
    }


def _process(process: Mapping[str, Any], rates: Rates, clock: float) -> dict[str, Any]:
    counts = {name: process.get(name, 0) for name in ("deliveries", "published")}
    grown = rates.note(process["id"], clock - process["age"], counts)
    return {
        **{name: process.get(name) for name in _OF_PROCESS},
        "clients": process.get("clients", 0),
        "broker": process.get("broker", {}),
        "deliveries": grown.get("deliveries", 0.0),
        "published": grown.get("published", 0.0),
    }


def _channels(
    clients: Mapping[str, int], events: Mapping[str, int], rates: Rates, clock: float
) -> list[dict[str, Any]]:
    most = heapq.nlargest(CHANNELS_SHOWN, clients.items(), key=itemgetter(1))  # of all, which may be very many
    most.sort(key=lambda item: (-item[1], item[0]))
    told = rates.note(_CHANNELS, clock, {name: events[name] for name, _ in most if name in events})
    return [
        {
            "name": name,
            "clients": count,
            "events": events.get(name),  # None: all of its clients are in other processes
            "rate": None if name not in events else round(told.get(name, 0.0), 2),
        }
        for name, count in most
    ]
