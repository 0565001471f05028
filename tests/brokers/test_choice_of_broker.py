"""The broker that an app gets, by the scheme of its URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.brokers import GROUP, make_broker


@pytest.mark.parametrize("url", ["memory://x", "memory:///1"])
def test_broker_url_memory_rejects_a_host_or_path(url: str) -> None:
    with pytest.raises(ValueError, match="memory:// takes nothing more"):
        make_broker(url)


def test_broker_url_with_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no broker is known for 'kafka': known schemes are memory.*{GROUP}"):
        make_broker("kafka://localhost")
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = "kafka://localhost"
    with pytest.raises(ValueError, match=r"SSE_BROKER_URL.*no broker is known for 'kafka'"):
        SSE(app)


def test_broker_of_a_third_party_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_broker.py").write_text(
        "from tests.apps.own_broker import OwnBroker\n"
        "class Theirs(OwnBroker):\n"
        "    def __init__(self, url, **options):\n"
        "        super().__init__(url, **options)\n"
        "        self.url = url\n"
        "    def status(self):\n"
        "        return {'state': 'ok', 'url': self.url}\n"
    )
    metadata = tmp_path / "their_broker-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their_broker\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\ntheirs = their_broker:Theirs\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = "theirs://somewhere"
    sse = SSE(app)
    assert sse.stats()["broker"]["url"] == "theirs://somewhere"
    assert sse.publish("x", "hello").endswith("-1")
