"""The tutorial's last part: its app on a server, with the files that it names, and in folders of this test's own."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from flask_sse_emitters.testing import read_events
from tests.project.docs.docs_blocks import blocks_of, modules_of
from tests.support.brokers.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.web.nginx import Nginx

BLOCKS = blocks_of(ROOT / "docs" / "tutorial.rst")


@contextmanager
def deployed(folder: Path, broker: str) -> Iterator[tuple[Server, Nginx]]:
    """Run the app as the tutorial has it, at a unix socket behind nginx."""
    for name, text in modules_of(BLOCKS).items():
        (folder / name).write_text(text)
    (folder / "static").mkdir()
    [page] = [block.text for block in BLOCKS if block.language == "html"]
    (folder / "static" / "kitchen.html").write_text(page)
    listener = folder / "app.sock"
    arguments = ["--config", str(folder / "gunicorn.conf.py"), "--chdir", str(folder), "--bind", f"unix:{listener}"]
    env = {**_environment(), "SSE_BROKER_URL": broker, "PYTHONPATH": f"{folder}:{ROOT}"}
    with Server("gthread", "app:app", env=env, arguments=arguments) as server, Nginx(listener) as nginx:
        until(lambda: _listens(listener), "gunicorn to listen")
        yield server, nginx


def _environment() -> dict[str, str]:
    """Return the variables that the tutorial puts into the unit."""
    [unit] = [block.text for block in BLOCKS if block.language == "ini"]
    lines = [line.partition("=")[2].partition("=") for line in unit.splitlines() if line.startswith("Environment=")]
    return {name: value for name, _, value in lines}


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(str(path))
        return True
    return False


@contextmanager
def client_of(nginx: Nginx, name: str) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(nginx.certificate))
    with httpx.Client(base_url=nginx.url, verify=context, timeout=PATIENCE) as client:
        assert client.post("/login", json={"name": name}).status_code == 204
        yield client


def test_tutorial_app_behind_nginx_shows_orders_also_over_a_reload(tmp_path: Path) -> None:
    with RedisServer() as redis, deployed(tmp_path, redis.url) as (server, nginx):
        with client_of(nginx, "kitchen") as kitchen, client_of(nginx, "ann") as ann:
            assert "Kitchen" in kitchen.get("/", follow_redirects=True).text
            state = kitchen.get("/orders").json()
            assert state["orders"] == []
            path = f"/events?channel=kitchen&lastEventId={state['position']}"
            with kitchen.stream("GET", path) as stream:
                assert ann.post("/orders", json={"text": "soup"}).json() == {"id": 1}
                [first] = read_events(stream, 1)
                exiting = server.log.count("Worker exiting")
                server.signal(signal.SIGHUP)
                until(lambda: server.log.count("Worker exiting") > exiting, "an old worker to exit")
                until(lambda: ann.post("/orders", json={"text": "cake"}).status_code == 201, "the new workers")
                [cake] = read_events(stream, 1)
                assert json.loads(cake.data)["dish"] == "cake", "the connection stays"
            with (
                kitchen.stream("GET", path, headers={"Last-Event-ID": str(first.id)}) as stream,
                ann.stream("GET", "/events?channel=~") as of_ann,
            ):
                kitchen.post("/orders/1/ready", json={})
                seen = [(event.event, json.loads(event.data)["dish"]) for event in read_events(stream, 2)]
                assert seen == [("ordered", "cake"), ("ready", "soup")]
                assert [event.event for event in read_events(of_ann, 1)] == ["ready"]
            assert [order["dish"] for order in kitchen.get("/orders").json()["orders"]] == ["cake"]
    assert (first.event, json.loads(first.data)) == ("ordered", {"id": 1, "guest": "ann", "dish": "soup"})
