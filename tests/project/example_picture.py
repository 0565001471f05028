"""The picture of the example in the README, with real clients and notices: ``python -m tests.project.example_picture``.

It takes two minutes, as the chart shows that many; ``--seconds 10`` is a preview. ``--folder DIR`` keeps every view.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.browser import FLAGS
from tests.support.client import connected, post
from tests.support.programs import program
from tests.support.servers import ROOT, Server

PICTURE = ROOT / "example" / "board.png"

#: Notices, each after a part of the time; a client connects with each.
NOTICES = [
    (0.2, "Grace", "The build is green again. Thank you for fixing it!"),
    (0.2, "Tomás", "Cake in the kitchen, until it is gone."),
    (0.2, "Ada", "The meeting moves to 15:00.\nSame room, same link."),
    (0.3, "Linus", "I reload the server at noon. Leave this page open: it comes back by itself, and misses nothing."),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=125)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        env = {"NOTICES_FILE": f"{stack.enter_context(tempfile.TemporaryDirectory())}/notices.json"}
        arguments = ["--config", str(ROOT / "gunicorn.conf.py")]
        server = stack.enter_context(Server("gevent", "example_app:app", env=env, arguments=arguments))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=program("chromium", "chromium"), args=FLAGS
        )
        stack.callback(browser.close)
        page = open_page(browser, server, 1280, 800)
        for part, author, text in NOTICES:
            time.sleep(part * options.seconds)
            post(server, "/notices", {"author": author, "text": text})
            stack.enter_context(connected(server, "/load"))
        time.sleep(0.1 * options.seconds)
        page.locator("[name=author]").fill("Margaret")
        page.locator("[name=text]").fill("Lunch at the harbour. Who comes along?")
        time.sleep(5)  # until animations have ended
        page.screenshot(path=PICTURE if options.folder is None else options.folder / "board.png")
        if options.folder is not None:
            phone = open_page(browser, server, 390, 844)
            time.sleep(5)
            phone.screenshot(path=options.folder / "board-390.png")
        server.kill()  # its clients are still connected


def open_page(browser: Browser, server: Server, width: int, height: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, locale="en-GB")
    page.goto(server.url)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    return page


if __name__ == "__main__":
    main()
