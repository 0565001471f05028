"""Every kind of address that a Redis may have, each with a real one."""

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

from .redis_server import RedisServer
from .redis_topologies import SLOTS, cluster, free_port, sentinel
from .test_brokers import KEPT, frame, listening, publish
from .waiting import until


def carries_events(broker: Broker, *channels: str) -> None:
    """Between two processes, as far as Redis can tell."""
    ears = [listening(broker, channel) for channel in channels]
    for channel in channels:
        publish(broker, channel, "a", "b")
    for ear in ears:
        until(lambda ear=ear: ear.texts == [b"data: a\n\n", b"data: b\n\n"], "both events")  # type: ignore[misc]
    assert broker.status()["state"] == "ok"


def test_a_database_and_a_password() -> None:
    with RedisServer("--requirepass", "s3cret/#") as server:
        broker = make_broker(f"redis://:s3cret%2F%23@127.0.0.1:{server.port}/3")
        carries_events(broker, "a")
        assert broker.status()["url"] == f"redis://127.0.0.1:{server.port}/3"
        client = redis_py.Redis(port=server.port, password="s3cret/#", db=3)
        assert client.exists("sse:{a}:log")
        broker.close()


def test_a_wrong_password_is_an_error_at_once_that_does_not_show_it() -> None:
    with RedisServer("--requirepass", "right") as server:
        broker = make_broker(f"redis://:wrong@127.0.0.1:{server.port}")
        with pytest.raises(BrokerUnavailable) as failed:
            broker.publish("a", frame("x"), KEPT)
        assert "invalid username-password" in str(failed.value)
        assert "wrong@" not in str(failed.value)
        assert "wrong@" not in str(broker.status())


def test_a_socket_of_the_file_system(tmp_path: Path) -> None:
    with RedisServer("--unixsocket", str(tmp_path / "redis.sock")):
        broker = make_broker(f"unix://{tmp_path}/redis.sock?db=2")
        carries_events(broker, "a")
        broker.close()


def test_tls(tmp_path: Path) -> None:
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
        carries_events(broker, "a")
        # More than a record of TLS, of which the socket shows nothing once it has been read.
        ear = listening(broker, "large")
        broker.publish("large", frame("x" * 500_000), KEPT)
        until(lambda: ear.frames, "a large event")
        assert len(ear.frames[0].payload) > 500_000
        broker.close()
        stranger = make_broker(f"rediss://127.0.0.1:{port}")
        with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
            stranger.publish("a", frame("x"), KEPT)


def test_sentinels_name_the_master_also_after_a_failover() -> None:
    with sentinel() as (address, master, replica):
        broker = make_broker(f"redis+sentinel://127.0.0.1:1,{address}/mymaster/0")
        carries_events(broker, "a")
        ear = listening(broker, "b")
        publish(broker, "b", "before")
        until(lambda: ear.frames, "an event")
        until(lambda: redis_py.Redis(port=replica.port).exists("sse:{b}:log"), "the replica to have it")
        master.signal(signal.SIGKILL)
        until(partial(published, broker, "b", "after"), "the other one to be the master")
        until(lambda: ear.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
        broker.close()


def test_who_listens_leaves_a_master_that_was_replaced_and_lives_on() -> None:
    """It still answers, as one that had hung, and nothing is published there any more."""
    with sentinel() as (address, master, replica):
        broker = make_broker(f"redis+sentinel://{address}/mymaster/0")
        ear = listening(broker, "b")
        publish(broker, "b", "before")
        old: Any = redis_py.Redis(port=master.port)
        new: Any = redis_py.Redis(port=replica.port)
        until(lambda: new.exists("sse:{b}:log"), "the replica to have it")
        new.replicaof("NO", "ONE")
        minder: Any = redis_py.Redis(port=int(address.split(":")[1]))
        minder.execute_command("SENTINEL REMOVE mymaster")
        minder.execute_command(f"SENTINEL MONITOR mymaster 127.0.0.1 {replica.port} 1")
        old.client_kill_filter(_type="normal")  # all connections but the one that listens
        until(partial(published, broker, "b", "after"), "the broker to find the new one")
        until(lambda: ear.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        broker.close()


def published(broker: Broker, channel: str, text: str) -> bool:
    try:
        broker.publish(channel, frame(text), KEPT, key=text)
    except BrokerUnavailable:
        return False
    return True


def test_a_cluster_keeps_each_channel_on_one_of_its_nodes() -> None:
    channels = [f"user:{number}" for number in range(20)]
    with cluster() as servers:
        broker = make_broker("redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers))
        carries_events(broker, *channels)
        kept = [redis_py.Redis(port=server.port).keys("sse:{user:*}:log") for server in servers]
        assert sum(map(len, kept)) == len(channels)
        assert all(kept)
        other = make_broker(f"redis+cluster://127.0.0.1:{servers[2].port}")
        ears = [listening(other, channel) for channel in channels]
        assert all(ear.log is not None and ear.log.newest == 2 for ear in ears)
        for channel in channels:
            publish(broker, channel, "c")
        until(lambda: all(ear.texts == [b"data: c\n\n"] for ear in ears), "all events")
        other.count_again("user:1")
        until(lambda: broker.clients_elsewhere("user:1") == 1, "the other process's client")
        broker.close()
        other.close()


def test_a_cluster_that_is_gone_is_an_outage_like_any_other() -> None:
    with cluster() as servers:
        broker = make_broker("redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers))
        carries_events(broker, "a")
        for server in servers:
            server.kill()
        with pytest.raises(BrokerUnavailable):
            broker.publish("a", frame("x"), KEPT)
        until(lambda: broker.status()["state"] == "degraded", "it to be noticed")
        broker.close()


def test_a_node_of_a_cluster_that_is_away_holds_up_no_channel_of_another() -> None:
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
        ears = {channel: listening(broker, channel) for channel in [*away, *up[1:]]}
        servers[lost].kill()
        ears[up[0]] = listening(broker, up[0])
        for channel in up:
            until(partial(published, broker, channel, "x"), "the others to go on")
        until(lambda: all(ears[channel].texts for channel in up), "their events")
        until(lambda: "counting clients" in broker.status().get("error", ""), "it to be noticed")
        servers[lost].start()
        for channel in away:
            until(partial(published, broker, channel, "y"), "the node to be back")
        until(lambda: all(ears[channel].log.newest for channel in away), "their events")  # type: ignore[union-attr]
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
        broker.close()


def test_what_the_nodes_of_a_cluster_lose_between_them_is_found_by_looking_now_and_then() -> None:
    assert 0 < CLUSTER_LOOKUP_SECONDS <= 30
    with cluster() as servers:
        broker = make_broker(f"redis+cluster://127.0.0.1:{servers[0].port}")
        assert broker._subscriber._lookup_seconds == CLUSTER_LOOKUP_SECONDS  # type: ignore[attr-defined]
        broker._subscriber._lookup_seconds = 0.5  # type: ignore[attr-defined]
        ear = listening(broker, "a")
        step = "redis.call('PUBLISH'"
        silent = Script(
            PUBLISH.text.replace(step, f"if false then {step}").replace("name .. body)", "name .. body) end")
        )
        assert silent.text != PUBLISH.text
        names = KeyNames("sse")
        arguments = publish_arguments("epoch", frame("x"), KEPT, names.announcements("a"))
        broker._clients.get().run(silent, names.keys("a"), arguments)  # type: ignore[attr-defined]
        until(lambda: ear.frames, "an event that was never announced")
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
        ("redis+sentinel:///mymaster", "'' is no host:port"),
        ("redis+cluster://localhost:6379/3", "a cluster has no databases"),
        ("redis+cluster://localhost:6379,", "'' is no host:port"),
        ("redis+stream://localhost", "no broker is known for 'redis\\+stream'"),
        ("reddis://localhost", "no broker is known for 'reddis': known schemes are memory, redis, "),
    ],
)
def test_a_wrong_url_is_an_error_when_the_app_is_made(url: str, says: str) -> None:
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
def test_what_is_shown_of_a_url_has_no_password(url: str, shown: str, db: int) -> None:
    address = Address(url)
    assert (address.shown, address.db) == (shown, db)


def test_without_redis_py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name == "redis" or name.startswith(("redis.", "flask_sse_emitters.brokers.redis")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(
        ImportError, match=r"redis:// needs the package redis: pip install 'flask-sse-emitters\[redis\]'"
    ):
        make_broker("redis://localhost")
