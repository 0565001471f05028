"""Faults while streams move: a test stands between the two workers, or for one of them.

Whatever happens, a client goes on, or its connection ends and it comes back to what it has missed.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.servers.moves.between_workers import (
    SHORT_GRACE,
    Site,
    between,
    ends_broken,
    greeted,
    meeting,
    offered,
    prepared,
    reading,
    with_client,
)
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, get
from tests.support.waiting import until

KINDS = ["gevent", "gthread", "sync"]

pytestmark = pytest.mark.xdist_group("moves-faults")


#: Seconds that a worker has for an answer.
ANSWER_SECONDS = 2.0

#: So many streams are in one offer.
STREAMS_AT_ONCE = 100

#: As Redis knows the channels.
LISTENED = [b"sse:{public/a}@0", b"sse:{public/b}@0"]

#: A chunk with one event.
CHUNK = b"9\r\ndata: x\n\n\r\n"


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_takes_a_stream_has_its_connection_to_itself(kind: str, make: Callable[..., Site]) -> None:
    """The record is what a person can read, and the old worker closes its descriptor without ending the connection."""
    site = make(kind)
    with reading(site) as (client, last), offered(site) as (old, offer):
        [record] = offer["streams"]
        assert (record["channels"], record["is_chunked"], record["rest"]) == ([["public/a", last]], True, "")
        old.send({"type": "answer", "batch": offer["batch"], "refused": {}})
        assert old.receive() is None, "it has nothing more to give"
        [descriptor] = old.descriptors
        os.write(descriptor, CHUNK)
        assert client.texts(1) == ["x"]


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_stops_delivers_until_the_other_one_listens(kind: str, make: Callable[..., Site]) -> None:
    site = make(kind)
    with reading(site) as (client, _), greeted(site) as old:
        prepare = old.receive()
        assert (prepare["type"], prepare["channels"]) == ("prepare", ["public/a"])
        last = site.publish("x")
        assert client.texts(1) == ["x"]
        old.send(prepared(prepare))
        [record] = old.receive()["streams"]
        assert record["channels"] == [["public/a", last]]


@pytest.mark.parametrize("fault", ["silent", "killed"])
def test_worker_that_never_listens_costs_a_clean_end(fault: str, make: Callable[..., Site]) -> None:
    """Nothing was frozen for it."""
    site = make("sync")
    with reading(site) as (client, last), greeted(site) as old:
        assert old.receive()["type"] == "prepare"
        if fault == "killed":
            old.close()
        assert b"retry: " in client.rest()
        site.publish("second")
        site.comes_back(last, "second")


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_stays_listens_before_it_has_streams(
    kind: str, two: Callable[[str], Site], redis: RedisServer
) -> None:
    site = two(kind)
    with reading(site), meeting(site) as (old, new):
        new.send(old.receive())
        old.send(new.receive())
        new.send({"type": "prepare", "batch": 1, "channels": ["public/a", "public/b"]})
        assert new.receive() == {"type": "prepared", "batch": 1}
        with redis.client() as client:
            assert dict(client.pubsub_numsub(*LISTENED)) == {LISTENED[0]: 2, LISTENED[1]: 1}


FAULTS = ["killed", "garbage", "of another batch", "of streams that were not offered"]
CASES = [*((kind, "silent") for kind in KINDS), *(("sync", fault) for fault in FAULTS)]


@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_worker_that_does_not_answer_rightly_costs_a_reconnect(
    kind: str, fault: str, make: Callable[..., Site]
) -> None:
    site = make(kind)
    with reading(site) as (client, last), offered(site) as (old, offer):
        if fault == "killed":
            old.close()
        elif fault == "garbage":
            old.send(b"garbage")
        elif fault == "of another batch":
            old.send({"type": "answer", "batch": offer["batch"] + 1, "refused": {}})
        elif fault == "of streams that were not offered":
            old.send({"type": "answer", "batch": offer["batch"], "refused": {"7": "limit"}})
        ends_broken(client)
        site.publish("second")
        site.comes_back(last, "second")


def test_worker_that_dies_between_two_answers_has_the_first_streams(make: Callable[..., Site]) -> None:
    """The second offer comes before the first is answered; each stands for itself."""
    site = make("sync")
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(site.server, "/events/public/a")) for _ in range(STREAMS_AT_ONCE + 10)]
        old, offer = stack.enter_context(offered(site))
        second = old.receive()
        assert [len(each["streams"]) for each in (offer, second)] == [STREAMS_AT_ONCE, 10]
        taken, old.descriptors = old.descriptors[:STREAMS_AT_ONCE], old.descriptors[STREAMS_AT_ONCE:]
        old.send({"type": "answer", "batch": offer["batch"], "refused": {}})
        old.close()
        until(lambda: "was given 10 streams" in site.server.log, "the others to end")
        for descriptor in taken:
            os.write(descriptor, CHUNK)
            os.close(descriptor)
        assert sorted(map(gets_an_event, clients)) == [False] * 10 + [True] * STREAMS_AT_ONCE


def gets_an_event(client: Client) -> bool:
    try:
        return client.texts(1) == ["x"]
    except (http.client.IncompleteRead, ConnectionError):
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_worker_killed_after_its_offer_leaves_its_streams_to_the_other(kind: str, two: Callable[[str], Site]) -> None:
    site = two(kind)
    with reading(site) as (client, _), between(site) as (old, new, offer):
        new.send(offer, old.descriptors)
        os.kill(old.pid, signal.SIGKILL)
        new.close()
        site.publish("x")
        assert client.texts(1) == ["x"]


@pytest.mark.parametrize("kind", KINDS)
def test_worker_killed_before_its_answer_arrives_costs_a_reconnect(kind: str, two: Callable[[str], Site]) -> None:
    site = two(kind)
    with reading(site) as (client, last), between(site) as (old, new, offer):
        new.send(offer, old.descriptors)
        assert new.receive()["refused"] == {}
        os.kill(new.pid, signal.SIGKILL)
        old.close()
        ends_broken(client)
        site.publish("second")
        site.comes_back(last, "second")


@pytest.mark.parametrize("kind", KINDS)
def test_worker_killed_before_its_offer_costs_a_reconnect(kind: str, two: Callable[[str], Site]) -> None:
    site = two(kind)
    with reading(site) as (client, last), meeting(site) as (old, new):
        new.send(old.receive())
        os.kill(old.pid, signal.SIGKILL)
        new.close()
        ends_broken(client)
        site.publish("second")
        site.comes_back(last, "second")


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("kind", KINDS)
def test_worker_stopped_before_it_greets_costs_a_clean_end(kind: str, two: Callable[..., Site]) -> None:
    site = two(kind, SHORT_GRACE)
    with reading(site) as (client, last):
        worker, other = with_client(site)
        with stopped(other):
            os.kill(worker, signal.SIGTERM)
            assert b"retry: " in client.rest()
        site.publish("second")
        site.comes_back(last, "second")


@pytest.mark.parametrize("kind", KINDS)
def test_worker_stopped_after_its_offer_lets_go_when_it_continues(kind: str, two: Callable[[str], Site]) -> None:
    """The answer lies there as it continues, however late that is: it is no reason to end the connection."""
    site = two(kind)
    with reading(site) as (client, _), between(site) as (old, new, offer):
        with stopped(old.pid):
            new.send(offer, old.descriptors)
            old.send(new.receive())
            site.publish("x")
            assert client.texts(1) == ["x"]
            assert not until_longer_than(ANSWER_SECONDS)
        assert old.receive() is None, "it has nothing more to give"
        site.publish("y")
        assert client.texts(1) == ["y"]


def until_longer_than(seconds: float) -> bool:
    """Let more time pass than a worker has for its answer, as the other's clock sees it."""
    return threading.Event().wait(seconds + 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_chunk_that_is_half_written_is_written_to_its_end_by_the_other(kind: str, two: Callable[[str], Site]) -> None:
    site = two(kind)
    with reading(site) as (client, _), between(site) as (old, new, offer):
        os.write(old.descriptors[0], CHUNK[:5])
        offer["streams"][0]["rest"] = CHUNK[5:].decode()
        new.send(offer, old.descriptors)
        assert new.receive() == {"type": "answer", "batch": offer["batch"], "refused": {}}
        site.publish("y")
        assert client.texts(2) == ["x", "y"]


def test_grant_that_ends_while_its_stream_moves_ends_it_in_the_other(two: Callable[[str], Site]) -> None:
    site = two("gevent")
    with reading(site) as (client, last), between(site) as (old, new, offer):
        offer["streams"][0]["ends_by"] = 1.0
        new.send(offer, old.descriptors)
        assert new.receive()["refused"] == {}
        client.rest()
        site.publish("later")
        site.comes_back(last, "later")


def test_client_that_leaves_while_it_moves_is_noticed_by_the_other(two: Callable[[str], Site]) -> None:
    site = two("sync")
    with reading(site) as (client, _), between(site) as (old, new, offer):
        client.reset()
        new.send(offer, old.descriptors)
        assert new.receive()["type"] == "answer"
        old.close()
        until(lambda: get(site.server, "/stats")["clients"] == 0, "no client to be left")
