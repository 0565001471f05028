"""Every kind of Redis URL, each with a real server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import trustme
from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable
from flask_sse_emitters.brokers import make_broker
from tests.brokers.deliveries import assert_events_are_delivered
from tests.support.broker_calls import KEPT, frame, listening
from tests.support.redis_server import RedisServer
from tests.support.redis_topologies import free_port
from tests.support.waiting import until


def test_url_with_database_and_password_works() -> None:
    with RedisServer("--requirepass", "s3cret/#") as server:
        broker = make_broker(f"redis://:s3cret%2F%23@127.0.0.1:{server.port}/3")
        assert_events_are_delivered(broker, "a")
        assert broker.status()["url"] == f"redis://127.0.0.1:{server.port}/3"
        client = redis_py.Redis(port=server.port, password="s3cret/#", db=3)
        assert client.exists("sse:{a}:log")
        broker.close()


def test_url_with_wrong_password_raises_at_once_and_hides_it() -> None:
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
def test_url_that_is_invalid_raises_when_app_is_made(url: str, says: str) -> None:
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = url
    with pytest.raises(ValueError, match=f"^SSE_BROKER_URL: .*{says}"):
        SSE(app)


def test_url_without_redis_py_raises_and_names_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name == "redis" or name.startswith(("redis.", "flask_sse_emitters.brokers.redis")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(
        ImportError, match=r"redis:// needs the package redis: pip install 'flask-sse-emitters\[redis\]'"
    ):
        make_broker("redis://localhost")
