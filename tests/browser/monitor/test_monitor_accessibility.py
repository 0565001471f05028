"""The monitor's page for every user: on a phone, with a keyboard alone, by a screen reader, without motion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.monitor.monitor_page import PREFIX, await_figures, clients, monitor_server, opened, show, unfold_form
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import new_name, post
from tests.support.servers import ROOT, Server

pytestmark = [pytest.mark.xdist_group("browser_monitor"), pytest.mark.timeout(300)]

SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
AXE = ROOT / "build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture
def page(browser: Browser, monitor: Server) -> Iterator[Page]:
    with opened(browser, monitor) as page:
        yield page


def test_monitor_fits_window_and_has_no_accessibility_violation(page: Page, monitor: Server) -> None:
    channel = new_name() + "x" * 150
    with clients(monitor, channel, 2):
        post(monitor, f"{PREFIX}/publish/{channel}?event=created&times=3", {"id": 1})
        post(monitor, f"{PREFIX}/publish/{channel}", "x" * 600)
        show(page, channel)
        unfold_form(page)
        expect(page.locator("#events li")).to_have_count(4)
        expect(page.locator("#channels tr").first).to_be_visible()
        for width, scheme in product([1280, 390], SCHEMES):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground))) > 380) is (scheme == "light")
            if AXE.exists():
                assert_accessible(page)
    if not AXE.exists():
        pytest.skip("axe-core is missing: make test installs it, where there is npm")


def assert_accessible(page: Page) -> None:
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] })")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_monitor_phone_layout_shows_channels_first_and_whole_tables(browser: Browser) -> None:
    with (
        RedisServer() as redis,
        monitor_server(SSE_BROKER_URL=redis.url) as server,
        monitor_server(SSE_BROKER_URL=redis.url) as other,
        clients(server, "orders", 1),
        clients(other, "orders", 1),
        opened(browser, server, width=390) as page,
    ):
        expect(page.locator("#processes tr")).to_have_count(2)
        expect(page.locator("#monitors")).to_have_text("in 2 processes; 1 monitor in this one")
        channels, live, history = (
            page.locator(f".{name}.card").evaluate("card => card.getBoundingClientRect().top")
            for name in ("channels", "live", "history")
        )
        assert channels < live < history
        assert channels < 600
        cut = "each => each.clientWidth > 0 && (each.scrollWidth > each.clientWidth)"
        assert page.locator(".scroll").evaluate_all(f"all => all.filter({cut}).map(each => each.ariaLabel)") == []
        for head in ("Uptime", "Last report", "Broker"):
            shown = page.locator(f"#processes td[data-head='{head}']").first
            assert shown.evaluate("cell => getComputedStyle(cell, '::before').content") == f'"{head}"'


def test_monitor_page_is_usable_with_keyboard_alone(page: Page, monitor: Server) -> None:
    first, second = sorted(new_name() for _ in range(2))
    names = page.locator("#channels button")
    with clients(monitor, first, 1), clients(monitor, second, 2):
        expect(page.locator("#channels tr")).to_have_count(2)
        expect(page.locator("#events")).to_be_attached()
        figures = {"To the figures", "Name", "Clients", first, second}
        assert figures | {"Pause", "channel", "Show", "Publish a test event"} <= tab_through(page)
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        assert {"text", "is_json", "Publish…"} <= tab_through(page)
        names.first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#channel")).to_have_value(names.first.inner_text())
        page.get_by_role("button", name="Name").focus()
        for order, shown in (("ascending", [first, second]), ("descending", [second, first])):
            page.keyboard.press("Enter")
            expect(page.locator(f"th[aria-sort={order}]")).to_have_text("Name")
            assert names.all_inner_texts() == shown
        names.last.focus()
        await_figures(page)
        assert page.evaluate("document.activeElement.textContent") == first, "the focus stays when new figures come"


def tab_through(page: Page) -> set[str]:
    """Press Tab and return the names of the focused elements; each must show its focus."""
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
            const { activeElement: element } = document;
            const name = element === document.body ? "" : element.name || element.textContent.trim();
            return [name, getComputedStyle(element).outlineStyle];
        }""")
        if not name:
            break
        assert outline != "none", name
        reached.add(name)
    return reached


def test_monitor_reduced_motion_stops_animations(page: Page) -> None:
    running = "document.getAnimations().filter(each => each.playState === 'running').length"
    assert page.evaluate(running) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(running) == 0
