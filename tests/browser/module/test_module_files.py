"""The files of the browser module: who gets them, and the scripts of the documentation that use them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flask_sse_emitters.testing import open_stream
from tests.apps.browser.browser_module import app, sse
from tests.browser.module.tabs import STATIC, Tabs
from tests.project.docs.docs_blocks import blocks_of, modules_of
from tests.support.client import connected, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]


def test_module_scripts_of_the_documentation_receive_their_events(tabs: Tabs, tmp_path: Path) -> None:
    blocks = blocks_of(ROOT / "docs" / "browser.rst")
    scripts = [block.text for block in blocks if "subscribe(" in block.text]
    (tmp_path / "app.py").write_text(modules_of(blocks)["app.py"])
    with Server("gevent", "app:app", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as site:
        for number, script in enumerate(scripts):
            before, after = ({"number": f"{number} {which}"} for which in ("before", "after"))
            post(site, "/orders", before)
            page = tabs.context.new_page()
            page.add_init_script("window.sent = []; console.log = (...words) => sent.push(JSON.stringify(words));")
            page.goto(f"{site.url}/orders")
            page.add_script_tag(content=script + "\nwindow.live = live;", type="module")
            page.wait_for_function("() => window.live?.state === 'open'")
            post(site, "/orders", after)
            expected = f"{number} after"
            until(lambda: [text for text in page.evaluate("sent") if expected in text], expected)  # noqa: B023
            page.close()
    assert len(scripts) == 2


def test_module_file_is_served_and_takes_no_channel_name(site: Server) -> None:
    with connected(site, "/events/static/sse-emitters.js") as client:
        assert client.response.status == 200
        assert re.match("(text|application)/javascript(;|$)", client.response.headers["Content-Type"])
        assert client.response.headers["Cache-Control"] == "no-cache"
        assert client.rest() == (STATIC / "sse-emitters.js").read_bytes()
        tag = client.response.headers["ETag"]
    with connected(site, "/events/static/sse-emitters.js", headers={"If-None-Match": tag}) as client:
        assert client.response.status == 304
    with connected(site, "/events/static/none.js") as client:
        assert client.response.status == 404
    with open_stream(app.test_client(), "/events?channel=static/sse-emitters.js") as stream:
        sse.publish("static/sse-emitters.js", "an event")
        assert [event.data for event in stream.ready()] == ["an event"]
