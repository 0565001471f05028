"""The decoder of the browser module reads streams that are cut anywhere as the one in Python does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from flask_sse_emitters.testing import decode
from tests.support.servers import Server

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

FIELDS = st.sampled_from(["data", "event", "id", "retry", "", "other", "data ", "\ufeffdata"])
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\u2028\x85\x0b\0 :"), max_size=8)
LINES = st.tuples(FIELDS, st.sampled_from(["", ":", ": ", ":  "]), TEXTS).map("".join) | st.just("")
ENDS = st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n"])
BLOCKS = st.lists(st.tuples(LINES, ENDS).map("".join), max_size=12).map("".join)
STREAMS = st.tuples(st.sampled_from(["", "\ufeff"]), BLOCKS).map("".join)


@pytest.fixture(scope="module")
def page(browser: Browser, site: Server) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(f"{site.url}/page")
    page.wait_for_function("() => !!window.follow")
    yield page
    page.close()


def cut(stream: bytes, places: list[int]) -> list[list[int]]:
    """Cut a stream into pieces, each a list of byte values."""
    inner = {place for place in places if place < len(stream)}
    return [list(stream[start:end]) for start, end in pairwise(sorted({0, len(stream)} | inner))]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(STREAMS, st.binary(max_size=3), st.lists(st.integers(0, 200)) | st.just(list(range(200)))),
        min_size=10,
        max_size=20,
    )
)
@example([("\ufeffdata: a\r\ndata: b\u20ac\r\n\r\ndata: c\r\r", b"", list(range(200)))])
def test_module_decodes_streams_cut_anywhere_as_the_python_decoder_does(
    page: Page, streams: list[tuple[str, bytes, list[int]]]
) -> None:
    whole = [text.encode() + broken + b"\n\n" for text, broken, _ in streams]
    pieces = [cut(stream, places) for stream, (_, _, places) in zip(whole, streams, strict=True)]
    expected = [[[each.event or "message", each.data, each.id] for each in decode(stream)] for stream in whole]
    assert page.evaluate("streams => streams.map(decode)", pieces) == expected
