"""Streams that a worker does not take: they end in the one that stops, as without a move."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE
from tests.servers.moves.between_workers import (
    SHORT_GRACE,
    Side,
    Site,
    between,
    fake_worker,
    meeting,
    names,
    offered,
    reading,
)
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until

KINDS = ["gevent", "gthread", "sync"]

pytestmark = pytest.mark.xdist_group("moves-refused")


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_refuses_leaves_the_stream_to_end_cleanly(kind: str, make: Callable[..., Site]) -> None:
    site = make(kind)
    with reading(site) as (client, last), offered(site) as (old, offer):
        site.publish("meanwhile")
        old.send({"type": "answer", "batch": offer["batch"], "refused": {"0": "limit"}})
        rest = client.rest()
        assert b"data: meanwhile\n" in rest
        assert rest.endswith(b"\n\n")
        assert b"retry: " in rest
        assert "limit: 1" in site.server.log
        site.publish("later")
        site.comes_back(last, "meanwhile", "later")


@pytest.mark.parametrize("reason", ["version", "app", "package", "settings", "broker"])
def test_worker_that_refuses_all_streams_leaves_them_to_end_cleanly(reason: str, make: Callable[..., Site]) -> None:
    site = make("gthread")
    with reading(site) as (client, _), fake_worker(site) as accept:
        site.stop_worker()
        old = accept()
        old.receive()
        old.send({"type": "refusal", "reason": reason, "detail": "for a test"})
        assert b"retry: " in client.rest()
        assert f"{reason}: 1" in site.server.log


def test_worker_that_begins_to_stop_itself_costs_no_connection(make: Callable[..., Site]) -> None:
    """What was offered and not answered for by then, it has not received."""
    site = make("sync")
    with reading(site) as (client, _), offered(site) as (old, _):
        old.send({"type": "refusal", "reason": "stopping", "detail": "for a test"})
        assert b"retry: " in client.rest()


def refused(two: Callable[[str], Site], change: Callable[[Any], object], descriptors: bool = True) -> Any:
    """Return the reason with which a worker refuses a stream that is changed on its way."""
    site = two("gthread")
    with reading(site) as (_, last), between(site) as (old, new, offer):
        change(offer["streams"][0])
        new.send(offer, old.descriptors if descriptors else [])
        answer = new.receive()
        old.send(answer)
        site.publish("later")
        site.comes_back(last, "later")
        return answer["refused"]


def test_worker_that_does_not_know_the_position_refuses_the_stream(two: Callable[[str], Site]) -> None:
    def change(record: Any) -> None:
        record["channels"][0][1] = "nobody-1"

    assert refused(two, change) == {"0": "history"}


def test_worker_that_keeps_too_little_refuses_the_stream(make: Callable[..., Site], redis: RedisServer) -> None:
    """What came after the position that the stream has is no longer kept."""
    app = Flask("publisher")
    app.config.update(SSE_BROKER_URL=redis.url, SSE_HISTORY=2)
    sse = SSE(app)
    site = make("gthread", "--workers=2", SSE_HISTORY=2)
    until(lambda: len(names(site)) == 2, "both workers")
    with reading(site) as (client, first):
        texts = [str(number) for number in range(5)]
        for text in texts:
            sse.publish("public/a", text)
        assert client.texts(5) == texts
        with between(site) as (old, new, offer):
            offer["streams"][0]["channels"][0][1] = first
            new.send(offer, old.descriptors)
            answer = new.receive()
            old.send(answer)
    assert answer["refused"] == {"0": "history"}


def test_worker_that_can_open_no_more_files_refuses_the_stream(two: Callable[[str], Site]) -> None:
    site = two("gthread")
    with reading(site) as (client, last), between(site) as (old, new, offer):
        _, hard = resource.prlimit(new.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(new.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{new.pid}/fd")), hard))
        new.send(offer, old.descriptors)
        answer = new.receive()
        old.send(answer)
        assert answer["refused"] == {"0": "descriptors"}
        assert b"retry: " in client.rest()
        resource.prlimit(new.pid, resource.RLIMIT_NOFILE, (hard, hard))
        site.publish("later")
        site.comes_back(last, "later")


@pytest.mark.parametrize("term", ["app", "package", "broker", "settings"])
def test_worker_of_another_kind_refuses_all_streams(term: str, two: Callable[..., Site]) -> None:
    site = two("gthread", SHORT_GRACE)
    with reading(site) as (client, last), meeting(site) as (old, new):
        hello = old.receive()
        hello["terms"][term] = {"timeout": 1} if term == "settings" else "another"
        new.send(hello)
        refusal = new.receive()
        assert (refusal["type"], refusal["reason"]) == ("refusal", term)
        old.send(refusal)
        assert b"retry: " in client.rest()
        site.publish("later")
        site.comes_back(last, "later")


def test_worker_without_a_list_of_that_name_refuses_the_stream(two: Callable[[str], Site]) -> None:
    assert refused(two, lambda record: record.update(lists=["nobody's"])) == {"0": "list"}


PACKETS = [b"garbage", b"", b'{"type": "offer"}', b'{"type": "hello", "version": 99, "terms": {}}']


@pytest.mark.parametrize("packet", PACKETS)
def test_worker_that_is_sent_what_is_no_message_goes_on(packet: bytes, make: Callable[..., Site]) -> None:
    site = make("gthread")
    with reading(site) as (client, _), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        until(lambda: names(site), "the worker to show itself")
        connection.connect(str(site.meeting / names(site)[0]))
        side = Side(connection)
        if packet:
            side.send(packet)
            until_closed(side)
        site.publish("x")
        assert client.texts(1) == ["x"]
        assert "Traceback" not in site.server.log


def until_closed(side: Side) -> None:
    message = side.receive()
    assert message is None or message["type"] == "refusal"
