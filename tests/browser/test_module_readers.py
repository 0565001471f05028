"""Users who share a browser: no event of one reaches a page of another, in real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Route, sync_playwright

from flask_sse_emitters import SSE
from flask_sse_emitters.access.grants import tag_reader
from tests.browser.tabs import Tab, Tabs, connections, publish
from tests.support.browser import FLAGS
from tests.support.client import connected, get, new_name, post
from tests.support.programs import program
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

APP = "tests.apps.browser_readers:app"

SECRET = "of the tests alone"


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    with Server("gevent", APP) as site:
        yield site
        site.kill()  # an orderly stop takes seconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = program("chromium", "chromium")
    with sync_playwright() as playwright:
        kept = ["--disable-back-forward-cache"]  # users' browsers restore pages from it as well
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, ignore_default_args=kept)
        yield browser
        browser.close()


@pytest.fixture
def tabs(browser: Browser, site: Server) -> Iterator[Tabs]:
    context = browser.new_context()
    tabs = Tabs(context, site)
    yield tabs
    context.close()
    post(site, "/says-reader", True)
    post(site, "/secrets", [SECRET])
    assert [error for tab in tabs.all for error in tab.errors] == []


@pytest.fixture
def alice() -> str:
    return f"alice-{new_name()}"


@pytest.fixture
def bob() -> str:
    return f"bob-{new_name()}"


def log_in(tabs: Tabs, name: str, site: Server | None = None, **options: Any) -> None:
    """Log in, as any page of this browser would."""
    assert tabs.context.request.post(f"{(site or tabs.site).url}/log-in/{name}", data=options).ok


def log_out(tabs: Tabs) -> None:
    assert tabs.context.request.post(f"{tabs.site.url}/log-out").ok


def publish_to(site: Server, name: str, data: str) -> None:
    post(site, f"/publish-to/{name}", data)


def streams(site: Server, name: str) -> int:
    return connections(site, f"~{name}")


def methods(site: Server, channel: str) -> list[str]:
    """Return the methods of the requests for a channel, in order."""
    return [visit["method"] for visit in get(site, "/state")["visits"] if channel in visit["channels"]]


def await_next_stream(site: Server, name: str) -> None:
    """End this reader's streams, and wait until one is open again."""
    before = get(site, "/state")["opened"]
    post(site, f"/disconnect/{name}")
    until(lambda: get(site, "/state")["opened"] > before and streams(site, name), "the next stream")


def await_open(tab: Tab) -> None:
    until(lambda: tab["state"] == "open", "the state")


def await_change(tab: Tab, name: str = "first") -> None:
    until(lambda: tab["changes", name], "the page to be notified")
    assert (tab["changes", name], tab["state", name], tab["errors", name]) == (1, "closed", [])


def test_module_new_page_of_another_reader_gets_its_own_events_alone(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    old = tabs.open()
    old.follow("~")
    log_out(tabs)
    log_in(tabs, bob)
    new = tabs.open()
    new.follow("~")
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    assert new.await_data("for bob alone") == ["for bob alone"]
    assert old.await_data("for alice alone") == ["for alice alone"]
    publish_to(site, bob, "once more")
    publish_to(site, alice, "the last")
    assert old.await_data("the last") == ["for alice alone", "the last"]
    assert new.await_data("once more") == ["for bob alone", "once more"]
    assert (streams(site, alice), streams(site, bob)) == (1, 1)


@pytest.mark.parametrize("comes", ["before", "after"])
def test_module_page_of_a_former_reader_is_notified_after_a_disconnect(
    comes: str, tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    """As ``sse.disconnect`` does at a logout."""
    log_in(tabs, alice)
    old, new = tabs.open(), tabs.open()
    old.follow("~")
    log_in(tabs, bob)
    if comes == "before":
        new.follow("~")
    post(site, f"/disconnect/{alice}")
    await_change(old)
    if comes == "after":
        new.follow("~")
    publish_to(site, bob, "for bob alone")
    assert new.await_data("for bob alone") == ["for bob alone"]
    assert (old.data(), streams(site, alice), streams(site, bob)) == ([], 0, 1)


def test_module_page_of_a_logged_out_reader_is_denied_after_a_disconnect(tabs: Tabs, site: Server, alice: str) -> None:
    log_in(tabs, alice)
    tab = tabs.open()
    tab.follow("~")
    log_out(tabs)
    post(site, f"/disconnect/{alice}")
    until(lambda: tab["state"] == "closed", "the end")
    assert ([error[:2] for error in tab["errors"]], tab["changes"]) == ([["~", 403]], 0)


def test_module_page_of_a_former_reader_is_notified_when_it_becomes_leader(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    leader, follower = tabs.open(), tabs.open()
    for tab in (leader, follower):
        tab.follow("~", "news")
    log_in(tabs, bob)
    new = tabs.open()
    new.follow("~", "news")
    publish_to(site, alice, "1")
    assert follower.await_data("1") == ["1"]
    leader.page.close()
    await_change(follower)
    publish_to(site, bob, "2")
    publish(site, ("news", "3"))
    assert new.await_data("3") == ["2", "3"]
    assert follower.data() == ["1"]


def test_module_all_pages_of_a_former_reader_are_notified_after_a_disconnect(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    old = [tabs.open() for _ in range(3)]
    for tab in old:
        tab.follow("~")
    log_in(tabs, bob)
    post(site, f"/disconnect/{alice}")
    for tab in old:
        await_change(tab)
    assert (streams(site, alice), streams(site, bob)) == (0, 0)


def test_module_leader_reloaded_by_another_reader_reads_as_that_reader(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    first, second = tabs.open(), tabs.open()
    for tab in (first, second):
        tab.follow("~")
    assert streams(site, alice) == 1
    log_in(tabs, bob)
    first.page.reload()
    first.page.wait_for_function("() => !!window.follow")
    first.follow("~")
    until(lambda: second["changes"] == 1, "the other to be notified: it leads now, and checks its reader")
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    assert first.await_data("for bob alone") == ["for bob alone"]
    assert second.data() == []


def test_module_page_with_an_expired_grant_is_notified_of_another_reader(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice, seconds=2)
    tab = tabs.open()
    tab.follow("~")
    log_in(tabs, bob)
    await_change(tab)
    assert (tab.data(), streams(site, bob)) == ([], 0)


def test_module_page_with_an_expired_grant_goes_on_as_the_same_reader(tabs: Tabs, site: Server, alice: str) -> None:
    log_in(tabs, alice, seconds=2)
    tab = tabs.open()
    tab.follow("~")
    until(lambda: methods(site, "~").count("GET") > 1 and tab["states"].count("open") > 1, "the next stream")
    publish_to(site, alice, "1")
    assert (tab.await_data("1"), tab["changes"]) == (["1"], 0)


def test_module_page_restored_from_the_cache_is_notified_of_another_reader(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    tab = tabs.open()
    tab.follow("~")
    tab.page.evaluate("addEventListener('pageshow', ({ persisted }) => (window.isKept = persisted))")
    tab.page.goto(f"{site.url}/state")
    log_in(tabs, bob)
    publish_to(site, bob, "for bob alone")
    tab.page.evaluate("() => void setTimeout(() => history.back())")
    tab.page.wait_for_function("() => window.isKept")
    await_change(tab)
    assert (tab.data(), streams(site, bob)) == ([], 0)


def test_module_page_after_a_login_reads_as_the_new_reader_alone(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    tab = tabs.open()
    tab.follow("~")
    log_in(tabs, bob)
    tab.follow("~", name="second")
    await_change(tab)
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    assert tab.await_data("for bob alone", "second") == ["for bob alone"]
    assert (tab.data(), tab["changes", "second"], streams(site, alice)) == ([], 0, 0)


def test_module_page_with_new_headers_reads_as_the_new_reader_alone(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    tab = tabs.open()
    tab.follow("~", headers={"X-Reader": alice})
    tab.follow("~", name="second", headers={"X-Reader": bob})
    await_change(tab)
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    assert (tab.await_data("for bob alone", "second"), tab.data()) == (["for bob alone"], [])


def test_module_page_with_a_reader_change_during_its_join_is_notified(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    tab = tabs.open()

    def answer(route: Route) -> None:
        if route.request.method == "HEAD":
            answered = route.fetch()
            log_in(tabs, bob)
            route.fulfill(response=answered)
        else:
            route.continue_()

    tab.page.route("**/events?*", answer)
    tab.begin("~")
    await_change(tab)
    assert (tab.data(), streams(site, bob)) == ([], 0)


def test_module_page_that_does_not_share_is_notified_of_another_reader(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    tab = tabs.open()
    tab.follow("~", share=False)
    assert methods(site, "~")[-1] == "GET", "it shares with no other, and sends no HEAD first"
    log_in(tabs, bob)
    post(site, f"/disconnect/{alice}")
    await_change(tab)
    assert (tab.data(), streams(site, bob)) == ([], 0)


def test_module_leader_of_another_reader_that_hangs_blocks_no_page(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    log_in(tabs, alice)
    old, new = tabs.open(), tabs.open()
    old.follow("~")
    dialogs: list[Any] = []
    old.page.on("dialog", lambda dialog: dialogs.append(dialog))
    old.page.evaluate("() => void setTimeout(() => alert('nothing else runs in this page meanwhile'))")
    until(lambda: new.page.evaluate("true") and dialogs, "the dialog")
    log_in(tabs, bob)
    new.follow("~")
    publish_to(site, bob, "for bob alone")
    assert new.await_data("for bob alone") == ["for bob alone"]
    post(site, f"/disconnect/{alice}")
    dialogs[0].dismiss()
    await_change(old)
    assert old.data() == []


def test_module_pages_of_channels_without_a_reader_share_across_logins(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    lobby = f"lobby-{new_name()}"
    for name in (alice, bob):
        log_in(tabs, name)
        tabs.open().follow(lobby, "news")
    assert connections(site, lobby) == 1
    post(site, f"/cut/{lobby}")
    publish(site, (lobby, "1"))
    for tab in tabs.all:
        assert (tab.await_data("1"), tab["changes"]) == (["1"], 0)


def test_module_pages_with_the_same_readers_in_other_roles_do_not_share(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    """The rule names one reader for "~", and another for a second channel."""
    pages = []
    for reader, child in ((alice, bob), (alice, bob), (bob, alice)):
        pages.append(tabs.open())
        pages[-1].follow("~", "child-of", headers={"X-Reader": reader, "X-Child": child})
    assert (streams(site, alice), streams(site, bob)) == (1, 1)
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    for page, data in zip(pages, ("for alice alone", "for alice alone", "for bob alone"), strict=True):
        assert page.await_data(data) == [data]


def test_module_page_is_denied_a_channel_that_only_the_leader_may_read(tabs: Tabs, site: Server, bob: str) -> None:
    """The rule allows without an identity, so the two pages share the other channel."""
    admins, lobby = f"admins-{new_name()}", f"lobby-{new_name()}"
    log_in(tabs, "alice")
    old = tabs.open()
    old.follow(admins, lobby)
    log_in(tabs, bob)
    new = tabs.open()
    new.follow(lobby, name="lobby")
    new.begin(admins, lobby)
    until(lambda: new["errors"], "the refusal")
    until(lambda: new["state"] == "open", "the rest")
    publish(site, (admins, "secret"), (lobby, "1"))
    assert (new.await_data("1"), new.await_data("1", "lobby")) == (["1"], ["1"])
    assert [error[:2] for error in new["errors"]] == [[admins, 403]]
    assert old.await_data("1") == ["secret", "1"]
    assert connections(site, lobby) == 1


def test_module_tabs_of_one_reader_share_and_send_one_head_each(tabs: Tabs, site: Server, alice: str) -> None:
    channel = f"mine-{new_name()}"
    log_in(tabs, alice)
    for _ in range(3):
        tabs.open().follow(channel, "~", "news")
    assert (connections(site, channel), streams(site, alice)) == (1, 1)
    assert methods(site, channel).count("HEAD") == 3
    assert methods(site, channel).count("GET") <= 2, "the stream, and where its channels begin"
    tabs.all[0].page.evaluate("n => { for (let i = 0; i < n; i++) follow({ name: `${i}`, channels: ['~'] }); }", 5)
    until(lambda: tabs.all[0]["state", "4"] == "open", "all of them")
    heads = [visit for visit in get(site, "/state")["visits"] if visit["user"] == alice and visit["method"] == "HEAD"]
    assert len(heads) == 4, "subscriptions made together send one HEAD"


def test_module_pages_of_another_origin_share_one_connection(tabs: Tabs, alice: str) -> None:
    channel = f"mine-{new_name()}"
    with Server("werkzeug", "tests.apps.clients:app") as pages:
        config = f'{{"SSE_CORS_ORIGINS": ["{pages.url}"]}}'
        with Server("gevent", APP, env={"CONFIG": config}) as site:
            log_in(tabs, alice, site)
            for _ in range(2):
                page = tabs.context.new_page()
                page.goto(f"{pages.url}/pages/native.html")
                page.evaluate(
                    """async ([url, channel]) => {
                        const { subscribe } = await import(`${url}/events/static/sse-emitters.js`);
                        window.data = [];
                        window.live = subscribe(`${url}/events`, [channel, "~"], {
                            withCredentials: true, onEvent: (event) => data.push(event.data),
                        });
                    }""",
                    [site.url, channel],
                )
                page.wait_for_function("() => live.state === 'open'")
            assert (connections(site, channel), streams(site, alice)) == (1, 1)
            publish_to(site, alice, "1")
            for page in tabs.context.pages:
                page.wait_for_function("() => data.length === 1")
            site.kill()


def test_module_tabs_of_a_server_without_reader_tags_have_a_connection_each(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    post(site, "/says-reader", False)
    for name in (alice, alice, bob):
        log_in(tabs, name)
        tabs.open().follow("~")
    assert (streams(site, alice), streams(site, bob)) == (2, 1)
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    first, second, new = tabs.all
    assert new.await_data("for bob alone") == ["for bob alone"]
    for tab in (first, second):
        assert tab.await_data("for alice alone") == ["for alice alone"]


def test_module_reconnects_until_a_server_sends_reader_tags_again(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    """In a rolling deploy there are old servers beside new ones."""
    log_in(tabs, alice)
    tab, news = tabs.open(), tabs.open()
    tab.follow("~")
    news.follow("news")
    post(site, "/says-reader", False)
    before = methods(site, "~").count("GET")
    post(site, f"/disconnect/{alice}")
    post(site, "/cut/news")
    until(lambda: methods(site, "~").count("GET") > before + 1, "two more requests")
    publish(site, ("news", "1"))
    assert news.await_data("1") == ["1"], "a public channel goes on"
    assert tab["state"] == "connecting"
    post(site, "/says-reader", True)
    until(lambda: tab["state"] == "open", "the stream")
    publish_to(site, alice, "1")
    assert (tab.await_data("1"), tab["changes"]) == (["1"], 0)
    post(site, "/says-reader", False)
    log_in(tabs, bob)
    post(site, f"/disconnect/{alice}")
    publish_to(site, bob, "for bob alone")
    post(site, "/says-reader", True)
    await_change(tab)
    assert tab.data() == ["1"]


def test_module_reader_stays_the_same_while_the_secret_key_rotates(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    reader = {"X-Reader": alice}
    tabs.open().follow("~", headers=reader)
    steps = [["new", SECRET], [SECRET], ["new", SECRET], ["new"]]  # some of the processes are old ones for a while
    for number, secrets in enumerate(steps):
        post(site, "/secrets", secrets)
        await_next_stream(site, alice)
        if secrets[-1] == SECRET:
            tabs.open().follow("~", headers=reader)
        assert streams(site, alice) == 1, "tabs share it"
        publish_to(site, alice, f"{number}")
        for tab in tabs.all:
            assert (tab.await_data(f"{number}")[-1], tab["changes"]) == (f"{number}", 0)
    tabs.all[0].follow("~", name="second", headers={"X-Reader": bob})
    await_change(tabs.all[0])


def test_module_readers_are_distinguished_without_a_secret_key(tabs: Tabs, alice: str, bob: str) -> None:
    """An app whose users log in by a token in a cookie, for example, needs no secret key."""
    with Server("gevent", APP, env={"CONFIG": '{"SECRET_KEY": null}'}) as site:
        for _ in range(2):
            tabs.open(site).page.evaluate(
                """(name) => {
                    window.reader = name;
                    follow({ name: "first", channels: ["~"], options: { headers: () => ({ "X-Reader": reader }) } });
                }""",
                alice,
            )
        for tab in tabs.all:
            await_open(tab)
        assert streams(site, alice) == 1
        for tab in tabs.all:
            tab.page.evaluate("(name) => (window.reader = name)", bob)
        post(site, f"/disconnect/{alice}")
        for tab in tabs.all:
            await_change(tab)
        assert (streams(site, alice), streams(site, bob)) == (0, 0)
        site.kill()


def test_module_share_option_lets_tabs_of_a_server_without_reader_tags_share(
    tabs: Tabs, site: Server, alice: str
) -> None:
    post(site, "/says-reader", False)
    for _ in range(2):
        tabs.open().follow("~", headers={"X-Reader": alice}, share=alice)
    assert streams(site, alice) == 1


def test_reader_tag_is_stable_for_one_reader_and_differs_for_others() -> None:
    tags = [tag_reader("alice", "a secret"), tag_reader("bob", "a secret"), tag_reader("alice", b"another")]
    assert tag_reader("alice", b"a secret") == tags[0]
    assert len(set(tags)) == 3
    assert {len(tag) for tag in tags} == {16}
    assert tag_reader("alice", "new", ["a secret", b"another"]) == f"{tag_reader('alice', 'new')}.{tags[0]}.{tags[2]}"
    assert tag_reader("al\xefce \u20ac", "a secret").isascii()
    assert tag_reader(None, "a secret") == tag_reader(None, None) == "-"
    without = [tag_reader("alice", None), tag_reader("alice", ""), tag_reader("bob", None)]
    assert without[0] == without[1] != without[2]


def test_head_request_returns_reader_tags_and_opens_no_stream(site: Server, alice: str) -> None:
    before = get(site, "/state")["opened"]
    path = f"/events?channel=news&channel=~&channel=lobby&channel=mine-{alice}"
    with connected(site, path, method="HEAD", headers={"X-Reader": alice}) as client:
        assert client.response.status == 200
        head = client.response.headers
    assert get(site, "/state")["opened"] == before
    with connected(site, path, headers={"X-Reader": alice}) as client:
        assert client.response.headers["SSE-Reader"] == head["SSE-Reader"]
        names = ("Content-Type", "Cache-Control", "X-Accel-Buffering", "Content-Length")
        assert [client.response.headers[name] for name in names] == [head[name] for name in names]
    tag = tag_reader(alice, SECRET)
    assert head["SSE-Reader"] == f"- {tag} - {tag}"
    with connected(site, path, method="HEAD") as client:
        assert (client.response.status, client.response.headers["SSE-Reader"]) == (403, None)


def test_reader_tags_are_exposed_to_listed_origins() -> None:
    app = Flask(__name__)
    app.config["SSE_CORS_ORIGINS"] = ["https://app.example.com"]
    sse = SSE(app)
    sse.channel("news", public=True)
    app.register_blueprint(sse.blueprint)
    shown = []
    for headers in ({"Origin": "https://app.example.com"}, {}):
        with app.test_client().head("/events?channel=news", headers=headers) as response:
            assert response.headers["SSE-Reader"] == "-"
            shown.append(response.headers.get("Access-Control-Expose-Headers"))
    assert shown == ["SSE-Reader", None]
