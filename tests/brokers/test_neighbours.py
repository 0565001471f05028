"""A rolling upgrade: processes of this version and of the one before share a broker.

The one before is in ``before/``, as a copy of the package. So these tests show that data and messages which real
processes of both leave in Redis and PostgreSQL are understood by the other, in both directions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, get, new_name, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until

BEFORE = Path(__file__).parent / "before" / "flask_sse_emitters.zip"

#: What has Python take the package from there. Without safe paths it would look into the working folder first.
OLD_PATH = {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{BEFORE}{os.pathsep}{ROOT}"}

pytestmark = pytest.mark.xdist_group("neighbours")


class Pair(NamedTuple):
    """A server of one version, and a server of the other."""

    here: Server
    there: Server


def running(url: str, env: dict[str, str]) -> Server:
    config = {"SSE_BROKER_URL": url, "SSE_HEARTBEAT": 0.5, "SSE_PUBLISH_SECONDS": PATIENCE}
    return Server("gthread", "tests.apps.brokers.neighbours:app", env={"CONFIG": json.dumps(config), **env})


@contextmanager
def started(broker: str) -> Iterator[str]:
    with ExitStack() as stack:
        if broker == "redis":
            yield stack.enter_context(RedisServer()).url
        else:
            yield stack.enter_context(PostgresqlServer()).url()


@pytest.fixture(scope="module", params=["redis", "postgresql"])
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """The old one first: it makes the schema, which the new one finds."""
    with started(request.param) as url, running(url, OLD_PATH) as old:
        post(old, "/publish/first", 1)
        with running(url, {}) as new:
            yield old, new


@pytest.fixture(params=["old first", "new first"])
def pair(request: pytest.FixtureRequest, servers: tuple[Server, Server]) -> Pair:
    old, new = servers
    return Pair(old, new) if request.param == "old first" else Pair(new, old)


def test_neighbour_is_the_version_before() -> None:
    program = "import flask_sse_emitters; print(flask_sse_emitters.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **OLD_PATH}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(BEFORE))


def test_neighbours_deliver_what_either_publishes_in_one_order(pair: Pair) -> None:
    channel = new_name()
    with (
        connected(pair.here, f"/events/{channel}") as here,
        connected(pair.there, f"/events/{channel}") as there,
    ):
        until(lambda: get(pair.here, f"/seen/{channel}")["subscribers"] == 2, "both clients, as one sees them")
        until(lambda: get(pair.there, f"/seen/{channel}")["subscribers"] == 2, "and as the other does")
        assert get(pair.here, f"/seen/{channel}")["processes"] == 2
        ids = [post(pair[number % 2], f"/publish/{channel}", number)["id"] for number in range(10)]
        for client in (here, there):
            events = client.events(10)
            assert [event.id for event in events] == ids
            assert [event.data for event in events] == [*"0123456789"]
    assert get(pair.here, f"/seen/{channel}")["position"] == ids[-1]


def test_neighbours_replay_what_the_other_has_kept(pair: Pair) -> None:
    """A reader that moves from one to the other misses nothing, and gets no gap."""
    channel = new_name()
    ids = [post(pair.there, f"/publish/{channel}", number)["id"] for number in range(3)]
    with connected(pair.here, f"/events/{channel}", headers={"Last-Event-ID": ids[0]}) as client:
        assert [event.id for event in client.events(2)] == ids[1:]
        ids.append(post(pair.there, f"/publish/{channel}", 3)["id"])
        assert [event.id for event in client.events(1)] == ids[3:]


def test_neighbours_publish_once_what_has_one_key(pair: Pair) -> None:
    channel = new_name()
    assert post(pair.here, f"/keyed/{channel}/k", 1) == post(pair.there, f"/keyed/{channel}/k", 1)


def test_neighbours_revoke_each_others_readers(pair: Pair) -> None:
    channel = new_name()
    with (
        connected(pair.here, f"/events/{channel}?reader={channel}") as revoked,
        connected(pair.here, f"/events/{channel}?reader=other") as kept,
    ):
        until(lambda: get(pair.there, f"/seen/{channel}")["subscribers"] == 2, "both clients")
        post(pair.there, f"/disconnect/{channel}")
        revoked.rest()
        post(pair.there, f"/publish/{channel}", "on")
        assert kept.texts(1) == ["on"]


def test_neighbours_read_and_cancel_each_others_runs(pair: Pair) -> None:
    channel = new_name()
    with connected(pair.here, f"/ask/{channel}?count=1000000&seconds=0.01") as reader:
        until(lambda: get(pair.there, f"/seen/{channel}")["is_running"], "the run")
        with connected(pair.there, f"/events/{channel}") as other:
            assert other.events(2)
            assert post(pair.there, f"/cancel/{channel}") == {"was_running": True}
            assert other.rest()
        reader.rest()
    assert get(pair.here, f"/seen/{channel}")["is_complete"]
    until(lambda: get(pair.here, f"/closed/{channel}")["closed"], "the iterable to be closed")


def test_neighbours_end_each_others_streams_with_a_channel(pair: Pair) -> None:
    channel = new_name()
    with connected(pair.here, f"/events/{channel}") as client:
        until(lambda: get(pair.there, f"/seen/{channel}")["subscribers"] == 1, "the client")
        post(pair.there, f"/publish/{channel}", "last words")
        assert client.texts(1) == ["last words"]
        end = post(pair.there, f"/complete/{channel}", {})["id"]
        assert b"event: ~end" in client.rest()
    assert status_of(pair.here, f"/events/{channel}", end) == 204


def status_of(server: Server, path: str, last: str) -> int:
    client = Client(server, path, headers={"Last-Event-ID": last})
    client.close()
    return client.response.status
