"""A process subscribes to a channel: what its clients get before and after the broker answers, and from a new start."""

from __future__ import annotations

from typing import Any

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.brokers import Listener, Start
from flask_sse_emitters.brokers.event_log import Log
from flask_sse_emitters.testing import open_stream
from flask_sse_emitters.wire.frame import Frame
from tests.support.board import gap_of, texts
from tests.unit.channels.held_board import HeldBoard


def test_client_waits_until_all_its_channels_are_located(held: HeldBoard) -> None:
    """Meanwhile it gets nothing, also of a channel that is located already."""
    with held.open("a", "b") as stream:
        held.publish("a", 1)
        assert stream.ready() == []
        held.broker.start("a")
        held.publish("a", 2)
        held.broker.deliver("a")
        assert stream.ready() == []
        held.broker.start("b")
        events = stream.ready()
        assert texts(events) == ["2"], "events after the start of the channel"
        assert [event.id for event in events] == ["epoch-2,epoch-0"]
        held.publish("b", 3)
        held.broker.deliver("b")
        held.sse.channel("a").emitters.send("to the list")
        assert [(event.data, event.id) for event in stream.ready()] == [
            ("3", "epoch-2,epoch-1"),
            ("to the list", "epoch-2,epoch-1"),
        ]


def test_reconnect_before_channel_is_located_replays_after_it(held: HeldBoard) -> None:
    ids = held.publish("a", 1, 2, 3)
    with held.open("a", last=ids[0]) as stream:
        assert stream.ready() == []
        held.broker.start("a")
        assert texts(stream.ready()) == ["2", "3"]


def test_client_ahead_of_process_waits_until_process_caught_up(held: HeldBoard) -> None:
    """Another process delivered the events to the client earlier."""
    held.publish("a", 1)
    with held.open("a") as other:
        held.broker.start("a")
        ids = held.publish("a", 2, 3, 4)
        with held.open("a", last=ids[1]) as stream:
            assert stream.ready() == []
            held.broker.deliver("a", 1)
            assert (texts(other.ready()), stream.ready()) == (["2"], [])
            held.broker.deliver("a", 1)
            assert (texts(other.ready()), stream.ready()) == (["3"], [])
            held.publish("a", 5)
            held.broker.deliver("a")
            assert (texts(other.ready()), texts(stream.ready())) == (["4", "5"], ["4", "5"])


def test_client_with_an_id_unknown_here_waits_until_broker_answers(held: HeldBoard) -> None:
    with held.open("a"):
        held.broker.start("a")
        held.publish("a", 1)  # until this is delivered, the broker does not answer
        with held.open("a", last="epoch-2") as stream:
            assert (stream.ready(), len(held.broker.lookups["a"])) == ([], 1)
            held.publish("a", 2)
            held.broker.deliver("a", 1)
            assert (stream.ready(), len(held.broker.lookups["a"])) == ([], 1), "it is asked once"
            held.broker.deliver("a")
            held.publish("a", 3)
            held.broker.deliver("a")
            assert texts(stream.ready()) == ["3"], "without a gap"


def test_events_that_arrive_before_start_are_delivered_once_after_it(held: HeldBoard) -> None:
    """Also to an emitter that a view puts in the list of the channel."""

    @held.app.get("/mine")
    def mine() -> Any:
        return held.sse.channel("a").emitters.add(SseEmitter())

    held.publish("a", 1)
    with held.open("a") as stream, open_stream(held.client, "/mine") as other:
        held.publish("a", 2)
        held.broker.deliver("a")
        [listener] = held.broker.listeners["a"]
        listener.started(Start(held.broker.log("a"), 1))
        held.publish("a", 3)
        held.broker.deliver("a")
        assert texts(stream.ready()) == texts(other.ready()) == ["2", "3"]


def test_events_delivered_twice_by_broker_reach_client_once(held: HeldBoard) -> None:
    with held.open("a") as stream:
        held.broker.start("a")
        held.publish("a", 1, 2)
        delivered = list(held.broker.undelivered["a"])
        held.broker.deliver("a")
        held.broker.undelivered["a"] = delivered
        held.broker.deliver("a")
        assert texts(stream.ready()) == ["1", "2"]


def test_calls_of_a_former_listener_are_ignored(held: HeldBoard) -> None:
    subscription = held.sse._channels().subscription("a")
    with held.open("a"):
        held.broker.start("a")
        [old] = held.broker.listeners["a"]
    assert (held.broker.listeners["a"], subscription.log) == ([], None)
    with held.open("a") as stream:
        old.started(Start(Log("older", 7, lambda: 0.0), 7))
        assert subscription.log is None
        held.broker.start("a")
        [event_id] = held.publish("a", 1)
        old.arrived([Frame(b"id: epoch-9\ndata: stale\n\n", "message", 9, 12)])
        held.broker.deliver("a")
        assert [(event.data, event.id) for event in stream.ready()] == [("1", event_id)]


def test_broker_reset_ends_streams_with_retry_and_reconnect_gets_gap(held: HeldBoard) -> None:
    with held.open("a") as stream, held.open("a", "b") as other:
        held.broker.start("a")
        held.broker.start("b")
        assert stream.ready() == other.ready() == []
        [last] = held.publish("a", 1)
        held.broker.deliver("a")
        held.broker.logs["a"] = Log("later", 5, lambda: 0.0)
        held.broker.start("a")
        assert texts(other.ready()) == ["1"]
        rest = b"".join(stream.response.iter_encoded()).decode()
        event, closing = rest.split("\n\n")[:-1]
        assert event == f"id: {last}\ndata: 1"
        assert 1500 <= int(closing.removeprefix("retry: ")) <= 6000
    with held.open("a", last=last) as stream:
        held.broker.start("a")
        events = stream.ready()
        held.publish("a", 2)
        held.broker.deliver("a")
        events += stream.ready()
    assert gap_of(events) == {"requested": last, "oldest": "later-6", "newest": "later-5"}
    assert [(event.data, event.id) for event in events[1:]] == [("2", "later-6")]
    assert held.sse.stats()["deliveries"] == 3, "a gap is no event"


def test_unsubscribes_if_all_clients_leave_during_subscribe(held: HeldBoard) -> None:
    channel_list = held.sse.channel("a").emitters
    subscribe = held.broker.subscribe

    def leave_meanwhile(channel: str, listener: Listener) -> Start | None:
        for emitter in channel_list:
            emitter.complete()
        return subscribe(channel, listener)

    held.broker.subscribe = leave_meanwhile  # type: ignore[method-assign]
    with held.open("a"):
        pass
    assert (held.broker.listeners["a"], len(channel_list)) == ([], 0)
