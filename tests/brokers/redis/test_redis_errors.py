"""Errors of Redis: whether anything was published, and what to change."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker, make_broker
from tests.support.brokers.broker_calls import assert_events_are_delivered, publish
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until


def config(name: str, value: object) -> Callable[[Any], None]:
    def change(client: Any) -> None:
        client.config_set(name, value)

    return change


def fail_to_save(client: Any) -> None:
    client.config_set("save", "3600 1000000")
    shutil.rmtree(client.config_get("dir")["dir"])
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "saving to fail")


def become_replica(client: Any) -> None:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


@pytest.mark.parametrize(
    ("change", "login", "says"),
    [
        (config("maxmemory", 1), "", "Redis is full: raise its maxmemory"),
        (config("requirepass", "secret"), "", "asks for a password: put it into SSE_BROKER_URL"),
        (config("requirepass", "secret"), ":wrong@", "refuses the user or the password in SSE_BROKER_URL"),
        (config("maxmemory", 0), ":needless@", "has no password: take it out of SSE_BROKER_URL"),
        (config("min-replicas-to-write", 1), "", "lower its min-replicas-to-write"),
        (config("maxclients", 1), "", "raise its maxclients"),
        (become_replica, "", "let SSE_BROKER_URL name the master"),
        (fail_to_save, "", "cannot write to its disk"),
    ],
    ids=["full", "no password", "wrong password", "needless password", "replicas", "maxclients", "replica", "disk"],
)
def test_refused_publish_names_setting_to_change(change: Callable[[Any], None], login: str, says: str) -> None:
    with RedisServer() as server, server.client() as client:  # its connection counts
        change(client)
        with closing(make_broker(f"redis://{login}127.0.0.1:{server.port}")) as broker:
            with pytest.raises(BrokerUnavailable, match=f"nothing was published; .*{says}") as raised:
                publish(broker, "a", "x")
            assert "does it run" not in str(raised.value)
            assert says in broker.status()["error"]


def test_loading_redis_needs_no_change(new_broker: Callable[..., Broker]) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(65_536):
                connection.sendall(b"-LOADING Redis is loading the dataset in memory\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        broker = new_broker(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BrokerUnavailable, match=r"nothing was published; .*nothing needs to be changed"):
            publish(broker, "a", "x")


@pytest.mark.parametrize(
    ("rule", "says"),
    [("-evalsha", "nothing was published"), ("-publish", "may have been published"), ("resetkeys", "nothing was")],
)
def test_missing_acl_rights_are_named_and_may_fail_halfway(
    server: RedisServer, client: Any, new_broker: Callable[..., Broker], rule: str, says: str
) -> None:
    client.execute_command(f"ACL SETUSER app on >secret ~* &* +@all {rule}")
    broker = new_broker(server.url.replace("//", "//app:secret@"))
    with pytest.raises(BrokerUnavailable, match=rf"{says}.*ACL SETUSER"):
        publish(broker, "a", "x")
    assert client.exists("sse:{a}:log") == ("may" in says)


def test_redis_user_without_info_and_config_publishes_and_reads(
    server: RedisServer, client: Any, new_broker: Callable[..., Broker]
) -> None:
    """A restart that may have lost events is then not noticed, as documented; everything else works."""
    rights = (
        "+eval +evalsha +script|load +subscribe +unsubscribe +ping +select +hset +hget +hgetall +hsetnx +hincrby +hdel "
        "+del +exists +get +set +pexpire +persist +xadd +xrange +xdel +publish +time +zadd +zrem +zrangebyscore "
        "+zremrangebyscore"
    )
    client.execute_command(f"ACL SETUSER app on >secret ~sse:* &sse:* -@all {rights}")
    assert_events_are_delivered(new_broker(server.url.replace("//", "//app:secret@")), "a")
