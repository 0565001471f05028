"""The worker that stays while the channels of another one come: who waits for them, and what was here before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from flask_sse_emitters.brokers import Bounds, Frame
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.brokers.memory.moves.inheritance import SILENCE_SECONDS
from tests.support.brokers.broker_calls import KEPT, RecordingListener, end, frame, listening, publish
from tests.support.waiting import PATIENCE
from tests.unit.doubles.two_workers import read, texts

from .conftest import StillWorkers


def test_memory_heir_publishes_after_what_comes(workers: StillWorkers) -> None:
    """So ids go on in the same epoch; a channel that is here goes on meanwhile."""
    ids = publish(workers.stops, "a", "1")
    publish(workers.stays, "here", "x")
    workers.stays.inheritance.expect(60.0)
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.extend(publish(workers.stays, "a", "2")), daemon=True)
    thread.start()
    publish(workers.stays, "here", "y")
    workers.move()
    thread.join(PATIENCE)
    assert results == [ids[0].replace("-1", "-2")]
    assert texts(read(workers.stays, "here")) == ["x", "y"]


def test_memory_heir_starts_clients_once_their_channel_is_there(workers: StillWorkers) -> None:
    publish(workers.stops, "a", "1")
    workers.stays.inheritance.expect(60.0)
    calls: list[str] = []
    listeners: dict[str, tuple[RecordingListener, RecordingListener]] = {}
    for channel in ("a", "new"):
        listener, gone = RecordingListener(), RecordingListener()
        assert workers.stays.subscribe(channel, listener) is None
        assert workers.stays.subscribe(channel, gone) is None
        workers.stays.unsubscribe(channel, gone)
        workers.stays.look_again(channel, partial(calls.append, channel))
        assert workers.stays.newest(channel) is None
        assert not listener.starts
        listeners[channel] = listener, gone
    workers.move()
    assert [(kept.starts, kept.newest, gone.starts) for kept, gone in listeners.values()] == [(1, 1, 0), (1, 0, 0)]
    assert sorted(calls) == ["a", "new"]
    publish(workers.stays, "a", "2")
    assert listeners["a"][0].texts == [b"data: 2\n\n"]


def test_memory_heir_waits_no_longer_than_it_was_told(workers: StillWorkers) -> None:
    workers.stays.inheritance.expect(2.0)
    listener = RecordingListener()
    assert workers.stays.subscribe("a", listener) is None
    workers.scheduler.pass_time(2.1)
    assert listener.starts == 1
    publish(workers.stays, "a", "1")
    assert listener.texts == [b"data: 1\n\n"]


def test_memory_heir_that_waits_can_be_told_to_wait_less_or_more(workers: StillWorkers) -> None:
    inheritance, scheduler = workers.stays.inheritance, workers.scheduler
    inheritance.expect_soon(2.0)
    assert workers.stays.subscribe("it did not wait", RecordingListener()) is not None
    inheritance.expect(60.0)
    inheritance.expect_soon(2.0)
    scheduler.pass_time(1.0)
    inheritance.expect_soon(2.0)
    listener = RecordingListener()
    assert workers.stays.subscribe("a", listener) is None
    scheduler.pass_time(1.5)
    assert not listener.starts
    scheduler.pass_time(0.6)
    assert listener.starts


def test_memory_heir_waits_for_what_comes_slowly_but_not_for_what_stops(workers: StillWorkers) -> None:
    for number in range(200):
        publish(workers.stops, f"channel:{number}", "x" * 1000)
    workers.stays.inheritance.expect(0.5)
    workers.cut_after = 2
    workers.give()
    workers.settle()
    workers.scheduler.pass_time(SILENCE_SECONDS - 0.1)
    assert workers.stays.subscribe("late", RecordingListener()) is None
    workers.scheduler.pass_time(0.2)
    assert workers.stays.subscribe("later", RecordingListener()) is not None


def test_memory_heir_that_has_published_already_has_that_after_what_comes(workers: StillWorkers) -> None:
    """Clients of both come back with their ids, and get what each has missed."""
    there = publish(workers.stops, "a", "1", "2", "3")
    here = publish(workers.stays, "a", "4", "5")
    listener = listening(workers.stays, "a")
    workers.move()
    assert texts(came_back(workers, there[1])) == ["3", "4", "5"]
    assert texts(came_back(workers, there[2])) == ["4", "5"]
    assert texts(came_back(workers, here[0])) == ["5"]
    assert came_back(workers, here[0].replace("-1", "-3")) is None, "a gap: there was none"
    assert publish(workers.stays, "a", "6") == [there[0].replace("-1", "-6")], "in the epoch of the first"
    assert (listener.starts, listener.newest) == (2, 5), "its clients reconnect"
    assert listener.texts == [b"data: 6\n\n"]


def test_memory_heir_knows_the_ids_of_both_also_when_it_stops_itself(workers: StillWorkers) -> None:
    there, here = publish(workers.stops, "a", "1", "2"), publish(workers.stays, "a", "3", "4")
    workers.move()
    next_one = StillWorkers(workers.scheduler)
    next_one.giver._broker = workers.stays
    last = publish(next_one.stays, "a", "5", "6")
    next_one.move()
    assert [texts(came_back(next_one, ids[0])) for ids in (there, here, last)] == [
        ["2", "3", "4", "5", "6"],
        ["4", "5", "6"],
        ["6"],
    ]


def test_memory_heir_merges_keys_ends_and_what_is_no_longer_kept(workers: StillWorkers) -> None:
    stops, stays = workers.stops, workers.stays
    first = stops.publish("keyed", frame("1"), KEPT, key="k")
    stays.publish("keyed", frame("2"), KEPT, key="k")
    stays.publish("keyed", frame("3"), KEPT, key="l")
    [before], [after] = publish(stops, "ended", "1"), publish(stays, "ended", "2")
    ended = end(stops, "ended")
    [old], kept = publish(stops, "short", "1"), publish(stays, "short", "2", "3", "4", bounds=Bounds(2, 60.0))
    workers.move()
    assert stays.publish("keyed", frame("1"), KEPT, key="k") == (first.id, False)
    assert not stays.publish("keyed", frame("3"), KEPT, key="l").is_new
    assert [texts(came_back(workers, each, "ended")) for each in (before, ended, after)] == [["", "2"], ["2"], []]
    log = stays._records["ended"].log
    assert (log.first, log.position(3).epoch != log.position(2).epoch) == (3, True), "what follows an end begins anew"
    assert came_back(workers, old, "short") is None, "a gap: the first that was published here is not kept"
    assert texts(came_back(workers, kept[0], "short")) == ["3", "4"]


def test_memory_heir_with_one_side_blank_disturbs_no_client_that_need_not(workers: StillWorkers) -> None:
    """Nothing was published there: the clients that it has here go on."""
    blank = listening(workers.stops, "a")
    assert blank.log is not None
    here = listening(workers.stays, "a")
    publish(workers.stays, "a", "1")
    workers.move()
    assert (here.starts, here.texts) == (1, [b"data: 1\n\n"])
    assert texts(came_back(workers, f"{blank.log.epoch}-0")) == ["1"]


def test_memory_heir_in_a_forked_child_waits_for_nothing(
    workers: StillWorkers, in_child: Callable[[Callable[[], object]], str]
) -> None:
    workers.stays.inheritance.expect(60.0)
    publish(workers.stops, "a", "1")
    workers.move()
    workers.stays.inheritance.expect(60.0)

    def publish_there() -> int:
        return len(publish(workers.stays, "b", "1") + publish(workers.stops, "b", "1"))

    assert in_child(publish_there) == "2"


def came_back(workers: StillWorkers, event_id: str, channel: str = "a") -> list[Frame] | None:
    found = read_ids(event_id, 1)
    assert found is not None
    return read(workers.stays, channel, found[0])
