"""The npm package: its files, its types, and components of React and Vue in pages that Vite has built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version
from playwright.sync_api import expect

from tests.browser.module.tabs import STATIC, Tabs
from tests.browser.npm.npm_package import Shown, build_pages, check_types, opened, project, run
from tests.support.client import new_name
from tests.support.programs import program
from tests.support.servers import ROOT
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with project() as folder:
        yield folder


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    return build_pages(folder)


@pytest.fixture(params=["react", "vue"])
def page(request: pytest.FixtureRequest, tabs: Tabs, built: Path) -> Iterator[Shown]:
    """A page of each framework, in which no error may come up. React's is in StrictMode."""
    shown = opened(tabs.context, built, tabs.site, request.param)
    errors: list[str] = []
    shown.page.on("pageerror", lambda error: errors.append(str(error)))
    shown.page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
    yield shown
    assert [error for error in errors if "403" not in error] == [], "but for the browser's own line on a refusal"


def test_npm_package_has_the_served_modules_with_types(folder: Path) -> None:
    package = folder / "node_modules" / "flask-sse-emitters"
    described = json.loads((package / "package.json").read_text())
    assert {path.name for path in package.iterdir()} == {"LICENSE", "README.md", "dist", "package.json"}
    assert "dependencies" not in described
    config = (ROOT / "setup.cfg").read_text()
    assert f"\nversion = {Version(described['version'])}\n" in config, "1.0.0-rc.1 is npm's way to write 1.0.0rc1"
    for exported in described["exports"].values():
        for target in exported.values() if isinstance(exported, dict) else [exported]:
            assert (package / target).exists(), target
    for served in STATIC.iterdir():
        assert (package / "dist" / served.name).read_bytes() == served.read_bytes()
        assert (package / "dist" / served.name).with_suffix(".d.ts").exists()
    for source in (ROOT / "npm" / "src").iterdir():
        assert "flask_sse_emitters/" not in (package / "dist" / source.name).read_text()


def test_npm_package_types_pass_a_strict_compiler(folder: Path) -> None:
    """And the scripts of the documentation."""
    check_types(folder)


def test_npm_hooks_where_a_server_renders_the_page_subscribe_to_nothing(folder: Path) -> None:
    said = run(folder, program("node", "nodejs"), folder / "server.mjs")
    assert json.loads(said) == ["<p>connecting</p>", "<p>connecting</p>", 0]


def test_npm_components_share_one_connection_and_each_get_all_events(page: Shown, tabs: Tabs) -> None:
    channel = new_name()
    page.show(3, channel)
    expect(page.all("output")).to_have_text(["open"] * 3)
    assert (tabs.connections(channel), len(tabs.requests(channel, "HEAD"))) == (1, 1)
    tabs.publish(*((channel, f"{number}") for number in range(4)))
    for number in range(3):
        expect(page.events(number)).to_have_text(["1", "2", "3"])  # the newest three
    assert sorted(page.notes) == sorted(f" {number}" for number in range(4) for _ in range(3))


def test_npm_component_that_goes_ends_its_part_alone(page: Shown, tabs: Tabs) -> None:
    channel = new_name()
    page.show(2, channel)
    expect(page.all("output")).to_have_text(["open"] * 2)
    page.show(1, channel)
    tabs.publish((channel, "first"))
    expect(page.events()).to_have_text(["first"])
    page.show(0, channel)
    until(lambda: tabs.connections(channel) == 0, "the connection to end")
    tabs.publish((channel, "for nobody"))
    page.show(1, channel)
    expect(page.all("output")).to_have_text(["open"])
    expect(page.events()).to_have_count(0)
    tabs.publish((channel, "second"))
    expect(page.events()).to_have_text(["second"])
    assert page.notes == [" first", " second"]


@pytest.mark.parametrize("page", ["react"], indirect=True)
def test_npm_component_of_react_in_strict_mode_asks_once(page: Shown, tabs: Tabs) -> None:
    channel = new_name()
    page.show(1, channel)
    expect(page.all("output")).to_have_text(["open"])
    assert page.page.evaluate("mounts") == 2, "it was mounted twice"
    assert (len(tabs.requests(channel, "HEAD")), len(tabs.requests(channel))) == (1, 1)


def test_npm_component_shows_a_gap_and_then_what_is_kept(page: Shown, tabs: Tabs) -> None:
    channel = new_name()
    tabs.publish((channel, "kept"))
    page.show(1, channel, since={channel: "unknown-1"})
    expect(page.all("i")).to_have_text(["1"])
    expect(page.events()).to_have_text(["kept"])


def test_npm_component_of_a_former_reader_shows_no_events_any_more(
    page: Shown, tabs: Tabs, alice: str, bob: str
) -> None:
    tabs.log_in(alice)
    page.show(1, "~", login=alice)
    expect(page.all("output")).to_have_text(["open"])
    tabs.publish_to(alice, "for alice")
    expect(page.events()).to_have_text(["for alice"])
    tabs.log_in(bob)
    tabs.disconnect(alice)
    expect(page.all("output")).to_have_text(["closed"])
    expect(page.events()).to_have_count(0)
    page.show(1, "~", login=bob)
    expect(page.all("output")).to_have_text(["open"])
    tabs.publish_to(alice, "for alice alone")
    tabs.publish_to(bob, "for bob")
    expect(page.events()).to_have_text(["for bob"])
    assert page.notes == [" for alice", "another reader", " for bob"]


def test_npm_component_that_changes_reads_anew_only_where_it_must(page: Shown, tabs: Tabs) -> None:
    """Another callback is called from then on; other channels are subscribed to; no channel is none."""
    first, second = new_name(), new_name()
    page.show(1, first, label="old")
    expect(page.all("output")).to_have_text(["open"])
    page.show(1, first, label="new")
    tabs.publish((first, "1"))
    expect(page.events()).to_have_text(["1"])
    assert (page.notes, len(tabs.requests(first, "HEAD"))) == (["new 1"], 1)
    page.show(1, second)
    expect(page.events()).to_have_count(0)
    expect(page.all("output")).to_have_text(["open"])
    tabs.publish((first, "unwanted"), (second, "2"))
    expect(page.events()).to_have_text(["2"])
    assert page.notes == ["new 1", " 2"]
    page.show(1)
    expect(page.all("output")).to_have_text(["closed"])
    expect(page.events()).to_have_count(0)
    until(lambda: tabs.connections(second) == 0, "the connection to end")


def test_npm_component_shows_a_name_alone_a_refusal_and_forgets(page: Shown, tabs: Tabs) -> None:
    channel = new_name()
    page.show(1, channel, f"closed-{channel}")
    expect(page.all("em")).to_have_text(["403"])
    expect(page.all("output")).to_have_text(["open"])
    tabs.post("/publish", [{"channel": channel, "data": name, "event": name} for name in ("created", "changed")])
    expect(page.events()).to_have_text(["created", "changed"])
    expect(page.all("b")).to_have_text(["created"])
    page.all("button").click()
    expect(page.events()).to_have_count(0)
