"""No event is lost between two connections, and a loss is announced by a gap. See ``swarm.py`` for the checks.

``SWARM_SEED`` repeats the choices of a failure. ``python -m tests.faults.swarm`` does the same in any size.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import defaultdict
from contextlib import ExitStack

import pytest
from flask import Flask

from flask_sse_emitters import SSE, Event
from flask_sse_emitters.testing import OpenStream, open_stream
from tests.apps.swarm import CHANNELS
from tests.faults.swarm import Habits, Size, Swarm, epoch_of, new_seed, offset_of, publish_to, published_by, swarming
from tests.support.client import get, post
from tests.support.servers import Server
from tests.support.waiting import until

#: One at a time: each keeps two cores busy.
pytestmark = pytest.mark.xdist_group("swarm")


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("gevent", Size(500, 20_000, seconds=8)),
        ("gevent_off", Size(150, 6_000, seconds=4)),
        ("gthread", Size(60, 2_000, seconds=3)),
    ],
    ids=["gevent", "gevent_off", "gthread"],
)
def test_clients_that_reconnect_get_every_event_once_in_order(kind: str, size: Size) -> None:
    with swarming(kind, Habits(new_seed()), SSE_TIMEOUT=size.seconds / 2) as (server, swarm):
        publish_to(server, swarm, size)
        published = published_by(server)
        swarm.compare(published)
        assert sum(map(len, published.values())) == size.events + len(CHANNELS)
        for client in swarm.clients:
            assert client.ids == [max(published[channel], key=offset_of) for channel in client.channels]
            assert client.events == sum(map(offset_of, client.ids)) - sum(map(offset_of, client.first))
        assert sum(map(offset_of, swarm.clients[0].first)) == 0, (
            "a client connected before the first event has them all"
        )
        for way in ("reset", "half-close", "age"):
            assert swarm.cuts[way] > size.clients / 4


@pytest.mark.parametrize("kind", ["gevent", "gevent_off", "gthread"])
def test_each_hole_is_announced_by_one_gap_and_no_other_gap_is_sent(kind: str) -> None:
    habits = Habits(new_seed(), slow=0.5, pairs=0.7, away=0.4, history=20 if kind == "gthread" else 100)
    size = Size(60, 2_500, seconds=4) if kind == "gthread" else Size(150, 8_000, seconds=5)
    with swarming(kind, habits, SSE_TIMEOUT=size.seconds / 2) as (server, swarm):
        publish_to(server, swarm, size)
        swarm.compare(published_by(server))
        holes = [hole for client in swarm.clients for hole in client.holes]
        assert sum(hole.on_return for hole in holes) > 10


@pytest.mark.parametrize("kind", ["gevent", "gevent_off", "gthread"])
def test_reload_delivers_all_old_events_then_one_gap_from_new_worker(kind: str) -> None:
    with swarming(kind, Habits(new_seed(), history=10**6), SSE_TIMEOUT=0) as (server, swarm):
        swarm.add(60)
        swarm.run_to_position()
        old = epoch_of(swarm.clients[0].ids[0])
        published, newest = _publish_over_a_reload(server, swarm, old)
        swarm.run_to_end()
        swarm.compare(published)
        for client in swarm.clients:
            [hole] = client.holes
            assert list(hole.before) == [newest[channel] for channel in client.channels]
            assert set(map(epoch_of, hole.after)) == set(map(epoch_of, client.ids)) != {old}
            assert set(map(offset_of, hole.after)) == {0}


def _publish_over_a_reload(
    server: Server, swarm: Swarm, old: bytes
) -> tuple[dict[str, dict[bytes, bytes]], dict[str, bytes]]:
    """Publish on four threads until the new worker has had a hundred events from each.

    :return: the event of each id, and the old worker's last id by channel.
    """
    published: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
    newest = dict.fromkeys(CHANNELS, b"%b-0" % old)
    failures: list[BaseException] = []
    done: list[int] = []
    lock = threading.Lock()

    def note(channel: str, text: str, event: str = "") -> bytes:
        path = f"/publish/{channel}?event={event}" if event else f"/publish/{channel}"
        event_id: bytes = post(server, path, text)["id"].encode()
        lines = [f"event: {event}"] * bool(event) + [f"data: {text}"]
        with lock:
            assert event_id not in published[channel]
            published[channel][event_id] = "\n".join(lines).encode()
            if epoch_of(event_id) == old:
                newest[channel] = max(newest[channel], event_id, key=offset_of)
        return event_id

    def run(number: int) -> None:
        try:
            posted = {True: 0, False: 0}
            while posted[False] < 100:
                is_old = epoch_of(note(CHANNELS[sum(posted.values()) % 5], f"{number} {posted}")) == old
                posted[is_old] += 1
                if number == 0 and is_old and posted[True] == 100:
                    server.signal(signal.SIGHUP)
        except BaseException as error:
            failures.append(error)
        finally:
            done.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    swarm.run(lambda: len(done) == len(threads), "the publishers")
    for thread in threads:
        thread.join()
    assert failures == []
    for channel in CHANNELS:
        assert epoch_of(note(channel, "", "over")) != old
    return published, newest


def test_reconnecting_herd_shares_pages_of_missed_events() -> None:
    with swarming("gevent", Habits(new_seed()), SSE_TIMEOUT=0) as (server, swarm):
        swarm.add(500, streams=[["a"], ["b"], ["a", "b"]])
        swarm.run_to_position()
        swarm.scatter()
        until(lambda: get(server, "/state")["stats"]["clients"] == 0, "all to be gone")
        for channel in ("a", "b"):
            for number in range(99):
                post(server, f"/publish/{channel}", f"{number} {'x' * 100}")
            post(server, f"/publish/{channel}?event=over", "")
        before = get(server, "/state")["pages_built"]
        swarm.gather()
        swarm.run_to_end()
        assert {client.events / len(client.channels) for client in swarm.clients} == {100}
        assert get(server, "/state")["pages_built"] - before == 3
        until(lambda: get(server, "/state")["pages_kept"] == 0, "the pages to be released")


# Cases that the swarm meets by chance, in one process and step by step.


def make(history: int) -> tuple[Flask, SSE]:
    app = Flask(__name__)
    app.config["SSE_HISTORY"] = history
    sse = SSE(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    sse.authorizer(lambda _: True)
    return app, sse


def gaps(events: list[Event]) -> list[dict[str, str]]:
    return [json.loads(str(event.data)) for event in events if event.event == "gap"]


def test_hole_that_grows_before_first_write_is_one_gap() -> None:
    app, sse = make(history=5)
    epoch, _ = sse.publish("a", "1").split("-")
    for number in range(2, 11):
        sse.publish("a", str(number))
    with open_stream(app.test_client(), "/events/a", headers={"Last-Event-ID": f"{epoch}-0"}) as stream:
        sse.publish("a", "11")
        events = stream.ready()
    assert len(gaps(events)) == 1
    assert [event.data for event in events if event.event is None] == ["6", "7", "8", "9", "10", "11"]


def test_gap_of_one_channel_names_position_in_live_channel() -> None:
    app, sse = make(history=5)
    epoch, _ = sse.publish("a", "1").split("-")
    sse.publish("b", "1")
    with open_stream(
        app.test_client(), "/events?channel=a&channel=b", headers={"Last-Event-ID": f"{epoch}-0,{epoch}-1"}
    ) as stream:
        sse.publish("b", "2")
        for number in range(2, 10):
            sse.publish("a", str(number))
        events = stream.ready()
    [gap] = gaps(events)
    assert (gap["requested"], gap["oldest"]) == (f"{epoch}-1,{epoch}-2", f"{epoch}-5,{epoch}-3")


def test_events_dropped_from_log_but_still_queued_for_list_are_no_gap() -> None:
    app, sse = make(history=5)
    epoch, _ = sse.publish("a", "1").split("-")
    streams: list[OpenStream] = []

    class PublishingListener:
        """A listener that publishes more events, and reconnects a client, while it gets the second event."""

        clients = 0

        def started(self, *_: object) -> None:
            pass

        def arrived(self, *_: object) -> None:
            if not streams:
                for number in range(3, 10):
                    sse.publish("a", str(number))
                last = {"Last-Event-ID": f"{epoch}-1"}
                streams.append(stack.enter_context(open_stream(app.test_client(), "/events/a", headers=last)))

    with ExitStack() as stack:
        sse._channels().broker.subscribe("a", PublishingListener())  # notified before the list
        stack.enter_context(open_stream(app.test_client(), "/events/a"))
        sse.publish("a", "2")
        events: list[Event] = []

        def has_all() -> bool:
            events.extend(streams[0].ready())
            return len(events) == 8

        until(has_all, "the rest, which is delivered in the background")
    assert [event.data for event in events] == [str(number) for number in range(2, 10)]
