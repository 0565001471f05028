"""The pictures of README and docs, with real clients: ``python -m tests.project.pictures example``, or another name.

They take one to five minutes, as their charts show that many; ``--seconds 10`` is a preview. ``--folder DIR`` writes
there, and the views of other sizes as well.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium
from tests.support.client import Client, connected, post
from tests.support.servers import ROOT, Server

#: Notices, each after a part of the time; a client connects with each.
NOTICES = [
    (0.2, "Grace", "The build is green again. Thank you for fixing it!"),
    (0.2, "Tomás", "Cake in the kitchen, until it is gone."),
    (0.2, "Ada", "The meeting moves to 15:00.\nSame room, same link."),
    (0.3, "Linus", "I reload the server at noon. Leave this page open: it stays connected, and misses nothing."),
]

#: About how many clients read each channel, and how many events it has a second.
CHANNELS = {"orders": (24, 2.0), "prices": (40, 6.0), "news": (61, 0.3), "chat:lobby": (17, 1.2), "jobs": (5, 0.5)}

#: Names of the events of each channel, and functions that make their data.
EVENTS: dict[str, tuple[str, Callable[[int], object]]] = {
    "orders": ("created", lambda number: {"id": 48_000 + number, "total": 9 + number * 7 % 300, "currency": "EUR"}),
    "prices": ("tick", lambda number: {"symbol": "ACME", "price": 100 + number % 17}),
    "news": ("headline", lambda number: f"Harbour opens its gate {number % 9 + 1} for the summer"),
    "chat:lobby": ("message", lambda number: {"from": ["Ada", "Linus"][number % 2], "text": "Is it live? It is."}),
    "jobs": ("progress", lambda number: {"job": "thumbnails", "done": number * 7 % 100}),
}

#: How many streams end for the reasons that do not occur otherwise.
ENDS = {"COMPLETED": 31, "TIMEOUT": 12, "ERROR": 3, "OVERFLOW": 2}

#: Both colour schemes in one picture: light on the left, and dark on the right.
BOTH = """([light, dark]) => {
    document.body.style.margin = 0;
    const there = "position: absolute; left: 0; top: 0; width: 1280px";
    const right = "clip-path: polygon(62% 0, 100% 0, 100% 100%, 42% 100%)";
    document.body.innerHTML = `<img src="${light}" style="${there}"><img src="${dark}" style="${there}; ${right}">`;
    return Promise.all([...document.images].map(image => image.decode()));
}"""


def open_page(browser: Browser, url: str, width: int, **options: Any) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800}, locale="en-GB", **options)
    page.goto(url)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    return page


def write_both(browser: Browser, looks: list[bytes], height: int, path: Path) -> None:
    """Write one picture of the light look and the dark one."""
    both = browser.new_page(viewport={"width": 1280, "height": height})
    both.evaluate(BOTH, [f"data:image/png;base64,{base64.b64encode(look).decode()}" for look in looks])
    both.screenshot(path=path)


def example(browser: Browser, seconds: float, folder: Path | None) -> None:
    with ExitStack() as stack:
        env = {"NOTICES_FILE": f"{stack.enter_context(tempfile.TemporaryDirectory())}/notices.json"}
        arguments = ["--config", str(ROOT / "gunicorn.conf.py")]
        server = stack.enter_context(Server("gevent", "example_app:app", env=env, arguments=arguments))
        light, dark = (open_page(browser, server.url, 1280, color_scheme=scheme) for scheme in ("light", "dark"))
        phone = open_page(browser, server.url, 390)
        for page in (light, dark):
            page.set_viewport_size({"width": 1280, "height": 840})  # three cards
        for part, author, text in NOTICES:
            time.sleep(part * seconds)
            post(server, "/notices", {"author": author, "text": text})
            stack.enter_context(connected(server, "/live"))
        time.sleep(0.1 * seconds)
        for page in (light, dark):
            page.locator("[name=author]").fill("Margaret")
            page.locator("[name=text]").fill("Lunch at the harbour. Who comes along?")
        time.sleep(5)  # until animations have ended
        post(server, "/answer", {"question": "What happens to an answer when I reload the page?"})
        expect(dark.locator("#words")).to_contain_text("reload this page, or open", timeout=60_000)
        looks = [
            page.screenshot(path=(folder or ROOT / "docs") / f"board-{name}.png")
            for name, page in (("light", light), ("dark", dark))
        ]
        write_both(browser, looks, 840, (folder or ROOT / "example") / "board.png")
        if folder is not None:
            phone.screenshot(path=folder / "board-390.png")


def reloaded(browser: Browser, seconds: float, folder: Path | None) -> None:
    """Picture the example's chart just before a reload of the server, and after it."""
    with tempfile.TemporaryDirectory() as kept, ExitStack() as stack:
        arguments = ["--config", str(ROOT / "gunicorn.conf.py")]
        env = {"NOTICES_FILE": f"{kept}/notices.json"}
        server = stack.enter_context(Server("gevent", "example_app:app", env=env, arguments=arguments))
        page = open_page(browser, server.url, 1280)
        for when in ("before", "after"):
            time.sleep(seconds / 2)
            page.locator("section:has(#chart)").screenshot(path=(folder or ROOT / "docs") / f"reload-{when}.png")
            server.signal(signal.SIGHUP)


def read(server: Server, channel: str, stopped: threading.Event) -> None:
    """Keep readers connected; their data are discarded."""
    wanted, _ = CHANNELS[channel]
    readers: list[Client] = []
    while not stopped.is_set():
        now = wanted * random.uniform(0.8, 1.15)
        while len(readers) < now:
            readers.append(Client(server, f"/events?channel={channel}"))
        while len(readers) > now:
            readers.pop(random.randrange(len(readers))).close()
        for reader in readers:
            reader.socket.settimeout(0)
            with suppress(BlockingIOError, TimeoutError):
                while reader.socket.recv(65536):
                    pass
        stopped.wait(random.uniform(0.5, 4))
    for reader in readers:
        reader.close()


def publish(server: Server, channel: str, stopped: threading.Event) -> None:
    (_, speed), (name, data) = CHANNELS[channel], EVENTS[channel]
    for count in itertools.count(1):
        post(server, f"/publish/{channel}?event={name}", data(count))
        if stopped.wait(random.expovariate(speed)):
            return


@contextmanager
def traffic(server: Server) -> Iterator[None]:
    stopped = threading.Event()
    threads = [
        threading.Thread(target=run, args=(server, channel, stopped)) for channel in CHANNELS for run in (read, publish)
    ]
    for thread in threads:
        thread.start()
    with connected(server, "/slow"), connected(server, "/events?channel=prices&identity=margaret"):
        yield
        stopped.set()
        for thread in threads:
            thread.join()


def monitor(browser: Browser, seconds: float, folder: Path | None) -> None:
    with Server("gevent", "tests.apps.monitor:app") as server, traffic(server):
        url = f"{server.url}/sse-monitor/#orders"
        light, dark = (open_page(browser, url, 1280, color_scheme=scheme) for scheme in ("light", "dark"))
        phone = open_page(browser, url, 390)
        for reason, times in ENDS.items():
            for _ in range(times):
                with connected(server, f"/ends/{reason}") as client, suppress(OSError, HTTPException):
                    client.rest()  # an overflow cuts it
        time.sleep(seconds)
        for _ in range(120):
            post(server, "/to-emitters?size=100000")  # more than /slow takes
        time.sleep(1.5)
        looks = [
            page.screenshot(clip={"x": 0, "y": 0, "width": 1280, "height": 1216}, full_page=True)
            for page in (light, dark)
        ]
        write_both(browser, looks, 1216, (folder or ROOT / "docs") / "monitor.png")
        if folder is not None:
            phone.screenshot(path=folder / "monitor-390.png", full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", choices=["example", "monitor", "reload"])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    pictures = {"example": (example, 125), "monitor": (monitor, 302), "reload": (reloaded, 80)}
    paint, seconds = pictures[options.picture]
    with chromium() as browser:
        paint(browser, options.seconds or seconds, options.folder)


if __name__ == "__main__":
    main()
