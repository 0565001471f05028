"""The contract of brokers, as to ends of channels, their states, and several events in one step."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from flask_sse_emitters.brokers import CHANNEL_END, Bounds, Broker, ChannelState, Log, Position, Publication, Published
from tests.brokers.contract.brokers import Make
from tests.support.brokers.broker_calls import KEPT, RecordingListener, end, frame, in_threads, listening, publish
from tests.support.client import new_name
from tests.support.waiting import until


def position(event_id: str) -> Position:
    epoch, offset = event_id.split("-")
    return Position(epoch, int(offset))


def has_expired(log: Log) -> bool:
    return log.first > log.newest


def has_received(listener: RecordingListener, count: int) -> bool:
    return len(listener.frames) == count


def ids_of(listener: RecordingListener) -> list[str]:
    return [each.payload[: each.body].decode()[len("id: ") : -1] for each in listener.frames]


def test_broker_end_has_its_place_among_events_of_many_publishers(broker: Broker) -> None:
    """What comes before it is in one epoch, and what comes after it in another, for all alike."""
    channel = new_name()
    listeners = [listening(broker, channel) for _ in range(2)]
    ids: list[str] = []

    def publish_some(number: int) -> None:
        for count in range(100):
            ids.extend(publish(broker, channel, f"{number} {count}"))
            if (number, count) == (0, 50):
                ids.append(end(broker, channel))

    in_threads([partial(publish_some, number) for number in range(4)])
    until(lambda: all(len(each.frames) == 401 for each in listeners), "all events and the end")
    assert ids_of(listeners[0]) == ids_of(listeners[1]) == sorted(ids, key=lambda each: position(each).offset)
    [at] = [index for index, each in enumerate(listeners[0].frames) if each.is_end]
    epochs = [position(each).epoch for each in ids_of(listeners[0])]
    assert len({*epochs[: at + 1]}) == len({*epochs[at + 1 :]}) == len({*epochs}) - 1 == 1
    assert [each.offset for each in listeners[0].frames] == [*range(1, 402)]


def test_broker_channel_is_complete_until_the_next_event(broker: Broker) -> None:
    """That begins a new epoch, in which offsets go on. Nothing from before it is given to who comes then."""
    channel = new_name()
    first = position(publish(broker, channel, "a", "b")[0])
    assert broker.state(channel) == ChannelState(first.epoch, 2, 1, is_complete=False, has_run=False)
    assert position(end(broker, channel)) == (first.epoch, 3)
    complete = broker.state(channel)
    assert complete == ChannelState(first.epoch, 3, 1, is_complete=True, has_run=False)
    assert complete.has_events
    again = position(publish(broker, channel, "c")[0])
    assert again.epoch != first.epoch
    assert again.offset == 4
    assert broker.state(channel) == ChannelState(again.epoch, 4, 4, is_complete=False, has_run=False)
    end(broker, channel)
    assert broker.state(channel) == ChannelState(again.epoch, 5, 4, is_complete=True, has_run=False)


@pytest.mark.parametrize("late", [False, True], ids=["subscribed before", "subscribed afterwards"])
def test_broker_log_knows_positions_from_before_ends(broker: Broker, late: bool) -> None:
    """Who is behind an end gets the rest up to it; who begins anew does not."""
    channel = new_name()
    listener = listening(broker, channel)
    ids = []
    for round_ in range(3):
        ids += publish(broker, channel, f"{round_} a", f"{round_} b")
        ids.append(end(broker, channel))
    ids += publish(broker, channel, "last")
    until(lambda: len(listener.frames) == 10, "all")
    log = (listening(broker, channel) if late else listener).log
    assert log is not None
    assert len({position(each).epoch for each in ids}) == 4
    assert [log.find(position(each)) for each in ids] == [*range(1, 11)]
    assert [str(log.position(offset)) for offset in range(1, 11)] == ids
    found = log.after(0, log.newest)
    assert [each.payload[: each.body].decode() for each in found] == [f"id: {each}\n" for each in ids]
    assert [each.offset for each in found if each.is_end] == [3, 6, 9]
    assert (log.oldest, log.first, log.is_complete) == (1, 10, False)
    assert log.find(Position(position(ids[0]).epoch, 4)) is None, "that epoch ended before"


@pytest.mark.parametrize("late", [False, True], ids=["subscribed before", "subscribed afterwards"])
def test_broker_log_gives_the_last_end_though_it_is_not_kept(broker: Broker, late: bool) -> None:
    """Who has all events before it has missed nothing: see the offsets that can be read after each."""
    channel, few = new_name(), Bounds(1, 60.0)
    listener = listening(broker, channel)
    publish(broker, channel, "a", "b", bounds=few)
    end(broker, channel, few)
    publish(broker, channel, "c", bounds=few)
    until(lambda: len(listener.frames) == 4, "all")
    log = (listening(broker, channel) if late else listener).log
    assert log is not None
    assert (log.oldest, log.newest) == (4, 4)
    assert [[each.offset for each in log.after(offset, 4)] for offset in range(4)] == [[4], [4], [3], [4]]
    assert [log.is_before_end(offset) for offset in range(4)] == [False, False, True, False]
    [found] = log.after(2, 4)
    assert found.is_end
    assert found.payload == f"id: {log.position(3)}\n".encode()


def test_broker_log_of_many_ends_is_known_to_who_comes_later(broker: Broker) -> None:
    """However many lookups that takes: the state is the same as where all of it arrived."""
    channel = new_name()
    listener = listening(broker, channel)
    group = [Publication(channel, frame("x"), KEPT), Publication(channel, CHANNEL_END, KEPT)]
    for round_ in range(1, 11):
        results = broker.publish_many(group * 5)
        assert all(isinstance(each, Published) and each.is_new for each in results)
        until(partial(has_received, listener, round_ * 10), "these")
    late = listening(broker, channel)
    assert listener.log is not None
    assert late.log is not None
    states = [broker.state(channel), ChannelState.of(listener.log), ChannelState.of(late.log)]
    assert states == [ChannelState(states[0].epoch, 100, 99, is_complete=True, has_run=False)] * 3
    assert [each.offset for each in listener.frames if each.is_end] == [*range(2, 101, 2)]
    assert [each.offset for each in late.log.after(0, 100) if each.is_end] == [*range(2, 101, 2)]
    assert [each.offset for each in late.log.former] == [*range(98, 82, -2)], "the last eight"


def test_broker_end_of_a_complete_channel_is_not_new(broker: Broker) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    first = broker.publish(channel, CHANNEL_END, KEPT)
    assert first.is_new
    assert broker.publish(channel, CHANNEL_END, KEPT) == (first.id, False)
    state = broker.state(channel)
    assert (state.newest, state.is_complete, state.has_events) == (1, True, False)
    publish(broker, channel, "a")
    until(lambda: len(listener.frames) == 2, "the end and the event")
    assert [each.is_end for each in listener.frames] == [True, False]


@pytest.mark.parametrize("events", [0, 1, 3])
def test_broker_end_takes_the_place_of_no_event_that_is_kept(broker: Broker, events: int) -> None:
    """It is remembered also where no events are kept."""
    channel = new_name()
    bounds = Bounds(events, 60.0)
    publish(broker, channel, *range(5), bounds=bounds)
    end(broker, channel, bounds)
    log = listening(broker, channel).log
    assert log is not None
    assert (log.is_complete, log.newest, log.first) == (True, 6, 6 - events)
    assert [each.is_end for each in log.after(0, log.newest)] == [*[False] * events, True]
    state = broker.state(channel)
    assert (state.is_complete, state.oldest, state.has_events) == (True, 6 - events, events > 0)
    publish(broker, channel, *range(5), bounds=bounds)
    state = broker.state(channel)
    assert (state.is_complete, state.oldest, state.has_events) == (False, max(7, 12 - events), events > 0)


def test_broker_channel_stays_complete_when_its_events_expire(broker: Broker) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    publish(broker, channel, "a", bounds=Bounds(10, 0.05))
    end(broker, channel, Bounds(10, 0.05))
    until(lambda: len(listener.frames) == 2, "the end")
    for log in (listener.log, listening(broker, channel).log):
        assert log is not None
        until(partial(has_expired, log), "the end of its time")
        assert log.is_complete
    state = broker.state(channel)
    assert (state.is_complete, state.has_events, state.newest) == (True, False, 2)


def test_broker_end_with_a_key_is_published_once(broker: Broker) -> None:
    """Else a second attempt would end what has begun since."""
    channel = new_name()
    last = [Publication(channel, frame("a"), KEPT, "k"), Publication(channel, CHANNEL_END, KEPT, "end of k")]
    first = broker.publish_many(last)
    publish(broker, channel, "b")
    assert broker.publish_many(last) == [Published(each.id, False) for each in first if isinstance(each, Published)]
    assert not broker.state(channel).is_complete


def test_broker_publish_many_keeps_the_order_given_in_each_channel(broker: Broker) -> None:
    here, there = new_name(), new_name()
    listener, other = listening(broker, here), listening(broker, there)
    publications = [
        Publication(here, frame("0"), KEPT, "k"),
        Publication(there, frame("1"), KEPT),
        Publication(here, frame("2"), KEPT),
        Publication(here, frame("again"), KEPT, "k"),
        Publication(here, CHANNEL_END, KEPT),
        Publication(there, frame("3"), KEPT, "k"),
        Publication(here, frame("4"), None),
    ]
    results = [each for each in broker.publish_many(publications) if isinstance(each, Published)]
    assert [each.is_new for each in results] == [True, True, True, False, True, True, True]
    assert [position(each.id).offset for each in results] == [1, 1, 2, 1, 3, 2, 4]
    assert results[3].id == results[0].id
    until(lambda: len(listener.frames) == 4 and len(other.frames) == 2, "all")
    assert listener.texts == [b"data: 0\n\n", b"data: 2\n\n", b"", b"data: 4\n\n"]
    assert ids_of(listener) == [results[index].id for index in (0, 2, 4, 6)]
    assert other.texts == [b"data: 1\n\n", b"data: 3\n\n"]
    assert broker.publish_many([]) == []


def test_broker_publish_many_is_one_step_in_each_channel(broker: Broker, request: pytest.FixtureRequest) -> None:
    """No event of another comes between, wherever its thread is interrupted."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(0.00001)
    channel = new_name()
    listener = listening(broker, channel)

    def publish_rounds(number: int) -> None:
        for round_ in range(15):
            texts = [f"{number} {round_} {count}" for count in range(40)]
            broker.publish_many([Publication(channel, frame(text), KEPT) for text in texts])

    in_threads([partial(publish_rounds, number) for number in range(4)])
    until(lambda: len(listener.frames) == 2400, "all events")
    groups = [text.split()[1:] for text in listener.texts]
    for index in range(0, 2400, 40):
        assert len({(number, round_) for number, round_, _ in groups[index : index + 40]}) == 1
        assert [int(count) for _, _, count in groups[index : index + 40]] == [*range(40)]


def test_broker_state_begins_the_epoch_of_an_unknown_channel(broker: Broker, make: Make) -> None:
    """So what is published after it comes after this position, whoever publishes."""
    channel = new_name()
    state = broker.state(channel)
    assert state == ChannelState(state.epoch, 0, 1, is_complete=False, has_run=False)
    assert not state.has_events
    assert broker.state(channel) == state
    publisher = make() if broker.is_shared else broker
    assert publish(publisher, channel, "a") == [f"{state.epoch}-1"]
    publisher.close() if broker.is_shared else None
    log = listening(broker, channel).log
    assert log is not None
    assert log.find(Position(state.epoch, 0)) == 0
    assert broker.state(channel).has_events
