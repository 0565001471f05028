"""The picture of the monitor in the README, with real clients and events: ``python -m tests.project.monitor_picture``.

It takes five minutes, as the chart shows that many; ``--seconds 30`` is a preview. ``--folder DIR`` keeps every view.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import FLAGS
from tests.support.client import Client, post
from tests.support.programs import program
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server

PICTURE = ROOT / "docs" / "monitor.png"

#: About how many clients read each channel, and how many events it has a second.
CHANNELS = {"orders": (24, 2.0), "prices": (40, 6.0), "news": (61, 0.3), "chat:lobby": (17, 1.2), "jobs": (5, 0.5)}


def _order(number: int) -> object:
    return {"id": 48_000 + number, "total": round(random.uniform(9, 320), 2), "currency": "EUR"}


def _price(number: int) -> object:
    return {"symbol": random.choice(["ACME", "INIT", "UMBR"]), "price": 100 + number % 17}


def _message(_number: int) -> object:
    return {"from": random.choice(["Ada", "Linus", "Grace"]), "text": "Is it live? It is."}


#: Names of the events of each channel, and functions that make their data.
EVENTS: dict[str, tuple[str, Callable[[int], object]]] = {
    "orders": ("created", _order),
    "prices": ("tick", _price),
    "news": ("headline", lambda number: f"Harbour opens its gate {number % 9 + 1} for the summer"),
    "chat:lobby": ("message", _message),
    "jobs": ("progress", lambda number: {"job": "thumbnails", "done": number * 7 % 100}),
}

#: Both colour schemes in one picture: light on the left, and dark on the right.
_BOTH = """([light, dark]) => {
    document.body.style.margin = 0;
    const there = "position: absolute; left: 0; top: 0; width: 1280px";
    const right = "clip-path: polygon(62% 0, 100% 0, 100% 100%, 42% 100%)";
    document.body.innerHTML = `<img src="${light}" style="${there}"><img src="${dark}" style="${there}; ${right}">`;
    return Promise.all([...document.images].map(image => image.decode()));
}"""


class Traffic:
    """Readers that connect and disconnect, and publishers, in a ``with`` block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(name,)) for name in CHANNELS]
        self._threads += [threading.Thread(target=self._publish, args=(name,)) for name in CHANNELS]

    def __enter__(self) -> Traffic:
        self._slow = Client(self._server, "/slow")
        self._late = Client(self._server, "/events?channel=prices&identity=margaret")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._slow.close()
        self._late.close()

    def end_some(self) -> None:
        """End some streams for the reasons that do not occur otherwise."""
        for reason, times in {"COMPLETED": 31, "TIMEOUT": 12, "ERROR": 3, "OVERFLOW": 2}.items():
            for _ in range(times):
                client = Client(self._server, f"/ends/{reason}")
                with suppress(OSError, HTTPException):  # an overflow cuts it
                    client.rest()
                client.close()

    def make_slow(self) -> None:
        for _ in range(120):
            post(self._server, "/to-emitters?size=100000")

    def _read(self, channel: str) -> None:
        """Keep readers connected; their data are discarded."""
        wanted, _ = CHANNELS[channel]
        readers: list[Client] = []
        while not self._stopped.is_set():
            now = wanted * random.uniform(0.8, 1.15)
            while len(readers) < now:
                readers.append(Client(self._server, f"/events?channel={channel}"))
            while len(readers) > now:
                readers.pop(random.randrange(len(readers))).close()
            for reader in readers:
                reader.socket.settimeout(0)
                with suppress(BlockingIOError, TimeoutError):
                    while reader.socket.recv(65536):
                        pass
            self._stopped.wait(random.uniform(0.5, 4))
        for reader in readers:
            reader.close()

    def _publish(self, channel: str) -> None:
        _, speed = CHANNELS[channel]
        name, data = EVENTS[channel]
        count = 0
        while not self._stopped.is_set():
            burst = random.choice([1, 1, 1, 1, 4]) if speed > 1 else 1
            for _ in range(burst):
                count += 1
                post(self._server, f"/publish/{channel}?event={name}", data(count))
            self._stopped.wait(random.expovariate(speed))


def open_page(browser: Browser, server: Server, width: int, scheme: Any) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(f"{server.url}/sse-monitor/#orders")
    page.locator("#state[data-state=live]").wait_for()
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=302)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--redis", action="store_true", help="two workers that share a Redis")
    options = parser.parse_args()
    with ExitStack() as stack:
        env, arguments = {}, []
        if options.redis:
            redis = stack.enter_context(RedisServer())
            env["CONFIG"] = json.dumps({"SSE_BROKER_URL": redis.url})
            arguments = ["--workers", "2"]
        server = stack.enter_context(Server("gevent", "tests.apps.monitor:app", env=env, arguments=arguments))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=program("chromium", "chromium"), args=FLAGS
        )
        stack.callback(browser.close)
        traffic = stack.enter_context(Traffic(server))
        pages = {
            f"{width}-{scheme}": open_page(browser, server, width, scheme)
            for width in (1280, 390)
            for scheme in ("light", "dark")
        }
        traffic.end_some()
        time.sleep(options.seconds)
        traffic.make_slow()
        time.sleep(1.5)
        shots = {name: page.screenshot(full_page=True) for name, page in pages.items()}
        if options.folder is not None:
            options.folder.mkdir(parents=True, exist_ok=True)
            for name, shot in shots.items():
                (options.folder / f"{name}.png").write_bytes(shot)
        clip = {"x": 0.0, "y": 0.0, "width": 1280.0, "height": 1216.0}
        looks = [pages[f"1280-{scheme}"].screenshot(clip=clip, full_page=True) for scheme in ("light", "dark")]  # type: ignore[arg-type]
        both = browser.new_page(viewport={"width": 1280, "height": 1216})
        both.evaluate(_BOTH, [f"data:image/png;base64,{base64.b64encode(look).decode()}" for look in looks])
        both.screenshot(path=PICTURE if options.folder is None else options.folder / "both.png")


if __name__ == "__main__":
    main()
