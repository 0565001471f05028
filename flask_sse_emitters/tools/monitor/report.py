"""Make the report that the monitor page shows, from the figures of all processes. Pure: no clock, no I/O."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ...errors import CloseReason
from ..process_table import Totals, add_up

#: How many channels are shown: those with the most clients.
CHANNELS_SHOWN = 200

#: Seconds over which smooth rates are averaged.
SMOOTH_SECONDS = 10.0

#: A rate compares counts that lie at least so many seconds apart.
MIN_APART_SECONDS = 0.1

#: The source of the channels' rates; no process has this id.
_CHANNELS = "channels"

#: What is shown of a process as it reports it.
_REPORTED = ("id", "age", "pid", "host", "since", "clients", "pending", "dropped", "draining")


class _Sample(NamedTuple):
    at: float
    counts: Mapping[str, float]


class Rates:
    """How fast counts grow, by source. One thread at a time may call.

    :param window: seconds over which rates are averaged. Where counts arrive less often, a rate is that between the
        last two.
    """

    def __init__(self, window: float = 0.0) -> None:
        self._window = window
        self._samples: dict[str, deque[_Sample]] = {}

    def add(self, source: str, at: float, counts: Mapping[str, float]) -> dict[str, float]:
        """Add a sample, and return the rates per second by name, without those of new names.

        :param at: when these counts were read, in seconds of a monotonic clock.
        """
        samples = self._samples.setdefault(source, deque())
        if not samples or at - samples[-1].at >= MIN_APART_SECONDS:
            samples.append(_Sample(at, dict(counts)))
        while len(samples) > 2 and samples[1].at <= samples[-1].at - self._window:
            samples.popleft()
        rates = ((name, _rate(samples, name)) for name in samples[-1].counts)
        return {name: rate for name, rate in rates if rate is not None}

    def keep_only(self, sources: Collection[str]) -> None:
        """Forget the samples of all other sources."""
        for source in self._samples.keys() - set(sources):
            del self._samples[source]


def _rate(samples: Sequence[_Sample], name: str) -> float | None:
    first, last = next(sample for sample in samples if name in sample.counts), samples[-1]
    if first is last:
        return None
    before, now = first.counts[name], last.counts[name]
    growth = now - before if now >= before else now  # the source has restarted from 0
    return growth / (last.at - first.at)


def make_report(
    processes: Sequence[Mapping[str, Any]], rates: Rates, smooth_rates: Rates, now: float, clock: float
) -> dict[str, Any]:
    """Make the report of these processes.

    :param processes: the figures of this process first, then those of others from :func:`.check_processes`.
    :param rates: of this process, from one report to the next.
    :param smooth_rates: of channels, and of other processes, which report every few seconds.
    :param now: the time, in seconds since 1970.
    :param clock: the same moment by a monotonic clock, for the rates.
    """
    here = processes[0]
    shown = [_describe_process(process, rates if process is here else smooth_rates, clock) for process in processes]
    totals = add_up(processes)
    channels = _describe_channels(totals.channels, here["events"], smooth_rates, clock)
    warnings = dict.fromkeys(text for process in processes for text in process.get("warnings", ()))
    smooth_rates.keep_only([_CHANNELS, *(process["id"] for process in processes)])
    at = round(now * 1000)
    return {
        "at": at,
        "point": {
            "at": at,
            "clients": totals.clients,
            "deliveries": round(sum(process["deliveries"] for process in shown), 2),
            "published": round(sum(process["published"] for process in shown), 2),
        },
        "totals": {**totals.numbers, **_describe_publishing(totals)},
        "outlets": totals.outlets,
        "declined": totals.declined,
        "ends": {reason.name: totals.closed.get(reason.value, 0) for reason in CloseReason},
        "moved": sum(process.get("moved", {}).get("out", 0) for process in processes),
        "channels": channels,
        "channels_in_all": len(totals.channels),
        "processes": shown,
        "slow": here["slow"],
        "broker": here["broker"],
        "warnings": list(warnings),
    }


def _describe_publishing(totals: Totals) -> dict[str, float]:
    counts = totals.publish
    return {
        "confirmed": counts.get("count", 0),
        "seconds": counts.get("seconds", 0.0),
        "failed": counts.get("failed", 0),
    }


def _describe_process(process: Mapping[str, Any], rates: Rates, clock: float) -> dict[str, Any]:
    counts = {name: process.get(name, 0) for name in ("deliveries", "published")}
    per_second = rates.add(process["id"], clock - process["age"], counts)
    return {
        **{name: process.get(name) for name in _REPORTED},
        "clients": process.get("clients", 0),
        "broker": process.get("broker", {}),
        "deliveries": per_second.get("deliveries", 0.0),
        "published": per_second.get("published", 0.0),
    }


def _describe_channels(
    clients: Mapping[str, int], events: Mapping[str, int], rates: Rates, clock: float
) -> list[dict[str, Any]]:
    most = heapq.nlargest(CHANNELS_SHOWN, clients.items(), key=itemgetter(1))  # there may be very many
    most.sort(key=lambda item: (-item[1], item[0]))
    per_second = rates.add(_CHANNELS, clock, {name: events[name] for name, _ in most if name in events})
    return [
        {
            "name": name,
            "clients": count,
            "events": events.get(name),  # None: all of its clients are in other processes
            "rate": None if name not in events else round(per_second.get(name, 0.0), 2),
        }
        for name, count in most
    ]
