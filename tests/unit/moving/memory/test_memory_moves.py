"""The channels of ``memory://`` in another worker: all that was promised to clients and publishers holds there."""

from __future__ import annotations

import json
import threading
from collections import deque

import pytest

from flask_sse_emitters.brokers import INTERRUPTED, Bounds, Frame, Position, Published, RunLost
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.brokers.memory.record import KEY_SECONDS
from flask_sse_emitters.errors import BrokerUnavailable
from tests.support.brokers.broker_calls import KEPT, end, frame, listening, publish, publish_as
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler
from tests.unit.doubles.two_workers import read, texts

from .conftest import StillWorkers, ask, in_background


def test_memory_move_goes_on_with_ids_and_events(workers: StillWorkers) -> None:
    ids = publish(workers.stops, "a", *range(5))
    before = read(workers.stops, "a")
    workers.move()
    assert read(workers.stays, "a") == before
    assert texts(read(workers.stays, "a", position_of(ids[2]))) == ["3", "4"]
    [next_id] = publish(workers.stays, "a", "5")
    assert position_of(next_id) == Position(position_of(ids[0]).epoch, 6)


def test_memory_move_keeps_what_channels_ends_mean(workers: StillWorkers) -> None:
    """An end, events that begin anew after it, and an end that is not kept any more."""
    [first], ended = publish(workers.stops, "a", "1"), end(workers.stops, "a")
    [anew] = publish(workers.stops, "a", "2")
    end(workers.stops, "complete", bounds=Bounds(0, 60.0))
    workers.move()
    assert texts(read(workers.stays, "a", position_of(first))) == ["", "2"]
    assert texts(read(workers.stays, "a", position_of(ended))) == ["2"]
    log = workers.stays._records["a"].log
    assert (log.first, log.is_complete) == (3, False)
    assert workers.stays.state("complete").is_complete
    assert position_of(publish(workers.stays, "a", "3")[0]).epoch == position_of(anew).epoch != position_of(first).epoch
    assert workers.stays.state("complete") == workers.stops.state("complete")


def test_memory_move_keeps_keys_for_what_is_left_of_five_minutes(workers: StillWorkers) -> None:
    scheduler = workers.scheduler
    first = workers.stops.publish("a", frame("x"), KEPT, key="k")
    scheduler.pass_time(KEY_SECONDS - 10)
    workers.move()
    assert workers.stays.publish("a", frame("x"), KEPT, key="k") == (first.id, False)
    scheduler.pass_time(11)
    assert workers.stays.publish("a", frame("x"), KEPT, key="k").is_new


def test_memory_move_keeps_the_age_of_events(workers: StillWorkers) -> None:
    publish(workers.stops, "a", "old", bounds=Bounds(10, 100.0))
    workers.scheduler.pass_time(60)
    publish(workers.stops, "a", "new", bounds=Bounds(10, 100.0))
    workers.move()
    workers.taker.close()
    workers.scheduler.pass_time(50)
    assert texts(read(workers.stays, "a")) == ["new"]
    workers.scheduler.pass_time(120)
    workers.scheduler.run_calls()
    assert "a" not in workers.stays._records, "forgotten when it would have been there"


def test_memory_move_gives_the_lease_of_a_run(workers: StillWorkers) -> None:
    """Which ends by itself, where nobody renews it."""
    assert workers.stops.start_run("a", "run", 10.0)
    publish_as(workers.stops, "run", "a", frame("1"))
    workers.move()
    assert workers.stays.state("a").has_run
    assert not workers.stays.start_run("a", "another", 10.0)
    listener = listening(workers.stays, "a")
    workers.scheduler.pass_time(13)
    workers.scheduler.run_calls()
    assert listener.texts == [INTERRUPTED.payload, b""]


def test_memory_move_knows_when_the_last_event_not_kept_was_published(workers: StillWorkers) -> None:
    publish(workers.stops, "a", "1", bounds=Bounds(0, 60.0))
    workers.scheduler.pass_time(10)
    workers.move()
    log = workers.stays._records["a"].log
    assert [log.before(workers.scheduler.now - seconds) for seconds in (5, 15)] == [(1, True), (1, False)]


def test_memory_move_sends_json_that_a_person_can_read(workers: StillWorkers) -> None:
    workers.stops.publish("orders", frame("é 7"), KEPT, key="order-7")
    workers.move()
    head, event, key = workers.items()
    assert (head["channel"], head["newest"], head["events"], head["keys"]) == ("orders", 1, 1, 1)
    assert (event["id"], event["text"], event["name"]) == (f"{head['epoch']}-1", "data: é 7\n\n", "message")
    assert (key["key"], key["id"]) == ("order-7", event["id"])
    assert [json.loads(packet)["more"] for packet in workers.packets] == [False]


def test_memory_move_of_much_takes_many_messages_of_limited_size(workers: StillWorkers) -> None:
    """One event may be larger than a message; bytes that are no text, and quotes, pass as they are."""
    large = Frame(b"data: " + b'"\\\xff\x00' * 100_000 + b"\n\n", "message")
    ids = [workers.stops.publish("a", each, KEPT).id for each in (frame("small"), large, frame("last"))]
    for number in range(500):
        publish(workers.stops, f"channel:{number}", "x" * 1000)
    before = {name: read(workers.stops, name) for name in workers.stops._records}
    workers.move()
    assert len(workers.packets) > 10
    assert {name: read(workers.stays, name) for name in workers.stops._records} == before
    assert workers.stays.publish("a", large, KEPT).id == ids[0].replace("-1", "-4")


def test_memory_publish_after_the_move_is_done_by_the_other_worker(workers: StillWorkers) -> None:
    """Its own clients get it as well, as those of the one that stops that have not moved."""
    publish(workers.stops, "a", "1")
    here, there = listening(workers.stops, "a"), listening(workers.stops, "new")
    workers.move()
    moved = listening(workers.stays, "a")
    results = ask(workers, lambda: [publish(workers.stops, name, "2") for name in ("a", "new")])
    assert [texts(each.frames) for each in (here, there, moved)] == [["2"], ["2"], ["2"]]
    assert here.frames == moved.frames
    assert results == [[str(workers.stays._records[name].log.position(n))] for name, n in (("a", 2), ("new", 1))]


def test_memory_publish_after_the_move_keeps_keys_ends_and_runs(workers: StillWorkers) -> None:
    end(workers.stops, "a")
    workers.move()
    stops, stays = workers.stops, workers.stays
    assert ask(workers, lambda: stops.start_run("a", "run", 10.0))
    assert not ask(workers, lambda: stops.start_run("a", "another", 10.0))
    assert stops.state("a").has_run
    assert stops.state("a").epoch == stays.state("a").epoch
    assert ask(workers, lambda: stops.renew_run("a", "run", 20.0))
    assert not ask(workers, lambda: stops.renew_run("b", "run", 20.0))
    first = ask(workers, lambda: stops.publish("b", frame("x"), KEPT, key="k"))
    assert ask(workers, lambda: stops.publish("b", frame("x"), KEPT, key="k")) == (first.id, False)
    assert stays.publish("b", frame("x"), KEPT, key="k") == (first.id, False)
    [published] = ask(workers, lambda: publish_as(stops, "run", "a", frame("1")))
    assert isinstance(published, Published)
    assert ask(workers, lambda: stops.cancel_run("a", None))
    assert stops.state("a").is_complete
    assert stays.state("a").is_complete
    [lost] = ask(workers, lambda: publish_as(stops, "run", "a", frame("2")))
    assert isinstance(lost, RunLost)
    assert [each.is_end for each in read(stays, "a") or ()] == [True, False, True]


def test_memory_publish_of_both_workers_reaches_clients_not_yet_moved(workers: StillWorkers) -> None:
    publish(workers.stops, "a", "1")
    behind = listening(workers.stops, "a")
    workers.move()
    ids = [*publish(workers.stays, "a", "2"), *ask(workers, lambda: publish(workers.stops, "a", "3"))]
    ids += [end(workers.stays, "a"), *publish(workers.stays, "a", "4")]
    workers.settle()
    assert texts(behind.frames) == ["2", "3", "", "4"]
    assert [position_of(each).offset for each in ids] == [each.offset for each in behind.frames]
    assert read(workers.stops, "a") == read(workers.stays, "a")


def test_memory_events_that_cannot_be_told_leave_clients_behind(workers: StillWorkers) -> None:
    """The other side does not take them in time, and older ones are dropped: who moves then is given all of them."""
    publish(workers.stops, "a", "1")
    behind = listening(workers.stops, "a")
    workers.move()
    workers.taker._events = deque(maxlen=2)
    publish(workers.stays, "a", "2", "3", "4")
    workers.settle()
    assert behind.frames == []
    assert texts(read(workers.stays, "a")) == ["1", "2", "3", "4"]


def test_memory_event_told_after_the_other_worker_is_gone_is_ignored(workers: StillWorkers) -> None:
    publish(workers.stops, "a", "1")
    behind = listening(workers.stops, "a")
    workers.move()
    workers.stops.handover.end()
    publish(workers.stays, "a", "seen by others")
    workers.settle()
    assert behind.frames == []


def test_memory_publish_begins_an_epoch_once_the_other_worker_is_gone(workers: StillWorkers) -> None:
    """It may have published something with the next id."""
    [first] = publish(workers.stops, "a", "1")
    workers.move()
    [gone] = publish(workers.stays, "a", "seen by some")
    workers.cut()
    [second] = publish(workers.stops, "a", "2")
    assert position_of(second).epoch != position_of(first).epoch
    assert texts(read(workers.stops, "a", position_of(first))) == ["2"]
    assert read(workers.stops, "a", position_of(gone)) is None, "a gap"


def test_memory_publish_that_waits_for_a_worker_that_dies_is_done_here(workers: StillWorkers) -> None:
    workers.move()
    workers.is_cut = True
    thread, results = in_background(lambda: publish(workers.stops, "a", "1"))
    until(lambda: workers.scheduler._soon, "the question")
    workers.scheduler.run_calls()
    thread.join(PATIENCE)
    assert texts(read(workers.stops, "a")) == ["1"]
    assert len(results) == 1


def test_memory_move_that_breaks_off_leaves_channels_where_they_are(workers: StillWorkers) -> None:
    for number in range(400):
        publish(workers.stops, f"channel:{number}", "x" * 2000)
    workers.stays.inheritance.expect(60.0)
    workers.cut_after = 3
    workers.give()
    workers.settle()
    assert 0 < len(workers.stays._records) < 400
    workers.cut()
    assert publish(workers.stays, "unknown", "1"), "nothing is waited for"
    for number in range(400):
        publish(workers.stops, f"channel:{number}", "y")
        assert texts(read(workers.stops, f"channel:{number}")) == ["x" * 2000, "y"]


def test_memory_move_to_a_worker_that_stops_itself_passes_publishes_on(scheduler: ManualScheduler) -> None:
    first, second = StillWorkers(scheduler), StillWorkers(scheduler)
    second.stops = first.stays
    second.giver._broker = first.stays
    publish(first.stops, "a", "1")
    first.move()
    second.move()
    thread, results = in_background(lambda: publish(first.stops, "a", "2"))

    def has_come() -> bool:
        first.settle()
        run_jobs(scheduler)
        second.settle()
        return not thread.is_alive()

    until(has_come, "the id")
    assert len(results) == 1
    assert texts(read(second.stays, "a")) == ["1", "2"]


def test_memory_request_without_an_answer_says_that_it_may_have_been_done(
    workers: StillWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_emitters.brokers.memory.moves.handover.ANSWER_SECONDS", 0.01)
    workers.move()
    with pytest.raises(BrokerUnavailable, match="has not answered") as caught:
        publish(workers.stops, "a", "1")
    assert caught.value.may_be_published


def run_jobs(scheduler: ManualScheduler) -> None:
    """Have what may wait be done on threads of its own."""
    while scheduler.jobs:
        threading.Thread(target=scheduler.jobs.pop(0), daemon=True).start()


def position_of(event_id: str) -> Position:
    found = read_ids(event_id, 1)
    assert found is not None
    return found[0]
