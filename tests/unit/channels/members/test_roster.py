"""What the broker is told of members, and when. Time stands still, and the broker is a double."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, CloseReason
from flask_sse_emitters.brokers import Bounds, MemberChange
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.channels.members.here import MOST_AT_ONCE
from flask_sse_emitters.channels.members.roster import (
    AGAIN_SECONDS,
    AWAY_SECONDS,
    BEGIN_SECONDS,
    CONNECT_SECONDS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    SETTLE_SECONDS,
    Roster,
)
from flask_sse_emitters.channels.options import OptionTable
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry.identity import Reader
from flask_sse_emitters.streams.stream import Stream
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter

GRACE = 6.0


class RecordingBroker(MemoryBroker):
    """Records what it is told, and answers what the test has set."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = "m.1"
        self.is_away = False
        self.renewals: list[tuple[str, float, bool]] = []
        self.told: list[tuple[str, MemberChange]] = []

    def renew_members(self, holder: str, seconds: float, *, was_away: bool = False) -> str:
        self._check()
        self.renewals.append((holder, seconds, was_away))
        return self.holder

    def tell_members(self, holder: str, changes: Sequence[MemberChange]) -> list[Exception | None]:
        self._check()
        self.told += [(holder, change) for change in changes]
        return [None] * len(changes)

    def _check(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")

    def take(self) -> list[list[Sequence[str]]]:
        """Return who has come and who is gone, since the last time."""
        told, self.told = self.told, []
        return [[change.come, change.gone] for _, change in told]


class Scene:
    def __init__(self) -> None:
        self.broker = RecordingBroker()
        self.scheduler = ManualScheduler()
        options = OptionTable()
        options.set("room", {"members": True})
        self.roster = Roster(self.broker, options, DEFAULTS, lambda _: Bounds(10, 60.0), self.scheduler)

    def arrive(self, identity: str | None, *, begins: bool = True) -> Stream:
        emitter = emitter_at(self.scheduler, timeout=0, heartbeat=0)
        stream = stream_of(emitter)
        if identity is not None:
            stream.reader = Reader((identity,), ("room",))
        if begins:
            FakeWriter(emitter)  # which begins it
        self.roster.arrive("room", stream)
        return stream

    def depart(self, stream: Stream, reason: CloseReason = CloseReason.DISCONNECTED) -> None:
        stream.end(reason)
        self.roster.depart("room", stream)

    def pass_time(self, seconds: float) -> None:
        """Let time pass as if the helper thread took none."""
        end = self.scheduler.now + seconds
        while self.scheduler.now < end:
            self.scheduler.pass_time(min(BEGIN_SECONDS, end - self.scheduler.now))
            self.scheduler.run_jobs()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_roster_tells_all_who_come_within_a_moment_in_one_step(scene: Scene) -> None:
    for identity in ("a", "b", "a", None):
        scene.arrive(identity)
    scene.pass_time(3 * BEGIN_SECONDS)
    assert scene.broker.take() == [[["a", "b"], []]]
    assert scene.broker.renewals == [("", LEASE_SECONDS, False)]
    scene.pass_time(RENEW_SECONDS)
    assert scene.broker.renewals[1:] == [("m.1", LEASE_SECONDS, False)]
    assert scene.broker.take() == [], "what has not changed is not told again"


def test_roster_lets_an_identity_go_after_the_grace_of_its_last_stream(scene: Scene) -> None:
    first, second = scene.arrive("a"), scene.arrive("a")
    scene.pass_time(1.0)
    scene.broker.take()
    scene.depart(first)
    scene.pass_time(GRACE + 1)
    scene.depart(second)
    scene.roster.depart("room", second)
    scene.pass_time(GRACE - 2 * BEGIN_SECONDS)
    assert scene.broker.take() == []
    scene.pass_time(4 * BEGIN_SECONDS)
    assert scene.broker.take() == [[[], ["a"]]]


def test_roster_tells_nothing_of_who_comes_back_within_the_grace(scene: Scene) -> None:
    stream = scene.arrive("a")
    for _ in range(3):
        scene.pass_time(1.0)
        scene.depart(stream)
        scene.pass_time(GRACE - 1)
        stream = scene.arrive("a")
    scene.pass_time(2 * GRACE)
    assert scene.broker.take() == [[["a"], []]]


def test_roster_waits_longer_for_a_client_that_was_sent_away(scene: Scene) -> None:
    stream = scene.arrive("a")
    scene.pass_time(1.0)
    scene.broker.take()
    scene.depart(stream, CloseReason.SHUTDOWN)
    scene.pass_time(GRACE + CONNECT_SECONDS - 2 * BEGIN_SECONDS)
    assert scene.broker.take() == []
    scene.pass_time(4 * BEGIN_SECONDS)
    assert scene.broker.take() == [[[], ["a"]]]


def test_roster_tells_nothing_of_a_stream_that_never_begins(scene: Scene) -> None:
    stream = scene.arrive("a", begins=False)
    scene.pass_time(1.0)
    scene.depart(stream)
    scene.pass_time(2 * GRACE)
    assert scene.broker.take() == []


def test_roster_is_silent_once_nobody_is_there(scene: Scene) -> None:
    stream = scene.arrive("a")
    scene.pass_time(1.0)
    scene.depart(stream)
    scene.pass_time(GRACE + RENEW_SECONDS + 1)
    count = len(scene.broker.renewals)
    scene.pass_time(60.0)
    assert len(scene.broker.renewals) == count
    assert scene.scheduler.live_timers() == []
    scene.arrive("a")
    scene.pass_time(1.0)
    assert scene.broker.renewals[-1] == ("", LEASE_SECONDS, False), "it begins anew"


def test_roster_tells_all_again_after_an_outage_and_spares_others(scene: Scene) -> None:
    scene.arrive("a")
    gone = scene.arrive("b")
    scene.pass_time(1.0)
    scene.broker.take()
    scene.broker.is_away = True
    scene.depart(gone)
    scene.arrive("c")
    scene.pass_time(RENEW_SECONDS + AWAY_SECONDS + GRACE)
    scene.broker.is_away = False
    scene.broker.renewals.clear()
    scene.pass_time(2.0)
    assert scene.broker.renewals[0] == ("m.1", LEASE_SECONDS, True)
    assert scene.broker.told == [("m.1", MemberChange("room", ["a", "c"], (), True, False, Bounds(10, 60.0)))]


def test_roster_goes_on_as_another_holder_and_clears_the_former(scene: Scene) -> None:
    """It was taken for dead. The former is cleared last, so that nobody is gone meanwhile."""
    scene.arrive("a")
    scene.pass_time(1.0)
    scene.broker.take()
    scene.broker.holder = "m.2"
    scene.pass_time(RENEW_SECONDS)
    new, former = scene.broker.told
    assert new == ("m.2", MemberChange("room", ["a"], (), True, False, Bounds(10, 60.0)))
    assert former == ("m.1", MemberChange("room", (), (), True))


def test_roster_tells_in_silence_first_where_the_broker_has_lost_all(scene: Scene) -> None:
    scene.arrive("a")
    scene.pass_time(1.0)
    scene.broker.take()
    scene.broker.holder = "other.2"
    scene.arrive("new")
    scene.pass_time(SETTLE_SECONDS - 1)
    assert scene.broker.told[0] == ("other.2", MemberChange("room", ["a"], (), True, True, Bounds(10, 60.0)))
    assert [change.come for _, change in scene.broker.told[1:]] == [()], "the former holder's"
    scene.broker.take()
    scene.pass_time(2.0)
    assert scene.broker.take() == [[["new"], []]]


def test_roster_tells_all_again_once_a_day(scene: Scene) -> None:
    scene.arrive("a")
    scene.pass_time(1.0)
    scene.broker.take()
    scene.scheduler.now += AGAIN_SECONDS - 10
    scene.pass_time(20.0)
    assert [change.is_all for _, change in scene.broker.told] in ([True], [True, True])


def test_roster_tells_of_many_in_steps(scene: Scene) -> None:
    names = [f"user {number}" for number in range(MOST_AT_ONCE + 1)]
    for name in names:
        scene.arrive(name)
    scene.pass_time(1.0)
    told: list[Any] = scene.broker.take()
    assert [len(come) for come, _ in told] == [MOST_AT_ONCE, 1]
    assert [*told[0][0], *told[1][0]] == names


def test_roster_that_stops_leaves_its_members_the_grace(scene: Scene) -> None:
    scene.arrive("a")
    scene.pass_time(1.0)
    scene.broker.renewals.clear()
    scene.roster.stop()
    scene.pass_time(60.0)
    assert scene.broker.renewals == [("m.1", max(LEASE_SECONDS, GRACE + CONNECT_SECONDS), False)]
