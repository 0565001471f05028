"""Every kind of Redis URL, each with a real server."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import trustme
from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable
from flask_sse_emitters.brokers import Broker, make_broker
from flask_sse_emitters.brokers.redis.messages import KeyNames, publish_arguments
from flask_sse_emitters.brokers.redis.scripts import PUBLISH, Script
from flask_sse_emitters.brokers.redis.subscriber.thread import CLUSTER_LOOKUP_SECONDS
from flask_sse_emitters.brokers.redis.url import Address
from tests.support.broker_calls import KEPT, frame, listening, publish
from tests.support.redis_server import RedisServer
from tests.support.redis_topologies import SLOTS, cluster, free_port, sentinel
from tests.support.waiting import until


def assert_events_are_delivered(broker: Broker, *channels: str) -> None:
    """Publish to each channel and check that its listener gets the events."""
    listeners = [listening(broker, channel) for channel in channels]
    for channel in channels:
        publish(broker, channel, "a", "b")
    for listener in listeners:
        until(lambda listener=listener: listener.texts == [b"data: a\n\n", b"data: b\n\n"], "both events")  # type: ignore[misc]
    assert broker.status()["state"] == "ok"


def test_url_with_database_and_password_works() -> None:
    with RedisServer("--requirepass", "s3cret/#") as server:
        broker = make_broker(f"redis://:s3cret%2F%23@127.0.0.1:{server.port}/3")
        assert_events_are_delivered(broker, "a")
        assert broker.status()["url"] == f"redis://127.0.0.1:{server.port}/3"
        client = redis_py.Redis(port=server.port, password="s3cret/#", db=3)
        assert client.exists("sse:{a}:log")
        broker.close()


def test_wrong_password_raises_at_once_and_is_hidden() -> None:
    with RedisServer("--requirepass", "right") as server:
        broker = make_broker(f"redis://:wrong@127.0.0.1:{server.port}")
        with pytest.raises(BrokerUnavailable) as failed:
            broker.publish("a", frame("x"), KEPT)
        assert "invalid username-password" in str(failed.value)
        assert "wrong@" not in str(failed.value)
        assert "wrong@" not in str(broker.status())


def test_url_of_unix_socket_works(tmp_path: Path) -> None:
    with RedisServer("--unixsocket", str(tmp_path / "redis.sock")):
        broker = make_broker(f"unix://{tmp_path}/redis.sock?db=2")
        assert_events_are_delivered(broker, "a")
        broker.close()


def test_url_with_tls_works_and_verifies_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / f"{name}.pem" for name in ("authority", "certificate", "key")}
    authority.cert_pem.write_to_path(str(paths["authority"]))
    certificate.cert_chain_pems[0].write_to_path(str(paths["certificate"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    with RedisServer() as server:
        client: Any = redis_py.Redis(port=server.port)
        for setting, value in {
            "tls-cert-file": paths["certificate"],
            "tls-key-file": paths["key"],
            "tls-ca-cert-file": paths["authority"],
            "tls-auth-clients": "no",
        }.items():
            client.config_set(setting, str(value))
        client.config_set("tls-port", port := free_port())
        broker = make_broker(f"rediss://127.0.0.1:{port}?ssl_ca_certs={paths['authority']}")
        assert_events_are_delivered(broker, "a")
        # More than one TLS record: once it has been read, the socket no longer shows that data is left.
        listener = listening(broker, "large")
        broker.publish("large", frame("x" * 500_000), KEPT)
        until(lambda: listener.frames, "a large event")
        assert len(listener.frames[0].payload) > 500_000
        broker.close()
        untrusting = make_broker(f"rediss://127.0.0.1:{port}")
        with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
            untrusting.publish("a", frame("x"), KEPT)


def test_sentinel_url_follows_the_master_after_failover() -> None:
    with sentinel() as (address, master, replica):
        broker = make_broker(f"redis+sentinel://127.0.0.1:1,{address}/mymaster/0")
        assert_events_are_delivered(broker, "a")
        listener = listening(broker, "b")
        publish(broker, "b", "before")
        until(lambda: listener.frames, "an event")
        until(lambda: redis_py.Redis(port=replica.port).exists("sse:{b}:log"), "the replica to have the event")
        master.signal(signal.SIGKILL)
        until(partial(published, broker, "b", "after"), "the replica to be the master")
        until(lambda: listener.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
        broker.close()


def test_subscriber_leaves_a_replaced_master_that_still_answers() -> None:
    """It answers, as one that had hung, but nothing is published there any more."""
    with sentinel() as (address, master, replica):
        broker = make_broker(f"redis+sentinel://{address}/mymaster/0")
        listener = listening(broker, "b")
        publish(broker, "b", "before")
        old: Any = redis_py.Redis(port=master.port)
        new: Any = redis_py.Redis(port=replica.port)
        until(lambda: new.exists("sse:{b}:log"), "the replica to have the event")
        new.replicaof("NO", "ONE")
        minder: Any = redis_py.Redis(port=int(address.split(":")[1]))
        minder.execute_command("SENTINEL REMOVE mymaster")
        minder.execute_command(f"SENTINEL MONITOR mymaster 127.0.0.1 {replica.port} 1")
        old.client_kill_filter(_type="normal")  # all connections but the subscriber's
        until(partial(published, broker, "b", "after"), "the broker to find the new master")
        until(lambda: listener.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        broker.close()


def published(broker: Broker, channel: str, text: str) -> bool:
    try:
        broker.publish(channel, frame(text), KEPT, key=text)
    except BrokerUnavailable:
        return False
    return True


def test_cluster_keeps_each_channel_on_one_node() -> None:
    channels = [f"user:{number}" for number in range(20)]
    with cluster() as servers:
        broker = make_broker("redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers))
        assert_events_are_delivered(broker, *channels)
        kept = [redis_py.Redis(port=server.port).keys("sse:{user:*}:log") for server in servers]
        assert sum(map(len, kept)) == len(channels)
        assert all(kept)
        other = make_broker(f"redis+cluster://127.0.0.1:{servers[2].port}")
        listeners = [listening(other, channel) for channel in channels]
        assert all(listener.log is not None and listener.log.newest == 2 for listener in listeners)
        for channel in channels:
            publish(broker, channel, "c")
        until(lambda: all(listener.texts == [b"data: c\n\n"] for listener in listeners), "all events")
        other.count_again("user:1")
        until(lambda: broker.clients_elsewhere("user:1") == 1, "the other process's client")
        broker.close()
        other.close()


def test_cluster_outage_raises_and_degrades_state() -> None:
    with cluster() as servers:
        broker = make_broker("redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers))
        assert_events_are_delivered(broker, "a")
        for server in servers:
            server.kill()
        with pytest.raises(BrokerUnavailable):
            broker.publish("a", frame("x"), KEPT)
        until(lambda: broker.status()["state"] == "degraded", "the outage to be noticed")
        broker.close()


def test_cluster_node_outage_delays_no_channel_of_other_nodes() -> None:
    with cluster() as servers:
        clients: list[Any] = [redis_py.Redis(port=server.port) for server in servers]
        for client in clients:
            client.config_set("cluster-require-full-coverage", "no")

        def node_of(key: str) -> int:
            return int(clients[0].execute_command("CLUSTER KEYSLOT", key)) * len(servers) // SLOTS

        lost = node_of("{here}")  # where clients are counted
        there = [f"user:{number}" for number in range(20)]
        away = [channel for channel in there if node_of(f"{{{channel}}}") == lost]
        up = [channel for channel in there if node_of(f"{{{channel}}}") != lost]
        broker = make_broker("redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers))
        listeners = {channel: listening(broker, channel) for channel in [*away, *up[1:]]}
        servers[lost].kill()
        listeners[up[0]] = listening(broker, up[0])
        for channel in up:
            until(partial(published, broker, channel, "x"), "the other nodes to publish")
        until(lambda: all(listeners[channel].texts for channel in up), "their events")
        until(lambda: "counting clients" in broker.status().get("error", ""), "the outage to be noticed")
        servers[lost].start()
        for channel in away:
            until(partial(published, broker, channel, "y"), "the node to be back")
        until(lambda: all(listeners[channel].log.newest for channel in away), "their events")  # type: ignore[union-attr]
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
        broker.close()


def test_cluster_announcement_lost_between_nodes_is_found_by_lookup() -> None:
    assert 0 < CLUSTER_LOOKUP_SECONDS <= 30
    with cluster() as servers:
        broker = make_broker(f"redis+cluster://127.0.0.1:{servers[0].port}")
        assert broker._subscriber._lookup_seconds == CLUSTER_LOOKUP_SECONDS  # type: ignore[attr-defined]
        broker._subscriber._lookup_seconds = 0.5  # type: ignore[attr-defined]
        listener = listening(broker, "a")
        step = "redis.call('PUBLISH'"
        silent = Script(
            PUBLISH.text.replace(step, f"if false then {step}").replace("name .. body)", "name .. body) end")
        )
        assert silent.text != PUBLISH.text
        names = KeyNames("sse")
        arguments = publish_arguments("epoch", frame("x"), KEPT, names.announcements("a"))
        broker._clients.get().run(silent, names.keys("a"), arguments)  # type: ignore[attr-defined]
        until(lambda: listener.frames, "an event that was never announced")
        broker.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://localhost?nonsense=1", "redis-py does not know an option of it: .*nonsense"),
        ("rediss://localhost?ssl_cert_reqs=foo", "redis-py does not know an option of it: .*foo"),
        ("unix://", "lacks the path of a socket"),
        ("redis://[::1", "Invalid IPv6 URL: give a URL such as redis://localhost"),
        ("redis://localhost:port/0", "port"),
        ("redis://localhost/news", "the path is the number of a database, not 'news'"),
        ("redis://localhost:6379/0?socket_timeout=x", "socket_timeout"),
        ("redis+sentinel://localhost:26379", "lacks the name of the service: /mymaster"),
        ("redis+sentinel:///mymaster", "'' is not host:port"),
        ("redis+cluster://localhost:6379/3", "a cluster has no databases"),
        ("redis+cluster://localhost:6379,", "'' is not host:port"),
        ("redis+stream://localhost", "no broker is known for 'redis\\+stream'"),
        ("reddis://localhost", "no broker is known for 'reddis': known schemes are memory, redis, "),
    ],
)
def test_invalid_url_raises_when_app_is_made(url: str, says: str) -> None:
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = url
    with pytest.raises(ValueError, match=f"^SSE_BROKER_URL: .*{says}"):
        SSE(app)


@pytest.mark.parametrize(
    ("url", "shown", "db"),
    [
        ("redis://localhost", "redis://localhost", 0),
        ("rediss://user:secret@redis.example:6380/2?ssl_cert_reqs=none", "rediss://redis.example:6380/2", 2),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock", 1),
        ("redis+sentinel://:secret@a:1,b:2/main/5", "redis+sentinel://a:1,b:2/main/5", 5),
        ("rediss+cluster://:secret@a,b", "rediss+cluster://a,b", 0),
    ],
)
def test_shown_url_has_no_password(url: str, shown: str, db: int) -> None:
    address = Address(url)
    assert (address.shown, address.db) == (shown, db)


def test_missing_redis_py_raises_and_names_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name == "redis" or name.startswith(("redis.", "flask_sse_emitters.brokers.redis")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(
        ImportError, match=r"redis:// needs the package redis: pip install 'flask-sse-emitters\[redis\]'"
    ):
        make_broker("redis://localhost")
