"""Whether a process hears what it is told: when it polls, how often, and that it says so once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.brokers.postgresql.client.database import Database
from flask_sse_emitters.brokers.postgresql.subscriber import hearing as module
from flask_sse_emitters.brokers.postgresql.subscriber.hearing import (
    DEAF_SECONDS,
    FIRST_POLL_SECONDS,
    LONGEST_POLL_SECONDS,
    LOOK_SECONDS,
    SPREAD,
    TEST_SECONDS,
    Hearing,
)
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def hearing(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> Hearing:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=scheduler.clock))
    monkeypatch.setattr(module, "CHANCE", SimpleNamespace(uniform=lambda *bounds: bounds[1]))
    scheduler.pass_time(1000)
    return Hearing(cast(Database, MagicMock()), "postgresql://x")


def nonce_of(hearing: Hearing) -> str:
    [[message]] = cast(MagicMock, hearing._database).run.call_args.args[1]
    return str(message)[1:]


def wait_after_look(hearing: Hearing, scheduler: ManualScheduler, *, found: bool = False) -> float:
    hearing.has_looked(found)
    return round((hearing._look_at - scheduler.clock()) / (1 + SPREAD), 3)


def test_hearing_process_looks_within_a_second(hearing: Hearing, scheduler: ManualScheduler) -> None:
    hearing.test(scheduler.clock())
    hearing.heard("of another")
    assert wait_after_look(hearing, scheduler, found=True) == FIRST_POLL_SECONDS
    hearing.heard(nonce_of(hearing))
    assert wait_after_look(hearing, scheduler) == LOOK_SECONDS
    assert LOOK_SECONDS * (1 + SPREAD) < 1


def test_process_that_hears_nothing_polls_less_and_less_and_says_so_once(
    hearing: Hearing, scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        hearing.test(scheduler.clock())
        scheduler.pass_time(DEAF_SECONDS + 1)
        hearing.test(scheduler.clock())
        scheduler.pass_time(TEST_SECONDS)
    [message] = caplog.messages
    assert "SSE_BROKER_LISTEN_URL" in message
    waits = [wait_after_look(hearing, scheduler) for _ in range(20)]
    assert waits == sorted(waits)
    assert (waits[0] < 2 * FIRST_POLL_SECONDS, waits[-1]) == (True, LONGEST_POLL_SECONDS)
    assert wait_after_look(hearing, scheduler, found=True) == FIRST_POLL_SECONDS


def test_process_that_hears_again_polls_no_more(hearing: Hearing, scheduler: ManualScheduler) -> None:
    hearing.test(scheduler.clock())
    scheduler.pass_time(TEST_SECONDS)
    hearing.test(scheduler.clock())
    hearing.heard(nonce_of(hearing))
    assert wait_after_look(hearing, scheduler) == LOOK_SECONDS
    hearing.begin()
    assert wait_after_look(hearing, scheduler) < LOOK_SECONDS, "it is another connection"
