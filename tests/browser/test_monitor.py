"""The monitor in a real browser: live figures, safety against foreign text, and accessibility."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from itertools import product
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.client import Client, answer, connected, new_name, post
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_monitor"), pytest.mark.timeout(300)]

#: The prefix of the app behind a proxy.
PREFIX = "/behind/a/proxy"
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
AXE = ROOT / "build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"

#: Text that must not be rendered as HTML.
NASTY = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    env = {"SCRIPT_NAME": PREFIX, "CONFIG": json.dumps({"SSE_OVERFLOW": "drop_oldest"})}
    with Server("gevent", "tests.apps.monitor:app", env=env) as server:
        yield server
        server.kill()  # an orderly stop takes seconds


@contextmanager
def opened(browser: Browser, server: Server, fragment: str = "", **options: Any) -> Iterator[Page]:
    """Open a live page, and check at its end that nothing went wrong."""
    wrong: list[str] = []
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda asked: None if asked.url.startswith(server.url) else wrong.append(asked.url))
    try:
        page.goto(f"{server.url}{PREFIX}/sse-monitor{fragment}")
        expect(page.locator("#state")).to_have_text("Live")
        yield page
        assert [text for text in wrong if "Failed to load resource" not in text] == []
        assert page.title() != "hacked"
    finally:
        page.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server) as page:
        yield page


def number(locator: Locator) -> float:
    return float(locator.inner_text().replace(",", ""))


def event(page: Page, text: str) -> Locator:
    return page.locator("#events li").filter(has_text=text)


def show(page: Page, channel: str) -> None:
    page.locator("#channel").fill(channel)
    page.get_by_role("button", name="Show").click()


def connect_clients(stack: ExitStack, server: Server, channel: str, count: int) -> None:
    for _ in range(count):
        stack.enter_context(connected(server, f"{PREFIX}/events?channel={channel}"))


def test_monitor_page_shows_clients_and_deliveries_as_they_change(page: Page, server: Server) -> None:
    channel = new_name()
    expect(page.locator("#clients")).to_have_text("0")
    expect(page.locator("#monitors")).to_have_text("and 1 monitor")
    row = page.locator("#channels tr").filter(has_text=channel)
    with ExitStack() as stack:
        connect_clients(stack, server, channel, 3)
        expect(page.locator("#clients")).to_have_text("3")
        expect(row.locator("td").first).to_have_text("3")
        before = delivered(page)
        post(server, f"{PREFIX}/publish/{channel}?times=20", "x")
        expect(row.locator("td").nth(1)).to_have_text("20")
        until(lambda: delivered(page) >= before + 60, "the deliveries")
        expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("Clients: 3 now, between 0 and"))
        line = page.locator("#chart .clients .line")
        drawn = line.get_attribute("d")
        until(lambda: line.get_attribute("d") != drawn, "the chart to move")
    expect(page.locator("#clients")).to_have_text("0")
    expect(row).to_have_count(0)


def delivered(page: Page) -> int:
    return int(page.locator("#delivered").inner_text().split(" ")[0].replace(",", ""))


def test_monitor_page_shows_a_bar_for_every_close_reason(page: Page, server: Server) -> None:
    def shown(reason: str) -> float:
        return number(page.locator(f"tr[data-reason={reason}] td"))

    assert page.locator("#ends tr").count() == 7
    reasons = ["COMPLETED", "TIMEOUT", "ERROR", "OVERFLOW"]
    before = {reason: shown(reason) for reason in [*reasons, "DISCONNECTED"]}
    for reason in reasons:
        with connected(server, f"{PREFIX}/ends/{reason}") as client:
            until(lambda client=client: not read(client), "the end")  # type: ignore[misc]
    with connected(server, f"{PREFIX}/events?channel=x"):
        pass
    for reason in before:
        until(lambda reason=reason: shown(reason) == before[reason] + 1, reason)  # type: ignore[misc]
    widths = page.locator("#ends .bar span").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert sum(width > 0 for width in widths) >= 5


def read(client: Client) -> bytes:
    try:
        return client.read_some()
    except (OSError, HTTPException):  # an overflow cuts it
        return b""


def test_monitor_page_shows_events_of_a_channel_and_may_be_paused(page: Page, browser: Browser, server: Server) -> None:
    channel = new_name()
    [kept] = post(server, f"{PREFIX}/publish/{channel}?event=created", {"id": 1})["ids"]
    show(page, channel)
    expect(event(page, kept)).to_contain_text('{"id": 1}')
    expect(event(page, kept).locator(".event")).to_have_text("created")
    [live] = post(server, f"{PREFIX}/publish/{channel}", "two\nlines")["ids"]
    expect(event(page, live).locator("pre")).to_have_text("two\nlines")
    expect(event(page, live).locator("time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    expect(page.locator("#events li").first).to_contain_text(live)
    page.reload()
    expect(page.locator("#events li")).to_have_count(2)
    page.get_by_role("button", name="Pause").click()
    [unseen] = post(server, f"{PREFIX}/publish/{channel}", "while it was paused")["ids"]
    with opened(browser, server, f"#{channel}") as other:
        expect(event(other, unseen)).to_have_count(1)
    expect(event(page, unseen)).to_have_count(0)
    page.get_by_role("button", name="Pause").click()
    expect(event(page, unseen)).to_have_count(1)


def test_monitor_table_has_a_row_for_each_item_with_equal_keys(page: Page) -> None:
    """Another program may have written the same event or process id into the broker twice."""
    counts = page.evaluate("""async () => {
        const { make, rows } = await import(new URL("static/dom.js", document.baseURI));
        const body = make("ol");
        const show = (items) => {
            rows(body, items, (item) => item, () => make("li"), (row, item) => (row.textContent = item));
            return [...body.children].map((row) => row.textContent).join("");
        };
        return ["aab", "aab", "aaab", "ba", "", "aa"].map((items) => show([...items]));
    }""")
    assert counts == ["aab", "aab", "aaab", "ba", "", "aa"]


def test_monitor_event_flood_shows_newest_events_and_number_skipped(page: Page, server: Server) -> None:
    channel = new_name()
    show(page, channel)
    expect(page.locator("#no-events")).to_contain_text(channel)
    ids = post(server, f"{PREFIX}/publish/{channel}?times=500", "x" * 2000)["ids"]
    expect(page.locator("#events li").first).to_contain_text(ids[-1])
    expect(page.locator("#events li")).to_have_count(50)
    expect(page.locator("#skipped")).to_have_text(re.compile(r"\d+ more came too fast to be shown"))
    page.locator("#events summary").first.click()
    expect(page.locator("#events details pre").first).to_be_visible()
    post(server, f"{PREFIX}/publish/{channel}", "after it")
    expect(event(page, "after it")).to_have_count(1)
    expect(page.locator("#events details[open]")).to_have_count(1)


def publishing_form(page: Page) -> Locator:
    """Unfold the form and return it."""
    expect(page.locator("#publish")).to_be_hidden()
    page.get_by_text("Publish a test event").click()
    return page.locator("#publish")


def press_publish(page: Page) -> None:
    """Press Publish and confirm."""
    page.get_by_role("button", name="Publish…").click()
    page.get_by_role("dialog").get_by_role("button", name="Publish").click()


def test_monitor_publish_asks_to_confirm_with_number_of_subscribers(page: Page, server: Server) -> None:
    channel, unread = new_name(), new_name()
    question = page.get_by_role("dialog")
    form = publishing_form(page)
    with ExitStack() as stack:
        connect_clients(stack, server, channel, 2)
        expect(page.locator("#channels tr").filter(has_text=channel).locator("td").first).to_have_text("2")
        show(page, channel)
        form.get_by_label("Channel").fill(channel)
        form.get_by_label("Data").fill("never published")
        for key in ("Enter", "Escape"):  # the focus is on Cancel
            form.get_by_role("button").click()
            expect(question).to_contain_text(f"Publish to {channel}?")
            expect(question).to_contain_text("2 clients read the channel now.")
            page.keyboard.press(key)
            expect(question).to_be_hidden()
        post(server, f"{PREFIX}/publish/{channel}", "the only one")
        expect(event(page, "the only one")).to_have_count(1)
        expect(page.locator("#events li")).to_have_count(1)
    form.get_by_label("Channel").fill(unread)
    form.get_by_role("button").click()
    expect(question).to_contain_text("No client reads the channel now.")
    question.get_by_role("button", name="Publish").click()
    expect(page.locator("#publish-result")).to_contain_text("No client reads the channel now.")


def test_monitor_form_publishes_event_and_shows_errors(page: Page, server: Server) -> None:
    channel = new_name()
    form = publishing_form(page)
    with connected(server, f"{PREFIX}/events?channel={channel}") as client:
        form.get_by_label("Channel").fill(channel)
        form.get_by_label("Event name").fill("created")
        form.get_by_label("Data").fill('{"id": 7}')
        form.get_by_label("Send as JSON").check()
        press_publish(page)
        [got] = client.events(1)
        assert (got.event, json.loads(got.data)) == ("created", {"id": 7})
        expect(page.locator("#publish-result")).to_have_text(f"Published as {got.id}. 1 client reads the channel now.")
    expect(page.locator("#publish-error")).to_be_hidden()
    form.get_by_label("Data").fill("{")
    press_publish(page)
    expect(page.locator("#publish-error")).to_contain_text("no JSON")
    expect(page.locator("#publish-result")).to_be_empty()
    form.get_by_label("Channel").fill("two words")
    press_publish(page)
    expect(page.locator("#publish-error")).to_contain_text("ASCII letters")
    form.get_by_label("Channel").fill("")
    form.get_by_role("button").click()
    expect(page.locator("#publish-error")).to_have_text("Enter a channel.")
    expect(form.get_by_label("Channel")).to_be_focused()
    show(page, "two words")
    expect(page.locator("#choose-error")).to_contain_text("ASCII letters")


def test_monitor_foreign_text_is_never_rendered_as_html(page: Page, server: Server) -> None:
    channel = new_name()
    show(page, channel)
    with connected(server, f"{PREFIX}/events?channel={channel}&identity=%3Cimg%20src%3Dx%20onerror%3Dx%3E"):
        posted = {"channel": channel, "event": NASTY, "text": NASTY, "is_json": False}
        post(server, f"{PREFIX}/sse-monitor/publish", posted)
        expect(page.locator("#events .event").first).to_have_text(NASTY)
        expect(page.locator("#events pre").first).to_have_text(NASTY)
        for _ in range(20):  # more than the socket buffers hold
            post(server, f"{PREFIX}/publish/{channel}?event=large", NASTY + "x" * 900_000)
        expect(page.locator("#slow")).to_contain_text("<img src=x onerror=x>")
        page.locator("#events summary").first.click()
        expect(page.locator("#events details[open] pre").first).to_contain_text("… (900")
    assert page.locator("#events img, #events script, #slow img").count() == 0


def test_monitor_page_reconnects_after_server_restart(page: Page, server: Server) -> None:
    channel = new_name()
    show(page, channel)
    with page.expect_event("requestfailed", lambda request: request.method == "HEAD"):
        server.kill()
    page.evaluate("() => { const later = performance.now() + 3_100; performance.now = () => later; }")
    expect(page.locator("#state")).to_have_text("Not connected")
    server.start()
    expect(page.locator("#state")).to_have_text("Live")
    [live] = post(server, f"{PREFIX}/publish/{channel}", "after it")["ids"]
    expect(event(page, live)).to_have_count(1)


def test_monitor_page_shows_access_denied_after_revocation(page: Page, server: Server) -> None:
    assert answer(server, "POST", f"{PREFIX}/open/no")[0] == 204
    try:
        assert answer(server, "POST", f"{PREFIX}/cut-monitors")[0] == 204
        expect(page.locator("#state")).to_have_text("Access denied")
    finally:
        assert answer(server, "POST", f"{PREFIX}/open/yes")[0] == 204
    expect(page.locator("#state")).to_have_text("Live")


def test_monitor_short_reconnect_does_not_change_shown_state(page: Page, server: Server) -> None:
    page.evaluate("""() => {
        window.seen = [];
        const element = document.getElementById("state");
        new MutationObserver(() => seen.push(element.textContent)).observe(element, { childList: true });
        const now = performance.now();
        performance.now = () => now; // however slow this machine is: for the page, no time passes
    }""")
    with page.expect_request(lambda request: "/stream" in request.url):
        assert answer(server, "POST", f"{PREFIX}/cut-monitors")[0] == 204
    points = number_of_points(page)
    until(lambda: number_of_points(page) > points + 1, "new figures")
    assert page.evaluate("seen") == []


def number_of_points(page: Page) -> int:
    return int(page.locator("#chart").get_attribute("data-points") or 0)


def test_monitor_fits_window_and_has_no_accessibility_violation(page: Page, server: Server) -> None:
    channel = new_name() + "x" * 150
    with ExitStack() as stack:
        connect_clients(stack, server, channel, 2)
        post(server, f"{PREFIX}/publish/{channel}?event=created&times=3", {"id": 1})
        post(server, f"{PREFIX}/publish/{channel}", "x" * 600)
        show(page, channel)
        publishing_form(page)
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


#: Draws points, one for each second, in two parts of the last five minutes.
DRAW = """async () => {
    const { chart } = await import(new URL("static/figures.js", document.baseURI));
    const now = Date.now();
    const run = (from, to) => Array.from({ length: to - from }, (_, index) =>
        ({ at: now + (from + index) * 1000, clients: 5, deliveries: 9, published: 1 }));
    chart.fill([...run(-200, -150), ...run(-20, 1)]);
    return document.getElementById("chart").querySelectorAll("rect.unwatched").length;
}"""


def test_monitor_chart_marks_times_without_figures(browser: Browser, server: Server) -> None:
    server.kill()
    server.start()  # it forgets the figures of former pages
    with opened(browser, server) as page:
        until(lambda: number_of_points(page) > 0, "figures")
        assert page.evaluate(DRAW) == 2
        assert page.locator("#chart text.unwatched").all_text_contents() == ["not watched"] * 2
        points = number_of_points(page)
        until(lambda: number_of_points(page) > points, "new figures")
        expect(page.locator("#chart")).to_have_attribute(
            "aria-label", re.compile("five minutes, [34] min of them not watched")
        )


def test_monitor_phone_layout_shows_channels_first_and_whole_tables(browser: Browser) -> None:
    with RedisServer() as redis, ExitStack() as stack:
        env = {"SCRIPT_NAME": PREFIX, "CONFIG": json.dumps({"SSE_BROKER_URL": redis.url})}
        servers = [stack.enter_context(Server("gevent", "tests.apps.monitor:app", env=env)) for _ in range(2)]
        for server in servers:
            stack.enter_context(connected(server, f"{PREFIX}/events?channel=orders"))
        size = {"width": 390, "height": 844}
        page = stack.enter_context(opened(browser, servers[0], viewport=size))
        expect(page.locator("#processes tr")).to_have_count(2)
        expect(page.locator("#monitors")).to_have_text("in 2 processes; 1 monitor in this one")
        tops = [page.locator(f".{name}.card").bounding_box() for name in ("channels", "live", "history")]
        [channels, live, history] = [box["y"] for box in tops if box is not None]
        assert channels < live < history
        assert channels < 600
        cut = "each => each.clientWidth > 0 && (each.scrollWidth > each.clientWidth)"
        assert page.locator(".scroll").evaluate_all(f"all => all.filter({cut}).map(each => each.ariaLabel)") == []
        for head in ("Uptime", "Last report", "Broker"):
            shown = page.locator(f"#processes td[data-head='{head}']").first
            assert shown.evaluate("cell => getComputedStyle(cell, '::before').content") == f'"{head}"'


def test_monitor_page_is_usable_with_keyboard_alone(page: Page, server: Server) -> None:
    channels = sorted(new_name() for _ in range(2))
    with ExitStack() as stack:
        for count, channel in enumerate(channels, 1):
            connect_clients(stack, server, channel, count)
        expect(page.locator("#channels tr")).to_have_count(2)
        expect(page.locator("#events")).to_be_attached()
        reached = tab_through(page)
        for name in [
            "To the figures",
            "Name",
            "Clients",
            *channels,
            "Pause",
            "channel",
            "Show",
            "Publish a test event",
        ]:
            assert name in reached, f"{name} cannot be reached: {reached}"
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        reached = tab_through(page)
        for name in ["text", "is_json", "Publish…"]:
            assert name in reached, f"{name} cannot be reached: {reached}"
        page.locator("#channels button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#channel")).to_have_value(page.locator("#channels button").first.inner_text())
        page.get_by_role("button", name="Name").focus()
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort=ascending]")).to_have_text("Name")
        assert page.locator("#channels button").all_inner_texts() == channels
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort=descending]")).to_have_text("Name")
        assert page.locator("#channels button").all_inner_texts() == channels[::-1]
        page.locator("#channels button").last.focus()
        points = number_of_points(page)
        until(lambda: number_of_points(page) > points, "new figures")
        focused = page.evaluate("document.activeElement.textContent")
        assert focused == channels[0], "the focus stays when new figures come"


def tab_through(page: Page) -> list[str]:
    """Press Tab and return the names of the focused elements in order; each must show its focus."""
    page.evaluate("document.activeElement.blur()")
    reached = []
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
        reached.append(name)
    return reached


def test_monitor_reduced_motion_stops_animations(page: Page) -> None:
    running = "document.getAnimations().filter(each => each.playState === 'running').length"
    assert page.evaluate(running) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(running) == 0


def test_monitor_denied_page_shows_only_forbidden(browser: Browser, server: Server) -> None:
    assert answer(server, "POST", f"{PREFIX}/open/no")[0] == 204
    try:
        page = browser.new_page()
        response = page.goto(f"{server.url}{PREFIX}/sse-monitor/")
        assert response is not None
        assert (response.status, response.text()) == (403, "Forbidden\n")
        page.close()
    finally:
        assert answer(server, "POST", f"{PREFIX}/open/yes")[0] == 204
