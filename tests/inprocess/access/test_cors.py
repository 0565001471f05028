"""Pages of other origins: which may read by ``SSE_CORS_ORIGINS``, and what preflights are answered."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Response

from flask_sse_emitters import SseEmitter
from tests.support.board import Board, by_header

OWN, LISTED, FOREIGN = "http://localhost", "https://app.example", "https://evil.example"


@pytest.mark.parametrize(
    ("origins", "headers", "status", "allowed", "credentials"),
    [
        ((), {}, 200, None, None),
        ((), {"Origin": OWN}, 200, None, None),
        ((), {"Origin": "https://localhost"}, 200, None, None),
        ((), {"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"}, 200, None, None),
        ((), {"Origin": FOREIGN}, 403, None, None),
        ((), {"Origin": FOREIGN, "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Origin": "http://localhost:81"}, 403, None, None),
        ((), {"Origin": "null"}, 403, None, None),
        ((), {"Origin": "file://"}, 403, None, None),
        ((), {"Origin": "http://localhost.evil.example"}, 403, None, None),
        ((), {"Origin": "http://evillocalhost"}, 403, None, None),
        ((), {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-site", "Cookie": "a=b"}, 403, None, None),
        ((), {"Origin": OWN, "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ((), {"Origin": OWN, "Sec-Fetch-Site": "none"}, 200, None, None),
        ((LISTED,), {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}, 200, LISTED, "true"),
        ((LISTED,), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 403, None, None),
        ("*", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, 200, "*", None),
        ("*", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site", "Cookie": "a=b"}, 403, "*", None),
        ((), {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"}, 200, None, None),
        ((), {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}, 200, None, None),
        ((LISTED,), {}, 200, None, None),
        ((LISTED,), {"Origin": LISTED}, 200, LISTED, "true"),
        ((LISTED,), {"Origin": LISTED, "Cookie": "a=b"}, 200, LISTED, "true"),
        ((LISTED,), {"Origin": FOREIGN}, 403, None, None),
        ((LISTED,), {"Origin": "http://app.example"}, 403, None, None),
        ((LISTED,), {"Origin": LISTED + ".evil.example"}, 403, None, None),
        ((LISTED,), {"Origin": "https://evil-app.example"}, 403, None, None),
        ((LISTED,), {"Origin": "null"}, 403, None, None),
        (LISTED, {"Origin": LISTED}, 200, LISTED, "true"),
        (["HTTPS://App.Example:443"], {"Origin": LISTED}, 200, LISTED, "true"),
        ("*", {}, 200, "*", None),
        ("*", {"Origin": FOREIGN}, 200, "*", None),
        ("*", {"Origin": "null"}, 200, "*", None),
        ("*", {"Origin": FOREIGN, "Cookie": "a=b"}, 403, "*", None),
        ("*", {"Origin": OWN, "Cookie": "a=b"}, 200, "*", None),
    ],
)
def test_cors_origins_decide_which_pages_may_read_and_send_cookies(
    origins: Any, headers: dict[str, str], status: int, allowed: str | None, credentials: str | None
) -> None:
    board = Board(SSE_CORS_ORIGINS=origins)
    with board.app.test_client(use_cookies=False).get("/events/a", headers=headers) as response:
        assert response.status_code == status
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert response.headers.get("Access-Control-Allow-Credentials") == credentials
        assert response.headers.getlist("Vary").count("Origin") == (origins not in ((), "*"))
    assert board.sse.stats()["opened"] == (status == 200)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [((LISTED,), LISTED, 204), ("*", FOREIGN, 204), ((), FOREIGN, 403), ((LISTED,), "null", 403)],
)
def test_cors_preflight_lists_allowed_methods_and_headers(origins: Any, origin: str, status: int) -> None:
    board = Board(None, SSE_CORS_ORIGINS=origins)
    asks = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    for publishes in (False, True):
        response = board.client.options("/events/a", headers=asks)
        assert response.status_code == status
        assert response.headers.get("Access-Control-Allow-Origin") == (None if status == 403 else origins[0])
        if status == 204:
            names = response.headers["Access-Control-Allow-Headers"].split(", ")
            assert {"Authorization", "Last-Event-ID"} <= set(names)
            assert ("POST" in response.headers["Access-Control-Allow-Methods"]) is publishes
        board.sse.publisher(by_header)
    response = board.client.options("/events/a")
    assert (response.status_code, response.headers["Allow"]) == (200, "GET, HEAD, OPTIONS, POST")


def test_cors_headers_of_a_views_stream_can_be_replaced_by_the_view() -> None:
    board = Board(None, SSE_CORS_ORIGINS=[LISTED])
    custom: dict[str, str] = {}

    @board.app.get("/mine")
    def mine() -> Response:
        return SseEmitter().response(headers=custom)

    with board.get("/mine", Origin=LISTED) as response:
        assert response.headers["Access-Control-Allow-Origin"] == LISTED
    custom["Access-Control-Allow-Origin"] = "https://other.example"
    with board.get("/mine", Origin=LISTED) as response:
        assert response.headers.getlist("Access-Control-Allow-Origin") == ["https://other.example"]
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    "origins",
    [["*", LISTED], ["app.example"], ["https://app.example/"], ["https://a b"], [7], 7, "", ["null"], ["https://*"]],
)
def test_cors_origins_setting_that_is_invalid_is_rejected(origins: Any) -> None:
    with pytest.raises(ValueError, match="SSE_CORS_ORIGINS must be"):
        Board(None, SSE_CORS_ORIGINS=origins)


def test_cors_treats_http_and_https_as_different_origins() -> None:
    client = Board().app.test_client()
    for origin, status in (("http://localhost", 403), ("https://localhost", 200)):
        with client.get("/events/a", base_url="https://localhost", headers={"Origin": origin}) as response:
            assert response.status_code == status
