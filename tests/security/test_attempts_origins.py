"""No page of another site reads with the cookies of a user."""

from __future__ import annotations

import pytest

from tests.security.attempts import EVIL, LISTED, Attempt, World, check_attempt, on_gthread

ORIGINS = [
    Attempt("a page of another site with bob's cookie", "/events/secret", 403, user="bob", headers=(EVIL,)),
    Attempt("a page of no site with bob's cookie", "/events/secret", 403, user="bob", headers=("Origin: null",)),
    Attempt("a page of no site by HEAD", "/events/secret", 403, user="bob", method="HEAD", headers=("Origin: null",)),
    Attempt("a page that says file", "/events/secret", 403, user="bob", headers=("Origin: file://",)),
    Attempt("a page of the same host on another port", "/events/secret", 403, user="bob",
            headers=("Origin: http://127.0.0.1:1",)),
    Attempt("a page of the same host with another scheme", "/listed/events/secret", 403, user="bob",
            headers=("Origin: http://listed.example",), absent="Access-Control"),
    Attempt("a page whose host begins like ours", "/events/secret", 403, user="bob",
            headers=("Origin: http://127.0.0.1:{port}.evil.example",)),
    Attempt("a page whose host ends like ours", "/events/secret", 403, user="bob",
            headers=("Origin: http://evil127.0.0.1:{port}",)),
    Attempt("our page and another", "/events/secret", 403, user="bob",
            headers=("Origin: http://127.0.0.1:{port}", EVIL)),
    Attempt("another site that says it is same-site", "/events/secret", 403, user="bob",
            headers=(EVIL, "Sec-Fetch-Site: same-site")),
    Attempt("our own page", "/events/secret", 200, user="bob", reaches=True,
            headers=("Origin: http://127.0.0.1:{port}",)),
    Attempt("our own page with alice's cookie", "/events/secret", 403, headers=("Origin: http://127.0.0.1:{port}",)),
    Attempt("a page that is listed", "/listed/events/secret", 200, user="bob", headers=(LISTED,), reaches=True,
            present=("Access-Control-Allow-Origin: https://listed.example", "Access-Control-Allow-Credentials: true")),
    Attempt("a page that is listed with alice's cookie", "/listed/events/secret", 403, headers=(LISTED,)),
    Attempt("a page that is not listed", "/listed/events/secret", 403, user="bob", headers=(EVIL,),
            absent="Access-Control"),
    Attempt("a page whose host begins like a listed one", "/listed/events/secret", 403, user="bob",
            headers=("Origin: https://listed.example.evil.example",), absent="Access-Control"),
    Attempt("a page whose host ends like a listed one", "/listed/events/secret", 403, user="bob",
            headers=("Origin: https://evil-listed.example",), absent="Access-Control"),
    Attempt("a page of no site where some are listed", "/listed/events/secret", 403, user="bob",
            headers=("Origin: null",), absent="Access-Control"),
    Attempt("a page of any site with bob's cookie", "/anyone/events/secret", 403, user="bob", headers=(EVIL,),
            absent="Access-Control-Allow-Credentials"),
    Attempt("a page of any site with bob's cookie for what is public", "/anyone/events/open", 403, user="bob",
            headers=(EVIL,), absent="Access-Control-Allow-Credentials"),
    Attempt("a page of any site without cookies", "/anyone/events/secret", 403, user="", headers=(EVIL,)),
    Attempt("a page of any site without cookies for what is public", "/anyone/events/open", 200, user="",
            headers=(EVIL,), present=("Access-Control-Allow-Origin: *",), absent="Access-Control-Allow-Credentials"),
    *(
        Attempt(
            f"a preflight {tried}", f"{site}/events/secret", status, user="", method="OPTIONS",
            headers=(origin, f"Access-Control-Request-Method: {method}", "Access-Control-Request-Headers: x-evil"),
            present=present, absent=absent,
        )
        for tried, site, origin, method, status, present, absent in [
            ("where none is listed", "", EVIL, "GET", 403, (), "Access-Control"),
            ("of what is not listed", "/listed", EVIL, "GET", 403, (), "Access-Control"),
            ("of null", "/listed", "Origin: null", "GET", 403, (), "Access-Control"),
            ("of what is listed", "/listed", LISTED, "GET", 204,
             ("Access-Control-Allow-Origin: https://listed.example",), "X-Injected"),
            ("of anyone", "/anyone", EVIL, "GET", 204, ("Access-Control-Allow-Origin: *",),
             "Access-Control-Allow-Credentials"),
            ("for publishing where none is listed", "/posts", EVIL, "POST", 403, (), "Access-Control"),
        ]
    ),
]  # fmt: skip


@on_gthread
@pytest.mark.parametrize("attempt", ORIGINS, ids=lambda attempt: attempt.tried)
def test_attempt_by_origin_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)
