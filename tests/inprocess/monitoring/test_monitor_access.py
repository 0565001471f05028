"""Who may open the monitor, and how its page is protected in a browser."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.exceptions import NotFound

from flask_sse_emitters import AccessDenied
from flask_sse_emitters.testing import published
from tests.support.monitored import MONITOR, TEST_EVENT, make_app, open_app

#: Every endpoint.
REQUESTS = [("GET", "/"), ("GET", ""), ("GET", "/stream"), ("GET", "/static/monitor.js"), ("POST", "/publish")]


#: Their answers where the monitor is open.
OPEN = {200, 201, 308}


def statuses(client: FlaskClient, environ: dict[str, str] | None = None) -> set[int]:
    """Return the status codes of all endpoints."""
    found = set()
    for method, path in REQUESTS:
        body = TEST_EVENT if method == "POST" else None
        with client.open(f"{MONITOR}{path}", method=method, json=body, environ_overrides=environ) as response:
            found.add(response.status_code)
    return found


def test_monitor_is_denied_by_default_at_every_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app()
    with caplog.at_level(logging.DEBUG, "flask_sse_emitters"):
        assert statuses(app.test_client()) == {403}
        with app.test_client().get(f"{MONITOR}/") as response:
            assert response.get_data(as_text=True) == "Forbidden\n"
    said = [record.levelname for record in caplog.records if "@sse.monitor_access" in record.getMessage()]
    assert said.count("WARNING") == 1
    assert said.count("DEBUG") == len(REQUESTS) + 1


@pytest.mark.parametrize(
    "environ",
    [
        *(
            {"HTTP_HOST": host, "HTTP_ORIGIN": f"http://{host}"}
            for host in ("localhost:5000", "LOCALHOST", "shop.localhost", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000")
        ),
        *({"REMOTE_ADDR": address} for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")),
    ],
    ids=str,
)
def test_monitor_in_debug_mode_is_open_at_this_machine(environ: dict[str, str]) -> None:
    app, _ = make_app()
    app.debug = True
    assert statuses(app.test_client(), environ) == OPEN


#: Names that an attacker's DNS may give to this machine, or that are no names of it.
REBOUND = """
    rebound.example rebound.example:5000 localhost.rebound.example notlocalhost 127.0.0.1.rebound.example 128.0.0.1
    192.168.1.7:5000 [::2]
"""


@pytest.mark.parametrize(
    "environ",
    [
        *(
            {"HTTP_HOST": host, "HTTP_ORIGIN": f"http://{host}", "HTTP_SEC_FETCH_SITE": "same-origin"}
            for host in (*REBOUND.split(), "")
        ),
        *(
            {"REMOTE_ADDR": address}
            for address in ("192.168.1.7", "172.17.0.1", "::ffff:192.168.1.7", "fe80::1%eth0", "", "unix:")
        ),
        {"HTTP_X_FORWARDED_FOR": "192.168.1.7"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_FORWARDED": "for=192.168.1.7"},
        {"HTTP_X_FORWARDED_HOST": "localhost"},
        {"HTTP_X_REAL_IP": "192.168.1.7"},
        {"HTTP_VIA": "1.1 proxy"},
        {"HTTP_X_FORWARDED_PROTO": "https"},
        {"SERVER_PROTOCOL": "HTTP/1.0"},  # as nginx's "proxy_pass http://localhost:5000;" sends by default
    ],
    ids=str,
)
def test_monitor_in_debug_mode_denies_rebound_names_remotes_and_proxies(environ: dict[str, str]) -> None:
    app, sse = make_app()
    app.debug = True
    client = app.test_client()
    with published(sse, "orders", "~bob") as events:
        assert statuses(client, environ) == {403}
    assert events == []
    with client.get(f"{MONITOR}/", environ_overrides=environ) as response:
        assert "@sse.monitor_access" in response.get_data(as_text=True)
    sse.monitor_access(lambda: True)
    assert statuses(client, environ) == OPEN, "if there is a rule, it decides"


def test_monitor_access_rule_decides_for_every_endpoint() -> None:
    app, sse = make_app()
    answers = [True]
    sse.monitor_access(lambda: answers[0])
    assert statuses(app.test_client()) == OPEN
    answers[0] = False
    for app.debug in (False, True):
        assert statuses(app.test_client()) == {403}, "if there is a rule, it decides"


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        (ZeroDivisionError("the database is away"), 403, "ZeroDivisionError('the database is away')"),
        (NotFound(), 403, "404 Not Found"),
        (AccessDenied("please log in", challenge="Basic"), 401, "please log in"),
        (None, 403, "returned None"),
        ("yes", 403, "returned 'yes'"),
        (1, 403, "returned 1"),
    ],
)
def test_monitor_access_rule_denies_with_reason_in_debug_mode_only(result: Any, status: int, reason: str) -> None:
    app, sse = make_app()

    @sse.monitor_access
    def may_monitor() -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    for debug in (False, True):
        app.debug = debug
        with app.test_client().get(f"{MONITOR}/") as response:
            assert response.status_code == status
            assert response.content_type.startswith("text/plain")
            assert (reason in response.get_data(as_text=True)) is debug
            assert response.headers.get("WWW-Authenticate") == ("Basic" if status == 401 else None)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "https://listed.example", "null"])
def test_monitor_denies_other_origins_even_if_cors_allows_channels(origin: str) -> None:
    app, sse = open_app(SSE_CORS_ORIGINS=["https://listed.example"])
    with published(sse, "orders") as events:
        assert statuses(app.test_client(), {"HTTP_ORIGIN": origin}) == {403}
    assert events == []
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert app.test_client().options(f"{MONITOR}/publish", headers=headers).status_code == 403
    assert statuses(app.test_client(), {"HTTP_ORIGIN": "http://localhost"}) == OPEN


def test_monitor_page_opens_by_cross_site_link_but_no_other_endpoint() -> None:
    app, _ = open_app()
    client = app.test_client()
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    def status(method: str, path: str, **changed: str) -> int:
        headers = {**link, **changed}
        with client.open(f"{MONITOR}{path}", method=method, json=TEST_EVENT, headers=headers) as response:
            return response.status_code

    assert [status(*request) for request in REQUESTS] == [200, 308, 403, 403, 403]
    assert status("GET", "/", **{"Sec-Fetch-Dest": "iframe"}) == 403
    assert status("GET", "/", **{"Sec-Fetch-Mode": "no-cors"}) == 403
    assert status("GET", "/", Origin="null") == 403
    assert status("GET", "/stream", **{"Sec-Fetch-Site": "none"}) == 200


def test_monitor_page_policy_forbids_foreign_content_and_framing() -> None:
    app, _ = open_app()
    with app.test_client().get(f"{MONITOR}/") as response:
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store"
        assert "<style" not in response.get_data(as_text=True)
        assert " style=" not in response.get_data(as_text=True)


def test_monitor_page_without_slash_redirects_relatively_behind_prefix() -> None:
    app, _ = open_app()
    response = app.test_client().get(MONITOR, base_url="http://localhost/some/prefix")
    assert (response.status_code, response.headers["Location"]) == (308, "sse-monitor/")
