"""The members of channels of ``memory://`` in another worker: nothing is told of those that stay."""

from __future__ import annotations

from collections.abc import Sequence

from flask_sse_emitters.brokers import MemberChange
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.testing import decode
from tests.support.brokers.broker_calls import KEPT, RecordingListener, end, listening, publish
from tests.support.told import told
from tests.support.waiting import PATIENCE
from tests.unit.doubles.clock import ManualScheduler

from .conftest import StillWorkers, ask, in_background

#: For so many seconds members count, if they are not renewed; and the agenda looks so much later, at most.
LEASE, LATE = 9.0, 2.0


def test_memory_move_tells_nothing_of_members_that_stay(workers: StillWorkers) -> None:
    tell(workers.stops, ["ann", "bob"])
    workers.move()
    listener = listening(workers.stays, "a")
    assert sorted(workers.stays.members("a")) == ["ann", "bob"]
    tell(workers.stays, ["bob", "ann"])
    pass_time(workers, 10 * LEASE)
    assert heard(listener) == []
    assert sorted(workers.stays.members("a")) == ["ann", "bob"]
    tell(workers.stays, gone=["ann"])
    assert heard(listener) == ["-ann"]


def test_memory_move_has_members_leave_that_do_not_come(workers: StillWorkers) -> None:
    """Once, and not before their time is over."""
    tell(workers.stops, ["ann", "bob", "cay"])
    workers.move()
    listener = listening(workers.stays, "a")
    tell(workers.stays, ["bob"])
    pass_time(workers, LEASE - 0.1)
    assert heard(listener) == []
    pass_time(workers, LATE + 0.1)
    assert heard(listener) == ["-ann", "-cay"]
    assert workers.stays.members("a") == ["bob"]
    pass_time(workers, 10 * LEASE)
    assert heard(listener) == ["-ann", "-cay"]


def test_memory_members_of_a_worker_that_goes_on_are_told_in_the_other(workers: StillWorkers) -> None:
    """It renews them for as long as it has any stream."""
    tell(workers.stops, ["ann", "bob"])
    workers.move()
    listener = listening(workers.stays, "a")
    ask(workers, lambda: tell(workers.stops, ["cay"]))
    for _ in range(5):
        pass_time(workers, LEASE - 1)
        ask(workers, lambda: workers.stops.renew_members("memory.here", LEASE))
    assert heard(listener) == ["+cay"]
    ask(workers, lambda: tell(workers.stops, gone=["ann"]))
    assert heard(listener) == ["+cay", "-ann"]
    assert ask(workers, lambda: sorted(workers.stops.members("a"))) == ["bob", "cay"]
    assert ask(workers, lambda: workers.stops.members("unknown")) == []
    ask(workers, lambda: tell(workers.stops, ["dan"], is_all=True))
    assert heard(listener)[2:3] == ["+dan"]
    assert sorted(heard(listener)[3:]) == ["-bob", "-cay"]


def test_memory_member_of_both_workers_leaves_once_neither_has_it(workers: StillWorkers) -> None:
    for first, second in (("stops", "stays"), ("stays", "stops")):
        workers = StillWorkers(workers.scheduler)
        tell(workers.stops, ["ann"])
        workers.move()
        tell(workers.stays, ["ann"])
        listener = listening(workers.stays, "a")
        ask(workers, lambda: tell(getattr(workers, first), gone=["ann"]))  # noqa: B023 - called at once
        assert (heard(listener), workers.stays.members("a")) == ([], ["ann"])
        ask(workers, lambda: tell(getattr(workers, second), gone=["ann"]))  # noqa: B023
        assert (heard(listener), workers.stays.members("a")) == (["-ann"], [])


def test_memory_members_stay_where_the_other_worker_is_gone(workers: StillWorkers) -> None:
    """Also those who came after the move. Nothing is told of them a second time."""
    tell(workers.stops, ["ann", "bob"])
    workers.move()
    ask(workers, lambda: tell(workers.stops, ["cay"], ["bob"]))
    workers.cut()
    listener = listening(workers.stops, "a")
    assert sorted(workers.stops.members("a")) == ["ann", "cay"]
    tell(workers.stops, ["ann", "cay"])
    assert heard(listener) == []


def test_memory_members_are_asked_once_they_have_come(workers: StillWorkers) -> None:
    tell(workers.stops, ["ann"])
    workers.stays.inheritance.expect(60.0)
    thread, answers = in_background(lambda: workers.stays.members("a"))
    workers.move()
    thread.join(PATIENCE)
    assert answers == [["ann"]]


def test_memory_members_stay_over_two_moves_and_lapse_after_the_last(scheduler: ManualScheduler) -> None:
    first, second = StillWorkers(scheduler), StillWorkers(scheduler)
    second.giver._broker = first.stays
    tell(first.stops, ["ann", "bob"])
    first.move()
    tell(first.stays, ["ann"])
    second.move()
    listener = listening(second.stays, "a")
    tell(second.stays, ["ann"])
    assert sorted(second.stays.members("a")) == ["ann", "bob"]
    pass_time(second, LEASE + LATE)
    assert heard(listener) == ["-bob"]


def test_memory_members_lapse_where_the_next_worker_is_gone(scheduler: ManualScheduler) -> None:
    """Also those whose time was over while nothing could be told."""
    first, second = StillWorkers(scheduler), StillWorkers(scheduler)
    second.giver._broker = first.stays
    tell(first.stops, ["ann", "bob"])
    first.move()
    listener = listening(first.stays, "a")
    pass_time(second, LEASE - 1)
    tell(first.stays, ["ann"])
    second.move()
    pass_time(second, LATE + 1)
    second.cut()
    assert heard(listener) == []
    pass_time(second, LATE)
    assert heard(listener) == ["-bob"]
    assert first.stays.members("a") == ["ann"]


def test_memory_heir_that_has_members_already_tells_only_of_those(workers: StillWorkers) -> None:
    tell(workers.stops, ["ann", "bob"])
    publish(workers.stays, "a", "first")
    tell(workers.stays, ["ann", "cay"])
    workers.move()
    assert sorted(workers.stays.members("a")) == ["ann", "bob", "cay"]
    listener = listening(workers.stays, "a")
    pass_time(workers, LEASE + LATE)
    assert heard(listener) == ["-bob"]


def test_memory_members_of_a_complete_channel_lapse_in_silence(workers: StillWorkers) -> None:
    tell(workers.stops, ["ann"])
    end(workers.stops, "a")
    workers.move()
    pass_time(workers, LEASE + LATE)
    assert workers.stays.members("a") == []
    assert workers.stays.state("a").is_complete


def test_memory_channel_with_members_is_kept_until_they_are_gone(workers: StillWorkers) -> None:
    tell(workers.stays, ["ann"])
    pass_time(workers, 1000.0)
    assert workers.stays.members("a") == ["ann"]
    tell(workers.stays, gone=["ann"])
    pass_time(workers, 1000.0)
    assert "a" not in workers.stays._records


def test_memory_move_sends_members_with_their_channel(workers: StillWorkers) -> None:
    tell(workers.stops, ["누구", "ann"])
    workers.move()
    [head, *_] = workers.items()
    assert (head["members"], head["member_seconds"]) == (["누구", "ann"], LEASE)


def tell(broker: MemoryBroker, come: Sequence[str] = (), gone: Sequence[str] = (), *, is_all: bool = False) -> None:
    holder = "memory.here" if broker.handover.successor else broker.renew_members("", LEASE)
    assert broker.tell_members(holder, [MemberChange("a", come, gone, is_all, bounds=KEPT)]) == [None]


def heard(listener: RecordingListener) -> list[str]:
    return told(decode(b"".join(listener.texts)))


def pass_time(workers: StillWorkers, seconds: float) -> None:
    workers.scheduler.pass_time(seconds)
    workers.scheduler.run_calls()
