"""No method of HTTP, no ``Last-Event-ID`` and no ``Origin`` gets around the rule of a channel."""

from __future__ import annotations

import pytest

from tests.security.attempts import EVIL, LISTED, Attempt, World, check_attempt, on_gevent, on_gthread

METHODS = [
    *(
        Attempt(f"{method} of what is forbidden", "/events/secret", status, method=method)
        for method, status in [
            ("HEAD", 403), ("OPTIONS", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405), ("PATCH", 405),
            ("TRACE", 405), ("CONNECT", 405), ("PROPFIND", 405), ("FROBNICATE", 405), ("get", 400),
        ]
    ),
    *(
        Attempt(f"{method} of what is allowed", "/events/news", status, method=method)
        for method, status in [("HEAD", 200), ("OPTIONS", 200), ("PUT", 405), ("TRACE", 405)]
    ),
    Attempt("HEAD without a session", "/events/secret", 403, method="HEAD", user=""),
    Attempt("HEAD by bob", "/events/secret", 200, method="HEAD", user="bob"),
    *(
        Attempt(f"a GET that {header} would change to {to}", "/events/secret", 403, headers=(f"{header}: {to}",))
        for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
        for to in ("OPTIONS", "POST")
    ),
    Attempt("a POST that is to be a GET", "/events/secret?_method=GET", 405, method="POST"),
]  # fmt: skip


@pytest.mark.parametrize("attempt", METHODS, ids=lambda attempt: attempt.tried)
def test_attempt_by_method_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)


REPLAYS = [
    Attempt(f"the id of another's event{tried}, {how}", target, 200, headers=headers)
    for tried, value in [
        ("", "{secret}"),
        (" in another's own channel", "{private}"),
        ("s", "{secret},{private}"),
        (" and more", "{secret}%0d%0adata:%20injected%0d%0a%0d%0a"),
    ]
    for channel in ("news", "~")
    for how, target, headers in [
        (f"in the header for {channel}", f"/events/{channel}", (f"Last-Event-ID: {value}",)),
        *(
            (f"in {name} for {channel}", f"/events/{channel}?{name}={value}", ())
            for name in ("last_event_id", "lastEventId", "evs_last_event_id")
        ),
    ]
] + [
    Attempt("an id that is before everything", "/events/news?last_event_id=0-0", 200),
    Attempt("an id of another's channel", "/events/secret", 403, headers=("Last-Event-ID: {secret}",)),
    Attempt("a bare CR in an id", "/events/news", 400, headers=("Last-Event-ID: a\rX-Injected: 1",)),
    Attempt("a NUL in an id", "/events/news", 400, headers=("Last-Event-ID: a\0",)),
    Attempt("a very long id", "/events/news", 200, headers=("Last-Event-ID: " + "9" * 10_000,)),
    Attempt("an id of many commas", "/events/news", 200, headers=("Last-Event-ID: " + "{secret}," * 200,)),
]


@on_gevent
@pytest.mark.parametrize("attempt", REPLAYS, ids=lambda attempt: attempt.tried)
def test_attempt_by_event_id_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)


def from_page(tried: str, status: int, *headers: str, path: str = "/events/secret", user: str = "bob") -> Attempt:
    return Attempt(
        f"a page {tried}", path, status, user, headers=headers, reaches=status == 200, absent="Access-Control"
    )


#: Which origins may read is in ``inprocess/access/test_cors.py``; these show that servers change nothing of it.
ORIGINS = [
    from_page("of another site", 403, EVIL),
    from_page("of another site that says it is same-site", 403, EVIL, "Sec-Fetch-Site: same-site"),
    from_page("of no site", 403, "Origin: null"),
    Attempt("a page of no site by HEAD", "/events/secret", 403, "bob", "HEAD", headers=("Origin: null",)),
    from_page("of ours, and of another site", 403, "Origin: http://127.0.0.1:{port}", EVIL),
    from_page("of ours", 200, "Origin: http://127.0.0.1:{port}"),
    from_page("of ours with alice's cookie", 403, "Origin: http://127.0.0.1:{port}", user="alice"),
    from_page("that is not listed", 403, EVIL, path="/listed/events/secret"),
    Attempt("a page that is listed", "/listed/events/secret", 200, user="bob", headers=(LISTED,), reaches=True,
            present=("Access-Control-Allow-Origin: https://listed.example", "Access-Control-Allow-Credentials: true")),
    Attempt("a page of any site with a cookie", "/anyone/events/open", 403, user="bob", headers=(EVIL,),
            absent="Access-Control-Allow-Credentials"),
    Attempt("a page of any site without a cookie", "/anyone/events/open", 200, user="", headers=(EVIL,),
            present=("Access-Control-Allow-Origin: *",), absent="Access-Control-Allow-Credentials"),
    Attempt("a preflight of what is not listed", "/listed/events/secret", 403, user="", method="OPTIONS",
            headers=(EVIL, "Access-Control-Request-Method: GET"), absent="Access-Control"),
]  # fmt: skip


@on_gthread
@pytest.mark.parametrize("attempt", ORIGINS, ids=lambda attempt: attempt.tried)
def test_attempt_by_origin_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)
