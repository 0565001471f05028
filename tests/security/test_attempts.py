"""Attempts to read or publish without the right to, on real servers, byte for byte.

Each attempt is sent as it is, unlike what a client would make of it. Secrets are published before it and while it
runs, to all channels of bob; bob reads them, which proves that they went out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flask_sse_emitters.testing import decode
from tests.support.client import connected, get, new_name
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

SITES = ["", "/posts", "/listed", "/anyone", "/limited", "/jwt", "/jwt-anywhere", "/jwt-rsa"]
BOBS = ["secret", "team/b", "~bob"]
OTHERS = ["news", "open", "team/a", "~alice"]
ASKED_BY_BOB = "channel=secret&channel=team/b&channel=~"
KEY = new_name() + new_name()
PUBLISHER = f"Bearer {new_name()}"
BODIES = {401: b"Unauthorized\n", 403: b"Forbidden\n"}
FORGED = "eyJ1c2VyIjoiYm9iIn0.ZzZzZz.c2lnbmF0dXJlIG9mIG5vYm9keSE"  # {"user":"bob"}
EVIL = "Origin: https://evil.example"
LISTED = "Origin: https://listed.example"


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def public_pem() -> str:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token(key: str = KEY, alg: str = "HS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Make a token without PyJWT, which would refuse to make most of these."""
    payload = {
        "sub": "bob",
        "aud": "streams",
        "sse": ["secret", "team/b", "~"],
        "exp": int(time.time()) + 600,
        **claims,
    }
    payload = {name: value for name, value in payload.items() if value is not None}
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": alg, "typ": "JWT", **(header or {})}, payload)]
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.get(alg)
    signature = b"" if digest is None else hmac.digest(key.encode(), ".".join(parts).encode(), digest)
    return ".".join([*parts, _base64(signature)])


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class World:
    """A server, and the cookies of its users."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies = {"alice": self.login("alice"), "bob": self.login("bob")}

    def login(self, user: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)) as connection:
            connection.request("POST", "/login", json.dumps(user), {"Content-Type": "application/json"})
            return (connection.getresponse().getheader("Set-Cookie") or "").partition(";")[0]

    def post(self, path: str, body: Any) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)) as connection:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                return json.loads(response.read())

    def publish(self, site: str, channels: list[str], data: str) -> dict[str, str]:
        found: dict[str, str] = self.post(f"{site}/publish", {"channels": channels, "data": data})
        return found

    def stats(self, site: str) -> dict[str, Any]:
        found: dict[str, Any] = get(self.server, f"{site}/stats")
        return found

    def credentials_of_bob(self, site: str) -> dict[str, str]:
        """Return the headers that bob sends."""
        if site == "/jwt-rsa":
            claims = {"sub": "bob", "aud": "streams", "sse": ["*"]}
            return {"Authorization": f"Bearer {jwt.encode(claims, rsa_key(), 'RS256')}"}
        return {"Authorization": f"Bearer {token()}"} if "jwt" in site else {"Cookie": self.cookies["bob"]}


@pytest.fixture(scope="module", params=["gevent", "gthread"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    secrets = {"session": new_name(), "tokens": KEY, "public": public_pem(), "publisher": PUBLISHER}
    # The most that gunicorn allows, so that what is too long reaches the library.
    limits = ["--limit-request-line", "8190", "--limit-request-field_size", "200000"]
    env = {"SECRETS": json.dumps(secrets)}
    with Server(request.param, "tests.apps.attempts:app", env=env, arguments=limits) as server:
        yield World(server)


@pytest.fixture(autouse=True)
def no_stream_is_left(world: World) -> Iterator[None]:
    logged = len(world.server.log)
    yield
    for site in SITES:
        until(lambda site=site: not world.stats(site)["clients"], f"all clients of {site}/ to be disconnected")  # type: ignore[misc]
        stats = world.stats(site)
        assert (stats["channels"], stats["owned"]) == ({}, 0), site
    assert "Traceback" not in world.server.log[logged:]


class Outsider:
    """Sends bytes, and keeps all that it receives."""

    def __init__(self, world: World, sent: bytes, buffer: int = 0) -> None:
        self.got = b""
        self.has_ended = False
        self._socket = socket.socket()
        if buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", world.server.port))
        self._socket.sendall(sent)

    def __enter__(self) -> Outsider:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read_until(self, there: bytes) -> None:
        while there not in self.got and not self.has_ended:
            self._read()

    def read_to_end(self) -> None:
        while not self.has_ended:
            self._read()

    def _read(self) -> None:
        came = b""
        with suppress(ConnectionResetError):  # where a server did not read all that was sent
            came = self._socket.recv(65_536)
        self.got += came
        if not came:
            self.has_ended = True
            self._socket.close()  # at once: some servers wait for it

    @property
    def status(self) -> int:
        return int(self.got.split(b" ", 2)[1])

    @property
    def head(self) -> list[str]:
        return self.got.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def body(self) -> bytes:
        """The body without the framing of its chunks."""
        body = self.got.partition(b"\r\n\r\n")[2]
        if "transfer-encoding: chunked" not in map(str.lower, self.head):
            return body
        whole, rest = b"", body
        while found := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
            size = int(found[1], 16)
            whole, rest = whole + rest[found.end() :][:size], rest[found.end() + size + 2 :]
        return whole


@dataclass(frozen=True)
class Attempt:
    """One request. ``{secret}`` and ``{private}`` stand for the last ids of these channels, ``{good}`` for a token."""

    tried: str
    target: str
    status: int
    user: str = "alice"  #: the user of its session
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: bytes = b""
    token: Callable[[], str] | None = None
    reaches: bool = False  #: whether the request is allowed, so that the secrets arrive
    present: tuple[str, ...] = ()  #: lines that the answer's head has
    absent: str = "X-Injected"  #: begins no line of the answer's head

    @property
    def site(self) -> str:
        return next((site for site in SITES[1:] if self.target.startswith(f"{site}/")), "")

    def request(self, world: World, ids: dict[str, str]) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: 127.0.0.1:{world.server.port}", "Connection: close"]
        lines += [f"Cookie: {world.cookies[self.user]}"] if self.user else []
        lines += [f"Authorization: Bearer {self.token()}"] if self.token is not None else []
        lines += self.headers
        text = "\r\n".join(lines)
        values = {"secret": ids["secret"], "private": ids["~bob"], "port": str(world.server.port), "good": token()}
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text.encode() + b"\r\n\r\n" + self.body


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
    *spelt("capitals", "SECRET", 403, 403),
    *spelt("a capital", "Secret", 403, 403),
    *spelt("a quoted letter", "%73ecret", 403, 403),
    *spelt("a letter quoted twice", "%2573ecret"),
    *spelt("a quoted slash", "team%2Fb", 403, 403),
    *spelt("a slash quoted twice", "team%252Fb"),
    *spelt("a slash before it", "/secret", 404, 403),
    *spelt("a quoted slash before it", "%2Fsecret", 404, 403),
    *spelt("a slash after it", "secret/", 403, 403),
    *spelt("a way up", "news/../secret", 403, 403),
    *spelt("a quoted way up", "news/%2e%2e/secret", 403, 403),
    *spelt("a way up, all quoted", "%2e%2e%2fsecret", 403, 403),
    *spelt("a way up, quoted twice", "%252e%252e%252fsecret"),
    *spelt("a way up with backslashes", "news%5C..%5Csecret"),
    *spelt("a dot", "./secret", 403, 403),
    *spelt("two slashes", "team//b", 403, 403),
    *spelt("an overlong slash", "team%C0%AFb"),
    *spelt("an overlong letter", "%C1%B3ecret"),
    *spelt("half a character", "secret%C3"),
    *spelt("a surrogate", "secret%ED%A0%80"),
    *spelt("half a quote", "secret%"),
    *spelt("a quote that is none", "%zzsecret"),
    *spelt("a byte order mark", "%EF%BB%BFsecret"),
    *spelt("a fullwidth letter", "%EF%BD%93ecret"),
    *spelt("a long s", "%C5%BFecret"),
    *spelt("a Cyrillic letter", "s%D0%B5cret"),
    *spelt("a combining accent", "se%CC%81cret"),
    *spelt("a zero-width space", "sec%E2%80%8Bret"),
    *spelt("one-dot leaders", "news/%E2%80%A4%E2%80%A4/secret"),
    *spelt("a fullwidth slash", "team%EF%BC%8Fb"),
    *spelt("bytes that are not ASCII", "s\u00e9cret"),
    *spelt("a NUL", "secret%00"),
    *spelt("a NUL and more", "secret%00.news"),
    *spelt("a space after it", "secret%20"),
    *spelt("a space before it", "%20secret"),
    *spelt("a plus after it", "secret+"),
    *spelt("a line end after it", "secret%0A", 404),
    *spelt("parameters of a path", "secret;a=b"),
    *spelt("two names with a comma", "news,secret"),
    *spelt("two names with a quoted comma", "news%2Csecret"),
    *spelt("two names with a bar", "news%7Csecret"),
    *spelt("a wildcard", "*"),
    *spelt("a pattern", "secre?", 403, 400)[:1],
    *spelt("a NUL alone", "%00"),
    *spelt("a very long name", "secret" * 50),
    *spelt("another reader's private channel", "~bob"),
    *spelt("another reader's private channel, quoted", "%7Ebob"),
    *spelt("another reader's private channel, quoted twice", "%257Ebob"),
    *spelt("another reader's private channel with a slash", "~/bob"),
    *spelt("another reader's private channel with a NUL", "~%00bob"),
    *spelt("the private channel with a line end", "~%0A", 404),
    *spelt("the revocation channel", "!revoked"),
    *spelt("the revocation channel, quoted", "%21revoked"),
    *spelt("a header that is injected", "news%0D%0AX-Injected:%201%0D%0A%0D%0Adata:%20injected", 404),
]

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
    Attempt("51 channels", "/events?" + "&".join(f"channel=c{n}" for n in range(50)) + "&channel=secret", 400),
    Attempt("50 channels", "/events?channel=secret&" + "&".join(f"channel=c{n}" for n in range(49)), 403),
    Attempt("no channel", "/events", 400),
    Attempt("no channel, with a slash", "/events/", 400),
    Attempt("an empty channel", "/events?channel=", 400),
    Attempt("an empty channel beside an allowed one", "/events?channel=news&channel=", 400),
    Attempt("a list as PHP has it", "/events?channel[]=secret", 400),
    Attempt("a list as PHP has it, quoted", "/events?channel%5B%5D=secret", 400),
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
    *(
        Attempt(
            f"a form in the body of a GET, {tried}",
            target,
            status,
            headers=("Content-Type: application/x-www-form-urlencoded", "Content-Length: 14"),
            body=b"channel=secret",
        )
        for tried, target, status in [("without a name", "/events", 400), ("with an allowed one", "/events/news", 200)]
    ),
    Attempt("another path in a header", "/events/news", 200, headers=("X-Original-URL: /events/secret",)),
    Attempt("another path in another header", "/events/news", 200, headers=("X-Rewrite-URL: /events/secret",)),
    Attempt("another user in a header", "/events/secret", 403, headers=("Remote-User: bob", "X-Remote-User: bob")),
    Attempt("another user in two cookies", "/events/secret", 403, headers=("Cookie: session=bob; user=bob",)),
    Attempt(
        "a session with a forged signature", "/events/secret", 403, user="", headers=(f"Cookie: session={FORGED}",)
    ),
    Attempt("bob himself", f"/events?{ASKED_BY_BOB}", 200, user="bob", reaches=True),
    Attempt("bob himself, one", "/events/secret", 200, user="bob", reaches=True),
    Attempt("bob himself, his own", "/events?channel=~", 200, user="bob", reaches=True),
    Attempt("bob himself, his own in the path", "/events/%7e", 200, user="bob", reaches=True),
]

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


def with_token(tried: str, status: int, make: Callable[[], str], target: str = "/jwt/events/secret") -> Attempt:
    return Attempt(f"a token {tried}", target, status, user="", token=make)


def with_header(tried: str, status: int, *headers: str, site: str = "/jwt", query: str = "") -> Attempt:
    reaches = status == 200
    return Attempt(tried, f"{site}/events/secret{query}", status, user="", headers=headers, reaches=reaches)


TOKENS = [
    with_header("no token", 401),
    with_token("without a signature", 401, lambda: token(alg="none")),
    with_token("of the algorithm None", 401, lambda: token(alg="None")),
    with_token("of the algorithm nOnE", 401, lambda: token(alg="nOnE")),
    with_token("of no algorithm that is signed", 401, lambda: token(header={"alg": "none"})),
    with_token("of an algorithm that is no text", 401, lambda: token(header={"alg": ["HS256"]})),
    with_token("of HS512", 401, lambda: token(alg="HS512")),
    with_token("of HS512 that says HS256", 401, lambda: token(alg="HS512", header={"alg": "HS256"})),
    with_token("signed with another key", 401, lambda: token(key=new_name() * 2)),
    with_token("signed with nothing", 401, lambda: token(key="")),
    with_token("with a key of its own", 401, lambda: token(key="k" * 32, header={"jwk": {"kty": "oct", "k": "a2tr"}})),
    with_token("with the address of a key", 401, lambda: token(key="k" * 32, header={"jku": "http://127.0.0.1:1/"})),
    with_token("with a file for a key", 401, lambda: token(key="", header={"kid": "../../../../dev/null"})),
    with_token("with something critical", 401, lambda: token(header={"crit": ["exp2"], "exp2": 1})),
    with_token("for another audience", 401, lambda: token(aud="others")),
    with_token("for no audience", 401, lambda: token(aud=None)),
    with_token("for an audience that is no text", 401, lambda: token(aud={"streams": 1})),
    with_token("that has expired", 401, lambda: token(exp=int(time.time()) - 1)),
    with_token("that expired long ago", 401, lambda: token(exp=-(10**9))),
    with_token("that expires at no time", 401, lambda: token(exp="soon")),
    with_token("that is not valid yet", 401, lambda: token(nbf=int(time.time()) + 600)),
    with_token("that was issued tomorrow", 401, lambda: token(iat=int(time.time()) + 86_400)),
    with_token("whose identity is no text", 401, lambda: token(sub=["bob"])),
    with_token("that is garbage", 401, lambda: "garbage"),
    with_token("of three words of garbage", 401, lambda: "not.a.token"),
    with_token("of two dots only", 401, lambda: ".."),
    with_token("of no JSON", 401, lambda: ".".join([_base64(b"{"), _base64(b"}"), "x"])),
    with_token("that is a list", 401, lambda: ".".join([_base64(b"[]"), _base64(b"[]"), "x"])),
    with_token("of brackets", 401, lambda: ".".join([_base64(b"[" * 5000), _base64(b"{}"), "x"])),
    with_token("with half a signature", 401, lambda: token()[:-20]),
    with_token("without its last character", 401, lambda: token()[:-1]),
    with_token("without its signature", 401, lambda: token().rpartition(".")[0] + "."),
    with_token("without its last part", 401, lambda: token().rpartition(".")[0]),
    with_token("with one part more", 401, lambda: token() + ".x"),
    with_token("with another's claims", 401, lambda: ".".join([*token(sub="x").split(".")[:2], token().split(".")[2]])),
    with_token("that is not ASCII", 401, lambda: token() + "é"),
    with_token("of 100 kB", 401, lambda: token(padding="x" * 100_000)),
    with_token("of 17 kB", 401, lambda: token(padding="x" * 13_000)),
    with_token("for another channel", 403, lambda: token(sse=["news"])),
    with_token("for channels that begin so", 403, lambda: token(sse=["secre", "secret/*", "secrets", "Secret"])),
    with_token("for a pattern in the middle", 403, lambda: token(sse=["*secret", "s*t", "secre?", "^secret$", ".*"])),
    with_token("for no channel", 403, lambda: token(sse=None)),
    with_token("for channels that are no list", 403, lambda: token(sse={"secret": True})),
    with_token("for channels that are no text", 403, lambda: token(sse=[["secret"], None, 1, True])),
    with_token("for another channel beside an allowed one", 403, lambda: token(sse=["news"]),
               "/jwt/events?channel=news&channel=secret"),
    with_token("for another channel that is asked for", 200, lambda: token(sub="alice", sse=["news"]),
               "/jwt/events/news"),
    with_token("of a reader for the private channel", 200, lambda: token(sub="alice", sse=["~"]),
               "/jwt/events?channel=~"),
    with_token("without an identity for the private channel", 403, lambda: token(sub=None), "/jwt/events?channel=~"),
    with_token("of an empty identity for the private channel", 401, lambda: token(sub=""), "/jwt/events?channel=~"),
    with_token("of a reader for another reader's private channel", 400, lambda: token(sub="alice"),
               "/jwt/events?channel=~bob"),
    with_token("whose secret is the public key", 401, lambda: token(key=public_pem()), "/jwt-rsa/events/secret"),
    with_token("whose secret is the public key, stripped", 401, lambda: token(key=public_pem().strip()),
               "/jwt-rsa/events/secret"),
    with_token("without a signature where RSA is used", 401, lambda: token(alg="none"), "/jwt-rsa/events/secret"),
    with_token("of HMAC that says RSA", 401, lambda: token(key=public_pem(), header={"alg": "RS256"}),
               "/jwt-rsa/events/secret"),
    with_header("a token in the query where that is off", 401, query="?token={good}&access_token={good}&access={good}"),
    with_header("a token in a cookie where that is off", 401, "Cookie: token={good}; access={good}"),
    with_header("a token in a cookie of another name", 401, "Cookie: Token={good}; tokens={good}",
                site="/jwt-anywhere"),
    with_header("a token in a parameter of another name", 401, site="/jwt-anywhere",
                query="?Access={good}&token={good}"),
    with_header("a bad token in the query", 401, site="/jwt-anywhere", query="?access=x&access={good}"),
    with_header("a bad token beside a good cookie", 401, "Authorization: Bearer x", "Cookie: token={good}",
                site="/jwt-anywhere"),
    with_header("a token in the cookie", 200, "Cookie: token={good}", site="/jwt-anywhere"),
    with_header("a token in the query", 200, site="/jwt-anywhere", query="?access={good}"),
    with_header("a token in another header", 401,
                "X-Authorization: Bearer {good}", "Proxy-Authorization: Bearer {good}"),
    with_header("a token of another scheme", 401, "Authorization: Token {good}"),
    with_header("a token of the scheme Basic", 401, "Authorization: Basic {good}"),
    with_header("a token without a scheme", 401, "Authorization: {good}"),
    with_header("a token after a colon", 401, "Authorization: Bearer:{good}"),
    with_header("a token right after its scheme", 401, "Authorization: Bearer{good}"),
    with_header("a scheme without a token", 401, "Authorization: Bearer"),
    with_header("a scheme and a space without a token", 401, "Authorization: Bearer "),
    with_header("a token in quotes", 401, 'Authorization: Bearer "{good}"'),
    with_header("two headers, the good one first", 401, "Authorization: Bearer {good}", "Authorization: Bearer x"),
    with_header("two headers, the good one last", 401, "Authorization: Bearer x", "Authorization: Bearer {good}"),
    with_header("a token of the scheme BEARER", 200, "Authorization: BEARER {good}"),
    with_header("a token of the scheme bearer", 200, "Authorization: bearer   {good}"),
    Attempt("a good token from another site", "/jwt/events/secret", 403, user="", headers=(EVIL,), token=token),
]  # fmt: skip


def posting(
    tried: str,
    status: int,
    *headers: str,
    target: str = "/posts/events/secret",
    user: str = "",
    body: bytes = b'"posted"',
) -> Attempt:
    kind = () if any(line.startswith("Content-Type") for line in headers) else ("Content-Type: application/json",)
    length = (
        () if any("Length:" in line or "Encoding:" in line for line in headers) else (f"Content-Length: {len(body)}",)
    )
    return Attempt(tried, target, status, user, "POST", (*headers, *kind, *length), body)


MAY = f"Authorization: {PUBLISHER}"
CHUNKED = "Transfer-Encoding: chunked"
POSTS = [
    posting("an event without credentials", 403),
    posting("an event by alice", 403, user="alice"),
    posting("an event by bob's cookie alone", 403, user="bob"),
    posting("an event by bob's cookie from our own page", 403, "Origin: http://127.0.0.1:{port}", user="bob"),
    posting("an event by a bad token", 403, f"{MAY}x"),
    posting("an event by a token in lower case", 403, MAY.lower()),
    posting("an event by a bad token and alice's cookie", 403, "Authorization: Basic eDp4", user="alice"),
    posting("an event from a page of another site", 403, MAY, EVIL),
    posting("an event from a page of no site", 403, MAY, "Origin: null"),
    posting("a form", 415, MAY, "Content-Type: application/x-www-form-urlencoded"),
    posting("a form without credentials", 403, "Content-Type: application/x-www-form-urlencoded"),
    posting("a form of parts", 415, MAY, "Content-Type: multipart/form-data; boundary=x"),
    posting("no type", 415, MAY, "Content-Type:"),
    posting("a type that begins like one", 415, MAY, "Content-Type: application/json-seq"),
    posting("another charset", 415, MAY, "Content-Type: text/plain; charset=utf-7"),
    posting("too much", 413, MAY, "Content-Length: 10001", body=b""),
    posting("far too much", 413, MAY, "Content-Length: 99999999999999", body=b""),
    posting("chunks", 411, MAY, CHUNKED, body=b"3\r\n123\r\n0\r\n\r\n"),
    posting("too much in chunks", 411, MAY, CHUNKED, body=b"2712\r\n" + b"1" * 10_002 + b"\r\n0\r\n\r\n"),
    posting("chunks without credentials", 403, CHUNKED, body=b"3\r\n123\r\n0\r\n\r\n"),
    posting("an empty key", 400, MAY, target="/posts/events/secret?key="),
    posting("too much without credentials", 403, "Content-Length: 10001", body=b""),
    posting("what is too large as an event", 400, MAY, "Content-Type: text/plain", body=b"\n" * 10_000),
    posting("to another reader's private channel", 400, MAY, target="/posts/events/~bob"),
    posting("to another reader's private channel, quoted", 400, MAY, target="/posts/events/%7Ebob"),
    posting("to the private channel", 400, MAY, target="/posts/events/~"),
    posting("to the revocation channel", 400, MAY, target="/posts/events/!revoked"),
    posting("to the revocation channel, quoted", 400, MAY, target="/posts/events/%21revoked"),
    posting("to no name", 400, MAY, target="/posts/events/secret%00"),
    posting("to no channel", 405, MAY, target="/posts/events"),
    posting("to a channel in the query", 405, MAY, target="/posts/events?channel=secret"),
    posting("where publishing is off", 405, MAY, target="/events/secret", user="bob"),
    posting("where publishing is off, without credentials", 405, target="/events/secret"),
    posting("no JSON", 400, MAY, body=b"{"),
    posting("what only Python takes for JSON", 400, MAY, body=b"NaN"),
    posting("half a character in JSON", 400, MAY, body=b'"\\ud800"'),
    posting("brackets", 400, MAY, body=b"[" * 9_000),
    posting("many digits", 400, MAY, body=b"9" * 9_000),
    posting("bytes that are no text", 400, MAY, "Content-Type: text/plain", body=b"\xff\xfe"),
    posting("a name of two lines", 400, MAY, target="/posts/events/secret?event=x%0d%0adata:%20injected"),
    posting("a name that ends in CR", 400, MAY, target="/posts/events/secret?event=x%0d"),
    posting("a retry of two lines", 400, MAY, target="/posts/events/secret?retry=1%0d%0adata:%20injected"),
    posting("a retry below 0", 400, MAY, target="/posts/events/secret?retry=-1"),
    posting("a retry of many digits", 400, MAY, target="/posts/events/secret?retry=" + "9" * 4_000),
]


UNUSUAL = [
    *(
        Attempt(
            f"a token that expires {tried}", "/jwt/events/secret", status, user="", token=make, reaches=status == 200
        )
        for tried, status, make in [
            ("in a very long time", 200, lambda: token(exp=10**18)),
            ("in a time that is a large float", 200, lambda: token(exp=1e300)),
            ("at infinity", 401, lambda: token(exp=float("inf"))),
            ("in a time that no float holds", 401, lambda: token(exp=10**400)),
        ]
    ),
    with_token("whose identity is too long", 401, lambda: token(sub="x" * 501)),
    with_token("whose identity is half a character", 401, lambda: token(sub="\ud800")),
]


@pytest.mark.parametrize(
    "attempt",
    [*SPELLINGS, *SEVERAL, *REPLAYS, *METHODS, *ORIGINS, *TOKENS, *POSTS, *UNUSUAL],
    ids=lambda attempt: attempt.tried,
)
def test_attempt_without_the_right_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    """Attempts that are allowed are among them: they show that the secrets arrive there."""
    site, (before, during, last) = attempt.site, (new_name(), new_name(), new_name())
    with connected(world.server, f"{site}/events?{ASKED_BY_BOB}", headers=world.credentials_of_bob(site)) as bob:
        ids = world.publish(site, BOBS, before)
        stats = world.stats(site)
        with Outsider(world, attempt.request(world, ids)) as outsider:
            outsider.read_until(b"\r\n\r\n")
            if attempt.method == "HEAD" or "content-type: text/event-stream" not in map(str.lower, outsider.head):
                outsider.read_to_end()
            world.publish(site, BOBS, during)
            world.publish(site, [*BOBS, *OTHERS], last)
            outsider.read_until(last.encode())
        texts = bob.texts(9)
        if outsider.status != 200:
            until(
                lambda: (now := world.stats(site))["opened"] == stats["opened"] and now["channels"] == stats["channels"]
            )
    assert texts == [before] * 3 + [during] * 3 + [last] * 3, "and nothing else"
    got = outsider.got + outsider.body
    assert outsider.status == attempt.status, got
    assert (before.encode() in got, during.encode() in got) == (False, attempt.reaches)
    check_answer(outsider, attempt)


def check_answer(outsider: Outsider, attempt: Attempt) -> None:
    head = [line.lower() for line in outsider.head]
    assert set(map(str.lower, attempt.present)) <= set(head)
    assert not [line for line in head if line.startswith(attempt.absent.lower())]
    assert any(line.startswith("www-authenticate: bearer") for line in head) == (outsider.status == 401)
    assert b"Traceback" not in outsider.got
    assert b"\ndata: injected" not in outsider.body
    if attempt.method == "HEAD":
        assert outsider.body == b""
    else:
        assert outsider.body == BODIES.get(outsider.status, outsider.body)


@pytest.mark.parametrize(
    ("query", "kind", "sent", "data"),
    [
        ("", "text/plain", b"a\r\n\r\nevent: injected\ndata: injected\n\n", "a\n\nevent: injected\ndata: injected\n\n"),
        ("", "text/plain", b"a\r\rid: injected\rretry: 1\r\r", "a\n\nid: injected\nretry: 1\n\n"),
        ("", "text/plain", b"a\n\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "a\n\n0\n\nHTTP/1.1 200 OK\n\n"),
        ("", "application/json", b'"a\\n\\ndata: injected"', "a\n\ndata: injected"),
        ("", "application/json", b'{"id": "injected", "event": "injected"}', '{"event": "injected", "id": "injected"}'),
        ("?id=injected%0d%0adata:%20injected", "text/plain", b"a", "a"),
        ("?key=k%0d%0aX-Injected:%201%0d%0a%0d%0ainjected", "text/plain", b"a", "a"),
        ("?event=a%E2%80%A8data:%20injected%C2%85", "text/plain", "a\u2028\u0085b".encode(), "a\u2028\u0085b"),
    ],
    ids=["LF", "CR", "chunks", "JSON", "an object", "an id", "a key", "other line ends"],
)
def test_publish_endpoint_injects_nothing_beside_the_data(
    world: World, query: str, kind: str, sent: bytes, data: str
) -> None:
    channel, last = new_name(), new_name()
    attempt = posting("", 201, MAY, f"Content-Type: {kind}", target=f"/posts/events/{channel}{query}", body=sent)
    request = Attempt("", f"/posts/events/{channel}", 200, user="bob").request
    ids = world.publish("/posts", BOBS, new_name())
    with Outsider(world, request(world, ids)) as bob:
        bob.read_until(b"\r\n\r\n")
        query = query and f"{query}{new_name()}"
        with Outsider(world, attempt.request(world, ids)) as publisher:
            publisher.read_to_end()
        world.publish("/posts", [channel], last)
        bob.read_until(f"{last}\n\n".encode())
    assert publisher.status == 201, publisher.got
    events = decode(bob.body)
    assert [event.data for event in events] == [data, last]
    assert all(re.fullmatch(r"[\w-]+-[12]", str(event.id)) for event in events)
    assert len(re.findall(rb"\n\n", bob.body)) == 4, "the preamble, the position, and two events"
    for answer in (bob, publisher):
        assert not [line for line in answer.head if "injected" in line.lower()]


@contextmanager
def reading(world: World, user: str, channel: str, *headers: str, buffer: int = 0) -> Iterator[Outsider]:
    lines = [f"GET /events/{channel} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Cookie: {world.login(user)}", *headers]
    with Outsider(world, "\r\n".join([*lines, "", ""]).encode(), buffer) as outsider:
        outsider.read_until(b"\r\n\r\n")
        yield outsider


def status(world: World, path: str, **headers: str) -> int:
    with connected(world.server, path, headers=headers) as client:
        return client.response.status


def bob_and_another() -> tuple[str, str, str]:
    return f"bob-{new_name()}", f"bob-{new_name()}", new_name()


def test_revocation_by_disconnect_sends_nothing_but_the_end(world: World) -> None:
    user, other, secret = bob_and_another()
    channel, first = new_name(), new_name()
    with reading(world, user, channel) as revoked, reading(world, other, channel) as stays:
        world.publish("", [channel], first)
        for reader in (revoked, stays):
            reader.read_until(f"{first}\n\n\r\n".encode())
        so_far = len(revoked.got)
        world.post("/disconnect", {"identity": user, "channels": [channel], "data": secret})
        revoked.read_to_end()
        stays.read_until(secret.encode())
    assert re.fullmatch(rb"[0-9a-f]+\r\nretry: \d+\n\n\r\n0\r\n\r\n", revoked.got[so_far:].lower()), revoked.got
    assert secret.encode() in stays.got


def test_revocation_by_disconnect_sends_no_secret_to_a_client_that_does_not_read(world: World) -> None:
    user, other, secret = bob_and_another()
    channel = new_name()
    with reading(world, user, channel, buffer=4096) as revoked:
        heads = world.post("/fill", channel)
        with reading(world, other, channel) as stays:
            world.post("/disconnect", {"identity": user, "channels": [channel], "data": secret})
            stays.read_until(secret.encode())
        check_that_it_stops(revoked, heads, secret)
        assert secret.encode() in stays.got


def test_revocation_by_disconnect_sends_no_secret_to_a_client_during_its_replay(world: World) -> None:
    user, other, secret = bob_and_another()
    channel = new_name()
    begin = world.publish("", [channel], "begin")[channel]
    heads = world.post("/fill", channel)
    with reading(world, user, channel, f"Last-Event-ID: {begin}", buffer=4096) as revoked:
        revoked.read_until(heads[1].encode())
        with reading(world, other, channel) as stays:
            world.post("/disconnect", {"identity": user, "channels": [channel], "data": secret})
            stays.read_until(secret.encode())
        check_that_it_stops(revoked, heads, secret)
        assert secret.encode() in stays.got


def check_that_it_stops(revoked: Outsider, heads: list[str], secret: str) -> None:
    """Check that what was on its way arrives without a hole, and that what waited does not."""
    revoked.read_to_end()
    got = [event.data[:40] for event in decode(revoked.body)]
    assert got == heads[: len(got)]
    assert len(got) < len(heads)
    assert secret.encode() not in revoked.got


def test_revocation_by_recheck_sends_no_later_event(world: World) -> None:
    user, other, secret = bob_and_another()
    channel = new_name()
    with reading(world, user, channel) as revoked, reading(world, other, channel) as stays:
        for each in (user, other):
            if each == user:
                world.post("/deny", each)
            world.post("/recheck", each)
        until(lambda: world.stats("")["channels"].get(channel) == 1, "the denied client to be disconnected")
        world.publish("", [channel], secret)
        revoked.read_to_end()
        stays.read_until(secret.encode())
    assert re.search(rb"\nid: [^\n]+\n\nretry: \d+\n\n$", revoked.body)
    assert (secret.encode() in revoked.got, secret.encode() in stays.got) == (False, True)
    assert status(world, f"/events/{channel}", Cookie=world.login(user)) == 403


def test_expired_token_ends_the_stream_before_later_events(world: World) -> None:
    channel, first, secret = new_name(), new_name(), new_name()
    soon = token(sse=[channel], exp=int(time.time()) + 3)
    lines = [f"GET /jwt/events/{channel} HTTP/1.1", "Host: localhost", "Connection: close"]

    def request(credentials: str) -> bytes:
        return "\r\n".join([*lines, f"Authorization: Bearer {credentials}", "", ""]).encode()

    with Outsider(world, request(soon)) as expires, Outsider(world, request(token(sse=[channel]))) as stays:
        for reader in (expires, stays):
            reader.read_until(b"\r\n\r\n")
        world.publish("/jwt", [channel], first)
        expires.read_until(first.encode())
        until(lambda: world.stats("/jwt")["channels"] == {channel: 1}, "the expired client to be disconnected")
        world.publish("/jwt", [channel], secret)
        expires.read_to_end()
        stays.read_until(secret.encode())
    assert re.search(rf"\ndata: {first}\n\n(retry: \d+\n\n)?$".encode(), expires.body), expires.body
    assert (secret.encode() in expires.got, secret.encode() in stays.got) == (False, True)
    assert status(world, f"/jwt/events/{channel}", Authorization=f"Bearer {soon}") == 401


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Remote-Addr"],
)
def test_max_clients_per_address_ignores_address_headers_of_clients(world: World, header: str) -> None:
    text = new_name()
    value = "for=192.0.2.1" if header == "Forwarded" else "192.0.2.1"
    with connected(world.server, "/limited/events/open") as one, connected(world.server, "/limited/events/open") as two:
        with connected(world.server, "/limited/events/open", headers={header: value}) as third:
            world.publish("/limited", ["open"], text)
            assert re.fullmatch(rb"retry: \d+\n\nid: [^\n]+\n\n", third.rest())
        assert [one.texts(1), two.texts(1)] == [[text], [text]]
