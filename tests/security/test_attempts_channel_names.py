"""No spelling of a channel, and no request for several, gives a reader more than its rule allows."""

from __future__ import annotations

import pytest

from tests.security.attempts import ASKED_BY_BOB, FORGED, Attempt, World, check_attempt, on_gevent


def spelt(tried: str, spelling: str, in_path: int = 400, in_query: int = 400) -> list[Attempt]:
    return [
        Attempt(f"{tried}, in the path", f"/events/{spelling}", in_path),
        Attempt(f"{tried}, in the query", f"/events?channel={spelling}", in_query),
        Attempt(f"{tried}, after an allowed one", f"/events?channel=news&channel={spelling}", in_query),
    ]


SPELLINGS = [
    *spelt("its own name", "secret", 403, 403),
    *spelt("an unknown channel", "no-such-channel", 403, 403),
    *spelt("the sibling of an allowed one", "team/b", 403, 403),
    *spelt("what an allowed one begins with", "team", 403, 403),
    *spelt("what begins with an allowed one", "news/secret", 403, 403),
    *spelt("an allowed one in capitals", "NEWS", 403, 403),
    *spelt("a capital", "Secret", 403, 403),
    *spelt("a quoted letter", "%73ecret", 403, 403),
    *spelt("a letter quoted twice", "%2573ecret"),
    *spelt("a quoted slash", "team%2Fb", 403, 403),
    *spelt("a slash before it", "/secret", 404, 403),
    *spelt("a quoted slash before it", "%2Fsecret", 404, 403),
    *spelt("a slash after it", "secret/", 403, 403),
    *spelt("a way up", "news/../secret", 403, 403),
    *spelt("a way up, all quoted", "%2e%2e%2fsecret", 403, 403),
    *spelt("a way up with backslashes", "news%5C..%5Csecret"),
    *spelt("two slashes", "team//b", 403, 403),
    *spelt("an overlong slash", "team%C0%AFb"),
    *spelt("half a character", "secret%C3"),
    *spelt("a surrogate", "secret%ED%A0%80"),
    *spelt("a quote that is none", "%zzsecret"),
    *spelt("a byte order mark", "%EF%BB%BFsecret"),
    *spelt("a fullwidth letter", "%EF%BD%93ecret"),
    *spelt("a long s", "%C5%BFecret"),
    *spelt("bytes that are not ASCII", "s\u00e9cret"),
    *spelt("a NUL and more", "secret%00.news"),
    *spelt("a space after it", "secret%20"),
    *spelt("a plus after it", "secret+"),
    *spelt("a line end after it", "secret%0A", 404),
    *spelt("parameters of a path", "secret;a=b"),
    *spelt("two names with a comma", "news,secret"),
    *spelt("a wildcard", "*"),
    *spelt("a pattern", "secre?", 403, 400)[:1],
    *spelt("a very long name", "secret" * 50),
    *spelt("another reader's private channel", "~bob"),
    *spelt("another reader's private channel, quoted", "%7Ebob"),
    *spelt("another reader's private channel with a slash", "~/bob"),
    *spelt("the private channel with a line end", "~%0A", 404),
    *spelt("the revocation channel", "!revoked"),
    *spelt("a header that is injected", "news%0D%0AX-Injected:%201%0D%0A%0D%0Adata:%20injected", 404),
]

FORM = ("Content-Type: application/x-www-form-urlencoded", "Content-Length: 14")
SEVERAL = [
    Attempt("a forbidden one before an allowed one", "/events?channel=secret&channel=news", 403),
    Attempt("a forbidden one among allowed ones", "/events?channel=news&channel=secret&channel=open", 403),
    Attempt("a forbidden one after a public one", "/events?channel=open&channel=secret", 403, user=""),
    Attempt("a forbidden one after the private channel", "/events?channel=~&channel=secret", 403),
    Attempt("a forbidden one in the query of an allowed one", "/events/news?channel=secret", 403),
    Attempt("an allowed one in the query of a forbidden one", "/events/secret?channel=news", 403),
    Attempt("another reader's private channel beside the own", "/events?channel=~&channel=~bob", 400),
    Attempt("the private channel without a session", "/events?channel=~", 403, user=""),
    Attempt("an allowed one without a session", "/events/news", 403, user=""),
    Attempt("50 channels", "/events?channel=secret&" + "&".join(f"channel=c{n}" for n in range(49)), 403),
    Attempt("an empty channel beside an allowed one", "/events?channel=news&channel=", 400),
    Attempt("a list as PHP has it", "/events?channel[]=secret", 400),
    Attempt("a list as PHP has it beside an allowed one", "/events?channel=news&channel[]=secret", 200),
    Attempt("a parameter of another name", "/events?channel=news&channels=secret&Channel=secret&topic=secret", 200),
    Attempt("parameters that end at semicolons", "/events?channel=news;channel=secret", 400),
    Attempt("a second question mark", "/events?channel=news?channel=secret", 400),
    Attempt("a fragment", "/events/news#/../secret", 200),
    Attempt("two slashes at the beginning", "//events/secret", 403),
    Attempt("a way up from elsewhere", "/stats/../events/secret", 404),
    Attempt("a whole URL", "http://127.0.0.1/events/secret", 403),
    Attempt("a URL of another host", "http://evil.example/events/secret", 403),
    Attempt("a space in the path", "/events/secret x", 400),
    Attempt("a NUL in the path", "/events/secret\0", 400),
    Attempt("a form in the body of a GET", "/events", 400, headers=FORM, body=b"channel=secret"),
    Attempt("a form beside an allowed one", "/events/news", 200, headers=FORM, body=b"channel=secret"),
    Attempt("another path in a header", "/events/news", 200, headers=("X-Original-URL: /events/secret",)),
    Attempt("another user in a header", "/events/secret", 403, headers=("Remote-User: bob", "X-Remote-User: bob")),
    Attempt("another user in two cookies", "/events/secret", 403, headers=("Cookie: session=bob; user=bob",)),
    Attempt("a session that is forged", "/events/secret", 403, user="", headers=(f"Cookie: session={FORGED}",)),
    Attempt("bob himself", f"/events?{ASKED_BY_BOB}", 200, user="bob", reaches=True),
    Attempt("bob himself, one", "/events/secret", 200, user="bob", reaches=True),
    Attempt("bob himself, his own", "/events?channel=~", 200, user="bob", reaches=True),
    Attempt("bob himself, his own in the path", "/events/%7e", 200, user="bob", reaches=True),
]


@on_gevent
@pytest.mark.parametrize("attempt", [*SPELLINGS, *SEVERAL], ids=lambda attempt: attempt.tried)
def test_attempt_by_channel_name_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)
