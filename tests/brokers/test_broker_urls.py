"""URLs of brokers: which broker each one names, every kind of Redis with a real server, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import trustme
from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable, Publisher
from flask_sse_emitters.brokers import GROUP, make_broker
from tests.support.board import Board
from tests.support.brokers.broker_calls import KEPT, assert_events_are_delivered, frame, listening
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.redis_topologies import free_port
from tests.support.waiting import until


def test_url_with_database_and_password_works_and_hides_it() -> None:
    with RedisServer("--requirepass", "s3cret/#") as server:
        with closing(make_broker(f"redis://:s3cret%2F%23@127.0.0.1:{server.port}/3")) as broker:
            assert_events_are_delivered(broker, "a")
            assert broker.status()["url"] == f"redis://127.0.0.1:{server.port}/3"
        assert redis_py.Redis(port=server.port, password="s3cret/#", db=3).exists("sse:{a}:log")
        with closing(make_broker(f"redis://:wrong@127.0.0.1:{server.port}")) as broker:
            with pytest.raises(BrokerUnavailable, match="invalid username-password") as failed:
                broker.publish("a", frame("x"), KEPT)
            assert "wrong@" not in f"{failed.value} {broker.status()}"


def test_url_of_unix_socket_works(tmp_path: Path) -> None:
    with (
        RedisServer("--unixsocket", str(tmp_path / "redis.sock")),
        closing(make_broker(f"unix://{tmp_path}/redis.sock?db=2")) as broker,
    ):
        assert_events_are_delivered(broker, "a")


def test_url_with_tls_works_and_verifies_certificate(client: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / f"{name}.pem" for name in ("authority", "certificate", "key")}
    authority.cert_pem.write_to_path(str(paths["authority"]))
    certificate.cert_chain_pems[0].write_to_path(str(paths["certificate"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    client.config_set("tls-cert-file", str(paths["certificate"]))
    client.config_set("tls-key-file", str(paths["key"]))
    client.config_set("tls-ca-cert-file", str(paths["authority"]))
    client.config_set("tls-auth-clients", "no")
    client.config_set("tls-port", port := free_port())
    with closing(make_broker(f"rediss://127.0.0.1:{port}?ssl_ca_certs={paths['authority']}")) as broker:
        assert_events_are_delivered(broker, "a")
        # More than one TLS record: once it has been read, the socket no longer shows that data is left.
        listener = listening(broker, "large")
        broker.publish("large", frame("x" * 500_000), KEPT)
        until(lambda: listener.frames, "a large event")
        assert len(listener.frames[0].payload) > 500_000
    with closing(make_broker(f"rediss://127.0.0.1:{port}")) as untrusting:
        with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
            untrusting.publish("a", frame("x"), KEPT)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "must be a URL.* such as .*redis://localhost:6379/0.*, not 'localhost:6379'"),
        ("redis:localhost", "must be a URL"),
        ("://localhost", "no broker is known for"),
        ("http://localhost", f"no broker is known for 'http': known schemes are memory.*redis, .*{GROUP}"),
        ("redis+stream://localhost", "no broker is known for 'redis\\+stream'"),
        ("memory://x", "memory:// takes nothing more"),
        ("memory:///1", "memory:// takes nothing more"),
        ("redis://localhost:port", "'port': give a URL such as redis://localhost:6379/0"),
        ("redis://localhost:99999", "0-65535: give a URL such as"),
        ("redis://[::1", "Invalid IPv6 URL: give a URL such as redis://localhost"),
        ("redis://localhost/orders", "the path is the number of a database, not 'orders'"),
        ("redis://localhost/-1", "the path is the number of a database, not '-1'"),
        ("redis://localhost?db=one", "'db'.*: give a URL such as"),
        ("redis://localhost?socket_timeout=soon", "'socket_timeout'.*: give a URL such as"),
        ("redis://localhost?nonsense=1", "redis-py does not know an option of it: .*nonsense"),
        ("rediss://localhost?ssl_cert_reqs=foo", "redis-py does not know an option of it: .*foo"),
        ("unix://", "lacks the path of a socket"),
        ("redis+sentinel://localhost", "lacks the name of the service: /mymaster"),
        ("redis+sentinel:///mymaster", "'' is not host:port"),
        ("redis+cluster://localhost/1", "a cluster has no databases"),
        ("redis+cluster://localhost:6379,", "'' is not host:port"),
        ("redis+cluster://", "is not host:port"),
    ],
)
def test_url_that_is_invalid_raises_with_advice(url: str, says: str) -> None:
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = url
    with pytest.raises(ValueError, match=f"^SSE_BROKER_URL.*{says}"):
        SSE(app)
    with pytest.raises(ValueError, match=f"^url.*{says}"):
        Publisher(url)


@pytest.mark.parametrize("url", [None, b"redis://localhost", ""])
def test_publisher_url_that_is_no_text_raises_with_advice(url: Any) -> None:
    with pytest.raises(ValueError, match=f"^url must be a URL such as redis://localhost:6379/0, not {url!r}"):
        Publisher(url)


def test_publisher_url_error_hides_password() -> None:
    with pytest.raises(ValueError, match="not 'localhost'") as caught:
        Publisher("user:secret@localhost")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["memory", "alone"])
def test_publisher_url_of_broker_that_is_not_shared_is_refused(
    scheme: str, install_broker: Callable[..., None]
) -> None:
    """Its events would reach no subscriber."""
    install_broker("alone", f"{Alone.__module__}:Alone")
    with pytest.raises(
        ValueError, match=f"^url: what is published to {scheme}:// .*give the SSE_BROKER_URL of the app"
    ):
        Publisher(f"{scheme}://")


class Alone:
    """A broker of a third party."""

    is_shared = False

    def __init__(self, url: str) -> None:
        pass


def test_broker_of_a_third_party_is_found_by_its_entry_point(
    tmp_path: Path, install_broker: Callable[..., None]
) -> None:
    (tmp_path / "their_broker.py").write_text(
        "from tests.apps.own_broker import OwnBroker\n"
        "class Theirs(OwnBroker):\n"
        "    def __init__(self, url, **options):\n"
        "        super().__init__(url, **options)\n"
        "        self.url = url\n"
        "    def status(self):\n"
        "        return {'state': 'ok', 'url': self.url}\n"
    )
    install_broker("theirs", "their_broker:Theirs")
    board = Board(SSE_BROKER_URL="theirs://somewhere")
    assert board.sse.stats()["broker"]["url"] == "theirs://somewhere"
    assert board.publish("x", "hello")[0].endswith("-1")


def test_url_without_redis_py_raises_and_names_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name == "redis" or name.startswith(("redis.", "flask_sse_emitters.brokers.redis")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(
        ImportError, match=r"redis:// needs the package redis: pip install 'flask-sse-emitters\[redis\]'"
    ):
        make_broker("redis://localhost")
