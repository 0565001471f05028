"""No method of HTTP gets around the rule of a channel."""

from __future__ import annotations

import pytest

from tests.security.attempts import Attempt, World, check_attempt

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
