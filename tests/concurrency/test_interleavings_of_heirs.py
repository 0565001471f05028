"""A worker that takes over a channel, under every interleaving with who listens to it, leaves it, and publishes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_emitters.brokers import Frame, MemberChange, Start
from flask_sse_emitters.brokers.memory import MemoryBroker
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import Every, Stage
from tests.support.brokers.broker_calls import RecordingListener, publish
from tests.unit.doubles.two_workers import read, texts


class Heir:
    """A broker that is to get the channel ``a`` of another worker: ``there`` was published, and ann is a member."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.broker = MemoryBroker(scheduler=stage.background)
        other = MemoryBroker(scheduler=stage.background)
        publish(other, "a", "there")
        tell_of_ann(other, is_quiet=True)
        [self._state] = other.handover.states(_Successor())

    def take(self) -> None:
        self.broker.inheritance.take(self._state)
        self.broker.inheritance.end()

    def listeners(self) -> tuple[object, ...]:
        self._stage.background.finish()
        return self.broker._records["a"].audience.listeners


def tell_of_ann(broker: MemoryBroker, *, is_quiet: bool = False) -> None:
    broker.tell_members(broker.renew_members("", 9.0), [MemberChange("a", ["ann"], is_quiet=is_quiet)])


class _Successor:
    def ask(self, *_: object) -> None:
        raise NotImplementedError


class StartsInOrder(RecordingListener):
    """Notes what comes after the last start alone."""

    def started(self, start: Start) -> None:
        super().started(start)
        self.frames = []


@pytest.fixture
def heir(stage: Stage) -> Callable[[], Heir]:
    return lambda: Heir(stage)


def test_listener_that_comes_as_its_channel_is_taken_over_gets_events(
    heir: Callable[[], Heir], stage: Stage, every: Every
) -> None:
    """It may hold what was known of the channel here before."""

    def scene() -> Scene:
        it = heir()
        publish(it.broker, "a", "here")
        listener = StartsInOrder()

        def subscribe() -> None:
            if (start := it.broker.subscribe("a", listener)) is not None:
                listener.started(start)

        def check() -> None:
            stage.background.finish()
            publish(it.broker, "a", "last")
            assert it.listeners() == (listener,)
            assert listener.texts == [b"data: last\n\n"]

        return Scene({"subscribe": subscribe, "take": it.take}, check)

    every(scene, takes=2, edges=1)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "held"])
def test_listener_that_leaves_as_its_channel_is_taken_over_is_gone(
    is_known: bool, heir: Callable[[], Heir], stage: Stage, every: Every
) -> None:
    def scene() -> Scene:
        it = heir()
        if is_known:
            publish(it.broker, "a", "here")
        else:
            it.broker.inheritance.expect(60.0)
        listener = RecordingListener()
        assert (it.broker.subscribe("a", listener) is not None) == is_known

        def check() -> None:
            assert it.listeners() == ()

        return Scene({"take": it.take, "leave": lambda: it.broker.unsubscribe("a", listener)}, check)

    every(scene, takes=2, edges=1)


def test_event_published_as_its_channel_is_taken_over_comes_once(
    heir: Callable[[], Heir], stage: Stage, every: Every
) -> None:
    """It is before their new start, or delivered after that."""

    def scene() -> Scene:
        it = heir()
        publish(it.broker, "a", "here")
        listener = StartsInOrder()
        start = it.broker.subscribe("a", listener)
        assert start is not None
        listener.started(start)

        def check() -> None:
            stage.background.finish()
            kept: list[Frame] = read(it.broker, "a") or []
            assert texts(kept) == ["there", "here", "new"]
            assert listener.starts == 2
            assert [each.offset for each in listener.frames] == list(range(listener.newest + 1, 4))

        return Scene({"take": it.take, "publish": lambda: publish(it.broker, "a", "new")}, check)

    every(scene, takes=2, edges=1)


def test_member_told_as_its_channel_is_taken_over_does_not_join_again(
    heir: Callable[[], Heir], stage: Stage, every: Every
) -> None:
    def scene() -> Scene:
        it = heir()
        it.broker.inheritance.expect(60.0)

        def check() -> None:
            assert texts(read(it.broker, "a")) == ["there"]
            assert it.broker.members("a") == ["ann"]

        return Scene({"tell": lambda: tell_of_ann(it.broker), "take": it.take}, check)

    every(scene, takes=2, edges=1)
