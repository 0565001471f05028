"""When the browser module reconnects, and how long it waits before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.module.tabs import STATIC, Tabs, new_site, tabs_of
from tests.support.client import new_name
from tests.support.programs import program
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

#: Without a browser: Node has a BroadcastChannel, and neither locks nor a window.
OUTSIDE = """
    import { subscribe } from "./sse-emitters.js";
    const url = process.argv[2];
    const live = subscribe(url, "orders", { onState: (state) => console.log(state) });
    live.on("message", ({ data }) => process.exit(data === "come back" ? 0 : 1));
"""


#: Makes a page record how long it waits, and fixes chance at a half.
WATCH_CLOCK = """
    Math.random = () => 0.5;
    window.waits = [];
    const set = window.setTimeout;
    window.setTimeout = (callback, wait) => (waits.push(wait), set(callback, wait));
"""


def test_module_reconnect_delay_follows_retry_with_jitter_and_backoff(browser: Browser) -> None:
    with new_site() as site, tabs_of(browser, site) as tabs:
        tabs.context.add_init_script(WATCH_CLOCK)
        channel = new_name()
        tab = tabs.open()
        tab.follow(channel)
        tab.page.evaluate("waits.length = 0")
        tabs.post(f"/cut/{channel}", [{"channel": channel, "data": "1"}])
        tab.await_data("1")
        first, second = tabs.requests(channel)
        assert second["at"] - first["at"] >= 0.1
        assert tab.page.evaluate("waits") == [150]
        tabs.post("/publish", [{"channel": channel, "data": "2", "retry": 40}])
        tab.await_data("2")
        site.kill()
        until(lambda: len(tab.page.evaluate("waits")) >= 5, "some failures")
        assert tab.page.evaluate("waits")[1:5] == [140, 240, 440, 840]
        assert tab["errors"] == []


def test_module_silent_connection_ends_after_its_timeout(tabs: Tabs) -> None:
    page = tabs.open().page
    found = page.evaluate("""async () => {
        const { pump } = await import("./events/static/stream.js");
        const pieces = [], ended = [];
        const start = (controller) => controller.enqueue("a piece");
        const cancel = () => void ended.push("cancelled");
        await pump(new ReadableStream({ start, cancel }), 0.05, (piece) => pieces.push(piece) > 0);
        return [pieces, ended];
    }""")
    assert found == [["a piece"], ["cancelled"]]


def test_module_reads_and_reconnects_in_node(tabs: Tabs, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for file in STATIC.glob("*.js"):
        shutil.copy(file, tmp_path)
    (tmp_path / "read.js").write_text(OUTSIDE)
    command = [program("node", "nodejs"), str(tmp_path / "read.js"), f"{tabs.site.url}/events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        try:
            sent = [reader.stdout.readline()]
            tabs.post("/cut/orders", [])
            sent += [reader.stdout.readline(), reader.stdout.readline()]
            tabs.publish(("orders", "come back"))
            assert (reader.wait(30), sent) == (0, ["open\n", "connecting\n", "open\n"]), reader.stderr.read()
        finally:
            reader.kill()
