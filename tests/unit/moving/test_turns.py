"""Two workers of which one gives its streams to the other: neither keeps what else is to be done waiting."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.config.settings import Settings
from flask_sse_emitters.moving import arriving, departing
from flask_sse_emitters.moving.app import MovingApp
from flask_sse_emitters.moving.arriving import Arriving, Preparation
from flask_sse_emitters.moving.departing import Departing
from flask_sse_emitters.moving.giving import Giving
from flask_sse_emitters.moving.meeting.link import Link
from flask_sse_emitters.moving.memory.items import item_of_event
from flask_sse_emitters.moving.memory.packets import pack
from flask_sse_emitters.moving.protocol.messages import Hello, Refusal, encode
from flask_sse_emitters.moving.protocol.terms import Terms
from flask_sse_emitters.wire.frame import Frame
from tests.support.brokers.held_broker import HeldBroker
from tests.unit.doubles.clock import ManualScheduler


def an_app(**given: Any) -> MovingApp:
    return cast(MovingApp, SimpleNamespace(terms=lambda: Terms.of("shop", "1.0", Settings()), **given))


def test_worker_that_stays_writes_before_it_takes_more_streams(
    links: tuple[Link, Link], scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "SCHEDULER", scheduler)
    stops, stays = links
    Arriving(stays)
    answers: list[Any] = []
    stops.send(encode(Hello(99, None)))
    scheduler.call_soon(lambda: answers.append(stops.receive()))  # stands for a stream that is to be written to
    scheduler.pass_time(arriving.TICK_SECONDS)
    scheduler.run_calls()
    assert answers == [None], "it was taken before"
    received = stops.receive()
    assert received is not None
    assert isinstance(received[0], Refusal)


def test_worker_that_stops_writes_before_it_gives_more_streams(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departing, "SCHEDULER", scheduler)
    looks: list[float] = []
    app = an_app(memory=None, streams=())

    def find_links() -> list[Link]:
        looks.append(scheduler.now)
        return []

    Departing(app, find_links, lambda _: True, 1, until=scheduler.now + 60)
    seen: list[int] = []
    scheduler.call_soon(lambda: seen.append(len(looks)))
    scheduler.pass_time(departing.SEARCH_SECONDS)
    scheduler.run_calls()
    assert seen == [1], "it has looked again before"
    assert len(looks) == 2


def test_worker_that_stops_takes_all_events_that_it_is_told_in_one_turn(links: tuple[Link, Link]) -> None:
    stops, stays = links
    giving = Giving(stops, an_app(memory=MemoryBroker("memory://")), deque())
    for number in range(10):
        for packet in pack("told", 0, [item_of_event(f"unknown-{number}", Frame(b"data: x\n\n", "message"))]):
            stays.send(packet)
    giving.work()
    assert not giving.is_over
    assert stops.receive() is None


def test_preparation_is_over_once_all_channels_are_known() -> None:
    broker = HeldBroker()
    preparation = Preparation(broker, ["a", "b"])
    for channel in ("a", "b"):
        assert not preparation.is_over
        broker.start(channel)
    assert preparation.is_over
    preparation.close()
    assert [*broker.listeners.values()] == [[], []], "it listens on only for clients"
