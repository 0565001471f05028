"""The contract of brokers, as to runs: at most one publishes to a channel, and none after the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from flask_sse_emitters.brokers import CHANNEL_END, INTERRUPTED, Broker, ChannelState, Published, RunLost
from tests.brokers.contract.brokers import Make
from tests.support.brokers.broker_calls import KEPT, end, frame, listening, publish, publish_as
from tests.support.client import new_name
from tests.support.waiting import until

#: Seconds for which a run has its channel: far longer than any test.
LONG = 600.0


@contextmanager
def elsewhere(broker: Broker, make: Make) -> Iterator[Broker]:
    """Make the broker of another process, where there can be one."""
    if broker.is_shared:
        with closing(make()) as other:
            yield other
    else:
        yield broker


def test_broker_run_has_a_channel_alone_until_its_end(broker: Broker, make: Make) -> None:
    channel = new_name()
    with elsewhere(broker, make) as other:
        assert broker.start_run(channel, "one", LONG)
        assert broker.start_run(channel, "one", LONG), "as it may be told again"
        assert not other.start_run(channel, "two", LONG)
        assert other.start_run(new_name(), "two", LONG)
        state = other.state(channel)
        assert (state.has_run, state.is_complete, state.newest) == (True, False, 0)
        publish(other, channel, "of another")
        results = publish_as(broker, "one", channel, frame("a"), frame("done"), CHANNEL_END)
        assert all(isinstance(each, Published) for each in results)
        state = other.state(channel)
        assert (state.has_run, state.is_complete, state.newest) == (False, True, 4)
        assert other.start_run(channel, "two", LONG)


def test_broker_run_begins_a_complete_channel_anew(broker: Broker) -> None:
    """Who comes then waits for its first event."""
    channel = new_name()
    publish(broker, channel, "a")
    end(broker, channel)
    before = broker.state(channel)
    broker.start_run(channel, "run", LONG)
    state = broker.state(channel)
    assert (state.newest, state.oldest, state.has_events) == (2, 3, False)
    assert (state.is_complete, state.has_run) == (False, True)
    assert state.epoch != before.epoch
    log = listening(broker, channel).log
    assert log is not None
    assert ChannelState.of(log) == state
    [first] = publish_as(broker, "run", channel, frame("b"))
    assert first == Published(f"{state.epoch}-3", is_new=True)


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "ended"])
def test_broker_run_publishes_nothing_after_its_channel_was_ended(broker: Broker, make: Make, cancels: bool) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    broker.start_run(channel, "run", LONG)
    publish_as(broker, "run", channel, frame("a"))
    with elsewhere(broker, make) as other:
        if cancels:
            assert other.cancel_run(channel, KEPT)
        else:
            end(other, channel)
        assert not other.cancel_run(channel, KEPT)
    refused = publish_as(broker, "run", channel, frame("done"), CHANNEL_END)
    assert [type(each) for each in refused] == [RunLost, RunLost]
    assert not broker.renew_run(channel, "run", LONG)
    until(lambda: len(listener.frames) == 2, "the end")
    assert listener.texts == [b"data: a\n\n", b""]
    state = broker.state(channel)
    assert (state.is_complete, state.has_run, state.newest) == (True, False, 2)
    publish(broker, channel, "anew")
    [refused_again] = publish_as(broker, "run", channel, frame("late"))
    assert isinstance(refused_again, RunLost)


def test_broker_listeners_log_shows_the_state_of_its_channel(broker: Broker, make: Make) -> None:
    """Also what another process does, so that nobody has to ask for the state of a channel that has readers here."""
    channel = new_name()
    end(broker, channel)
    log = listening(broker, channel).log
    assert log is not None

    def is_known() -> bool:
        return ChannelState.of(log) == broker.state(channel)

    with elsewhere(broker, make) as other:
        until(is_known, "the end")
        other.start_run(channel, "run", LONG)
        until(is_known, "the run")
        assert log.has_run
        publish_as(other, "run", channel, frame("a"))
        until(is_known, "the event")
        publish_as(other, "run", channel, CHANNEL_END)
        until(is_known, "another end")
        assert (log.has_run, log.is_complete, log.first) == (False, True, 2)
        publish(other, channel, "b")
        until(is_known, "the next event")


def test_broker_cancel_without_a_run_does_nothing(broker: Broker) -> None:
    channel = new_name()
    assert not broker.cancel_run(channel, KEPT)
    publish(broker, channel, "a")
    assert not broker.cancel_run(channel, None)
    assert not broker.renew_run(channel, "run", LONG)
    assert not broker.state(channel).is_complete


def test_broker_dead_run_is_ended_for_those_who_listen(broker: Broker, make: Make) -> None:
    """In another process; also where they listened before it began, and to a channel that was complete."""
    here, there = new_name(), new_name()
    end(broker, there)
    with elsewhere(broker, make) as other:
        listeners = [listening(other, here), listening(other, there)]
        publish(broker, here, "a")
        for channel in (here, there):
            assert broker.start_run(channel, "run", 0.5)
        until(lambda: all(each.frames and each.frames[-1].is_end for each in listeners), "both ends")
        assert [each.texts[-2:] for each in listeners] == [[INTERRUPTED.payload, b""]] * 2
        assert [len(each.frames) for each in listeners] == [3, 2]
    [refused] = publish_as(broker, "run", here, frame("late"))
    assert isinstance(refused, RunLost)


def test_broker_dead_run_is_ended_for_who_comes_later(broker: Broker, make: Make) -> None:
    here, there = new_name(), new_name()
    for channel in (here, there):
        publish(broker, channel, "a")
        assert broker.start_run(channel, "run", 0.05)
    until(lambda: not broker.state(here).has_run, "the end of its time")
    until(lambda: not broker.renew_run(there, "run", 0.001), "the end of the other's")
    with elsewhere(broker, make) as other:
        for channel in (here, there):
            log = listening(other, channel).log
            assert log is not None
            texts = [each.payload[each.body :] for each in log.after(0, log.newest)]
            assert texts == [b"data: a\n\n", INTERRUPTED.payload, b""]
            assert log.is_complete
            assert other.start_run(channel, "another", LONG)
