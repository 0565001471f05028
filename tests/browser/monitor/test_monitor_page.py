"""What the monitor's page shows in a real browser: live figures, events, and never foreign text as HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.client import HTTPException

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.monitor.monitor_page import PREFIX, await_figures, clients, event, opened, row_of, show, unfold_form
from tests.support.client import connected, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_monitor"), pytest.mark.timeout(300)]

#: Text that must not be rendered as HTML.
NASTY = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"

#: Draws points, one for each second, in two parts of the last five minutes.
DRAW = """async () => {
    const { chart } = await import(new URL("static/figures.js", document.baseURI));
    const now = Date.now();
    const run = (from, to) => Array.from({ length: to - from }, (_, index) =>
        ({ at: now + (from + index) * 1000, clients: 5, deliveries: 9, published: 1 }));
    chart.fill([...run(-200, -150), ...run(-20, 1)]);
    return document.getElementById("chart").querySelectorAll("rect.unwatched").length;
}"""

#: Shows lists of items in turn; returns which rows there were.
SHOW_ROWS = """async (lists) => {
    const { make, rows } = await import(new URL("static/dom.js", document.baseURI));
    const body = make("ol");
    const show = (items) => {
        rows(body, items, (item) => item, () => make("li"), (row, item) => (row.textContent = item));
        return [...body.children].map((row) => row.textContent).join("");
    };
    return lists.map((items) => show([...items]));
}"""


@pytest.fixture
def page(browser: Browser, monitor: Server) -> Iterator[Page]:
    with opened(browser, monitor) as page:
        yield page


def number_in(page: Page, selector: str) -> int:
    return int(page.locator(selector).inner_text().split(" ")[0].replace(",", ""))


def test_monitor_page_shows_clients_and_deliveries_as_they_change(page: Page, monitor: Server) -> None:
    channel = new_name()
    row = row_of(page, channel)
    expect(page.locator("#clients")).to_have_text("0")
    expect(page.locator("#monitors")).to_have_text("and 1 monitor")
    with clients(monitor, channel, 3):
        expect(page.locator("#clients")).to_have_text("3")
        expect(row.locator("td").first).to_have_text("3")
        before = number_in(page, "#delivered")
        post(monitor, f"{PREFIX}/publish/{channel}?times=20", "x")
        expect(row.locator("td").nth(1)).to_have_text("20")
        until(lambda: number_in(page, "#delivered") >= before + 60, "the deliveries")
        expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("Clients: 3 now, between 0 and"))
        line = page.locator("#chart .clients .line")
        drawn = line.get_attribute("d")
        until(lambda: line.get_attribute("d") != drawn, "the chart to move")
    expect(page.locator("#clients")).to_have_text("0")
    expect(row).to_have_count(0)


def test_monitor_page_shows_a_bar_for_every_close_reason(page: Page, monitor: Server) -> None:
    assert page.locator("#ends tr").count() == 8
    caused = ["COMPLETED", "TIMEOUT", "ERROR", "OVERFLOW"]
    cells = {reason: f"tr[data-reason={reason}] td" for reason in [*caused, "DISCONNECTED"]}
    before = {reason: number_in(page, cell) for reason, cell in cells.items()}
    for reason in caused:
        with connected(monitor, f"{PREFIX}/ends/{reason}") as client:
            try:
                client.rest()
            except (OSError, HTTPException):
                assert reason == "OVERFLOW", "this one alone is cut"
    with clients(monitor, "x", 1):
        pass
    for reason, cell in cells.items():
        expect(page.locator(cell)).to_have_text(f"{before[reason] + 1:,}")
    widths = page.locator("#ends .bar span").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert sum(width > 0 for width in widths) >= 5


def test_monitor_page_shows_events_of_a_channel_and_may_be_paused(
    page: Page, browser: Browser, monitor: Server
) -> None:
    channel = new_name()
    kept = post(monitor, f"{PREFIX}/publish/{channel}?event=created", {"id": 1})["id"]
    show(page, channel)
    expect(event(page, kept)).to_contain_text('{"id": 1}')
    expect(event(page, kept).locator(".event")).to_have_text("created")
    live = post(monitor, f"{PREFIX}/publish/{channel}", "two\nlines")["id"]
    expect(event(page, live).locator("pre")).to_have_text("two\nlines")
    expect(event(page, live).locator("time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    expect(page.locator("#events li").first).to_contain_text(live)
    page.reload()
    expect(page.locator("#events li")).to_have_count(2)
    page.get_by_role("button", name="Pause").click()
    unseen = post(monitor, f"{PREFIX}/publish/{channel}", "while it was paused")["id"]
    with opened(browser, monitor, f"#{channel}") as other:
        expect(event(other, unseen)).to_have_count(1)
    expect(event(page, unseen)).to_have_count(0)
    page.get_by_role("button", name="Pause").click()
    expect(event(page, unseen)).to_have_count(1)


def test_monitor_table_has_a_row_for_each_item_with_equal_keys(page: Page) -> None:
    """Another program may have written the same event or process id into the broker twice."""
    lists = ["aab", "aab", "aaab", "ba", "", "aa"]
    assert page.evaluate(SHOW_ROWS, lists) == lists


def test_monitor_event_flood_shows_newest_events_and_number_skipped(page: Page, monitor: Server) -> None:
    channel = new_name()
    show(page, channel)
    expect(page.locator("#no-events")).to_contain_text(channel)
    newest = post(monitor, f"{PREFIX}/publish/{channel}?times=500", "x" * 2000)["id"]
    expect(page.locator("#events li").first).to_contain_text(newest)
    expect(page.locator("#events li")).to_have_count(50)
    expect(page.locator("#skipped")).to_have_text(re.compile(r"\d+ more came too fast to be shown"))
    page.locator("#events summary").first.click()
    expect(page.locator("#events details pre").first).to_be_visible()
    post(monitor, f"{PREFIX}/publish/{channel}", "after it")
    expect(event(page, "after it")).to_have_count(1)
    expect(page.locator("#events details[open]")).to_have_count(1)


def press_publish(page: Page, confirms: str = "Publish") -> None:
    page.get_by_role("button", name="Publish…").click()
    page.get_by_role("dialog").get_by_role("button", name=confirms).click()


def test_monitor_publish_asks_to_confirm_with_number_of_subscribers(page: Page, monitor: Server) -> None:
    channel = new_name()
    question = page.get_by_role("dialog")
    form = unfold_form(page)
    with clients(monitor, channel, 2):
        expect(row_of(page, channel).locator("td").first).to_have_text("2")
        show(page, channel)
        form.get_by_label("Channel").fill(channel)
        form.get_by_label("Data").fill("never published")
        for key in ("Enter", "Escape"):  # the focus is on Cancel
            form.get_by_role("button").click()
            expect(question).to_contain_text(f"Publish to {channel}?")
            expect(question).to_contain_text("2 clients read the channel now.")
            page.keyboard.press(key)
            expect(question).to_be_hidden()
        post(monitor, f"{PREFIX}/publish/{channel}", "the only one")
        expect(event(page, "the only one")).to_have_count(1)
        expect(page.locator("#events li")).to_have_count(1)
    form.get_by_label("Channel").fill(new_name())
    form.get_by_role("button").click()
    expect(question).to_contain_text("No client reads the channel now.")
    question.get_by_role("button", name="Publish").click()
    expect(page.locator("#publish-result")).to_contain_text("No client reads the channel now.")


def test_monitor_form_publishes_event_and_shows_errors(page: Page, monitor: Server) -> None:
    channel = new_name()
    result, error = page.locator("#publish-result"), page.locator("#publish-error")
    form = unfold_form(page)
    with connected(monitor, f"{PREFIX}/events?channel={channel}") as client:
        for label, text in {"Channel": channel, "Event name": "created", "Data": '{"id": 7}'}.items():
            form.get_by_label(label).fill(text)
        form.get_by_label("Send as JSON").check()
        press_publish(page)
        [got] = client.events(1)
        assert (got.event, json.loads(got.data)) == ("created", {"id": 7})
        expect(result).to_have_text(f"Published as {got.id}. 1 client reads the channel now.")
    expect(error).to_be_hidden()
    for label, text, message in (("Data", "{", "no JSON"), ("Channel", "two words", "ASCII letters")):
        form.get_by_label(label).fill(text)
        press_publish(page)
        expect(error).to_contain_text(message)
        expect(result).to_be_empty()
    form.get_by_label("Channel").fill("")
    form.get_by_role("button").click()
    expect(error).to_have_text("Enter a channel.")
    expect(form.get_by_label("Channel")).to_be_focused()
    show(page, "two words")
    expect(page.locator("#choose-error")).to_contain_text("ASCII letters")


def test_monitor_foreign_text_is_never_rendered_as_html(page: Page, monitor: Server) -> None:
    channel = new_name()
    show(page, channel)
    with connected(monitor, f"{PREFIX}/events?channel={channel}&identity=%3Cimg%20src%3Dx%20onerror%3Dx%3E"):
        posted = {"channel": channel, "event": NASTY, "text": NASTY, "is_json": False}
        post(monitor, f"{PREFIX}/sse-monitor/publish", posted)
        expect(page.locator("#events .event").first).to_have_text(NASTY)
        expect(page.locator("#events pre").first).to_have_text(NASTY)
        for _ in range(20):  # more than the socket buffers hold
            post(monitor, f"{PREFIX}/publish/{channel}?event=large", NASTY + "x" * 900_000)
        expect(page.locator("#slow")).to_contain_text("<img src=x onerror=x>")
        expect(page.locator("#events .id").first).to_contain_text("-21")  # no more come, which would move the others
        page.locator("#events summary").first.click()
        expect(page.locator("#events details[open] pre").first).to_contain_text("… (900")
    assert page.locator("#events img, #events script, #slow img").count() == 0


def test_monitor_page_reconnects_after_server_restart(page: Page, monitor: Server) -> None:
    channel = new_name()
    show(page, channel)
    with page.expect_event("requestfailed", lambda request: request.method == "HEAD"):
        monitor.kill()
    page.evaluate("() => { const later = performance.now() + 3_100; performance.now = () => later; }")
    expect(page.locator("#state")).to_have_text("Not connected")
    monitor.start()
    expect(page.locator("#state")).to_have_text("Live")
    live = post(monitor, f"{PREFIX}/publish/{channel}", "after it")["id"]
    expect(event(page, live)).to_have_count(1)


def test_monitor_page_shows_access_denied_after_revocation(page: Page, monitor: Server) -> None:
    post(monitor, f"{PREFIX}/open/no")
    try:
        post(monitor, f"{PREFIX}/cut-monitors")
        expect(page.locator("#state")).to_have_text("Access denied")
    finally:
        post(monitor, f"{PREFIX}/open/yes")
    expect(page.locator("#state")).to_have_text("Live")


def test_monitor_short_reconnect_does_not_change_shown_state(page: Page, monitor: Server) -> None:
    page.evaluate("""() => {
        window.seen = [];
        const element = document.getElementById("state");
        new MutationObserver(() => seen.push(element.textContent)).observe(element, { childList: true });
        const now = performance.now();
        performance.now = () => now; // however slow this machine is: for the page, no time passes
    }""")
    with page.expect_request(lambda request: "/stream" in request.url):
        post(monitor, f"{PREFIX}/cut-monitors")
    await_figures(page, 2)
    assert page.evaluate("seen") == []


def test_monitor_chart_marks_times_without_figures(browser: Browser, monitor: Server) -> None:
    monitor.kill()
    monitor.start()  # it forgets the figures of former pages
    with opened(browser, monitor) as page:
        await_figures(page)
        assert page.evaluate(DRAW) == 2
        assert page.locator("#chart text.unwatched").all_text_contents() == ["not watched"] * 2
        await_figures(page)
        expect(page.locator("#chart")).to_have_attribute(
            "aria-label", re.compile("five minutes, [34] min of them not watched")
        )
