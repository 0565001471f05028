"""A generator of requests: valid ones, and ones that are nearly valid or have broken other servers."""

from __future__ import annotations

import io
import random
import re
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from tests.apps.security.fuzzed import BAD_SESSIONS, BAD_TOKENS, CLOSED, ORIGINS, PEOPLE, PUBLIC, SESSIONS, TOKENS

#: The most streams that are open at once: more than the app allows.
HELD = 14

RIGHTS = {credential.rpartition(".")[0].encode(): names for credential, names in {**TOKENS, **SESSIONS}.items()}
LENGTH = re.compile("[0-9]{1,9}")

#: What is published to closed channels.
SECRET = re.compile(rb"<<([a-z0-9/~]+)>>")


class Request(NamedTuple):
    """One request, as its client writes it."""

    method: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    version: bytes

    def raw(self, framed: bool) -> bytes:
        """
        :param framed: whether a body in chunks is really in chunks.
        """
        is_chunked = framed and any(name == b"Transfer-Encoding" for name, _ in self.headers)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if is_chunked and self.body else self.body
        lines = [b"%b %b%b %b" % (self.method, self.path, b"?" + self.query if self.query else b"", self.version)]
        lines += [b"%b: %b" % header for header in self.headers]
        return b"\r\n".join((*lines, b"", body))

    def environ(self, terminated: bool) -> dict[str, Any]:
        """Return the environ that servers make (PEP 3333), as far as it comes from the client.

        :param terminated: the server ends the body where it ends, as gunicorn does; else only a body in chunks.
        """
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method.decode("latin-1"),
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "QUERY_STRING": self.query.decode("latin-1"),
            "SERVER_PROTOCOL": self.version.decode("latin-1"),
            "wsgi.input": io.BytesIO(self.body),
        }
        for name, value in self.headers:
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{key}"
            text = value.translate(None, b"\r\n").strip(b" \t").decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        length = environ.get("CONTENT_LENGTH", "")
        if terminated and LENGTH.fullmatch(length):
            environ |= {"wsgi.input": io.BytesIO(self.body[: int(length)]), "wsgi.input_terminated": True}
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input_terminated"] = True
        return environ

    def may_see(self, channel: str) -> bool:
        """Return whether it has credentials for the channel; a changed signature may still be the same one."""
        sent = unquote_to_bytes(self.query) + b"".join(value for _, value in self.headers)
        return any(credential in sent and channel in names for credential, names in RIGHTS.items())


SESSION_COOKIES = [cookie.encode() for cookie in SESSIONS]
#: Credentials, and the channels that they open: ``~ann`` is what ann calls ``~``.
CLIENTS = [
    (credential.encode(), [name.encode() for name in [*names, *PUBLIC]])
    for credential, names in {"": [], **TOKENS, **SESSIONS}.items()
]
PUBLISHER = (CLIENTS[1][0], [b"posted", b"posted/1", b"news"])
NAMES = [name.encode() for name in [*PUBLIC, *CLOSED, "~", "posted", "posted/1"]]
ODD_NAMES = [
    *(f"~{person}".encode() for person in PEOPLE),
    *[b"", b" ", b".", b"..", b"/", b"//news", b"news/", b"NEWS", b"news,vault", b"!revoked", b"orders*", b"*", b"~~"],
    *[b"%00", b"news%0a", b"news%0d%0aX: y", b"%ff", b"\xff", b"\xc3\xa4", b"%ed%a0%80", b"%c0%ae", b"%zz", b"%"],
    *[b"x" * 200, b"x" * 201, b"x" * 5000, b"a%2fb", b"..%2f..%2fetc", b"${7*7}", b"{{7*7}}", b"%F0%9F%A6%84"],
]
PATHS = [b"/events", b"/events", b"/events/", b"/mine"]
ODD_PATHS = [b"", b"/", b"*", b"/event", b"/events//", b"//events/news", b"/EVENTS", b"/events/news?", b"/static/x"]
ID_FIELDS = [b"last_event_id", b"lastEventId", b"evs_last_event_id"]
ODD_IDS = [b"", b"0", b"-", b",", b"a-0", b"a-01", b"a--1", b"a-999999999999999999", b"a-1,", b"\xff", b"null", b"%00"]
METHODS = [b"GET"] * 14 + [b"HEAD", b"HEAD", b"OPTIONS", b"POST", b"POST", b"POST"]
ODD_METHODS = [b"PUT", b"DELETE", b"TRACE", b"PATCH", b"PROPFIND", b"CONNECT", b"get", b"M-SEARCH", b"X" * 30, b"!"]
HOSTS = [b"localhost", b"localhost:80", b"127.0.0.1:8080", b"[::1]:8080", b"shop.example"]
ODD_HOSTS = [*b"[::1 [:1] [a:.] [ : :80 a:b x:99999 \xff a,b .. a/b@c".split(), b"", b"a b", b"x" * 300]
ORIGIN_VALUES = [origin.encode() for origin in ORIGINS] + [b"http://localhost", b"https://shop.example:443"]
ODD_ORIGINS = [b"null", b"", b"://", b"https://", b"https://evil.example", b"HTTPS://SHOP.EXAMPLE", b"file://", b"\xff"]
ADDRESSES = [b"10.0.0.1", b"10.0.0.2", b"::1", b"2001:db8::7", b"::ffff:10.0.0.1", b"fe80::1%eth0"]
ODD_ADDRESSES = [*b"unknown [::1]:80 10.0.0.1:80 % ::% 999.1.1.1 _x 1,2,3 \xff 1".split(), b""]
TYPES = [b"application/json", b"text/plain", b"text/plain; charset=utf-8"]
ODD_TYPES = [b"", b"text/plain; charset=utf-16", b"multipart/form-data; boundary=x", b";;=", b"text/plain;charset"]
BODIES = [b'"x"', b'{"id": 7}', b"hello", b"", b"null", b"\xc3\xa4"]
ODD_BODIES = [b"[" * 4000, b"NaN", b"1e999", b'"\\ud800"', b"\xff", b"9" * 4090, b"x" * 5000, b"\0", b"a\r\rb\n", b"{"]
ODD_BODIES += [b'"%b"' % (b"x" * 4095), b"\n" * 4097, b"x" * 20_000, b"\xf0\x9f\xa6\x84" * 1025]
LENGTHS = [*b"-1 +1 0 1 7 4097 1e3 abc 0x10 \xb2".split(), b"", b"1, 2", b"9" * 30, b"9" * 5000]
HEADERS: list[tuple[bytes, list[bytes]]] = [
    (b"Sec-Fetch-Site", [b"same-origin", b"cross-site", b"none", b"x"]),
    (b"Sec-Fetch-Mode", [b"cors", b"navigate", b""]),
    (b"X-Forwarded-For", ADDRESSES + ODD_ADDRESSES),
    (b"X-Forwarded-Host", HOSTS + ODD_HOSTS),
    (b"X-Forwarded-Proto", [b"https", b"http", b"ftp", b"", b"\xff", b"https,http"]),
    (b"X-Forwarded-Port", [b"443", b"-1", b"abc", b"9" * 30, b""]),
    (b"X-Forwarded-Prefix", [b"/app", b"app", b"//", b"/\xff", b"%"]),
    (b"Access-Control-Request-Method", [b"GET", b"POST", b"\xff"]),
    (b"Access-Control-Request-Headers", [b"last-event-id", b"*", b"," * 100]),
    (b"Connection", [b"close", b"keep-alive", b"upgrade"]),
    (b"X", [b"", b"\xff", b"x" * 7000]),
]
PIECES = [*b'%00 %ff % & = ; , / .. \xff \xed\xa0\x80 \xd9\xa3 " \\'.split(), b" "]
PARAMETERS = b"padding evs_preamble= r=0.5 = && a;b channel channel[]=news CHANNEL=news".split()
BROKEN = [
    *[b"\0", b"\r\n", b"GET\r\n\r\n", b"GET /events/news\r\n\r\n", b"GET  /events/news  HTTP/1.1\r\n\r\n"],
    *[b"GET /events/news HTTP/9.9\r\n\r\n", b"GET /events/news HTTP/1.1\n\n"],
    b"GET http://x/events/news HTTP/1.1\r\n\r\n",
    *[b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 9000), b"OPTIONS * HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    b"GET /events/news HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 100_000),
    b"GET /events/news HTTP/1.1\r\n%b\r\n" % (b"X: x\r\n" * 1000),
    b"GET /events/news HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /events/news HTTP/1.1\r\n folded: x\r\nno colon\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nAuthorization: Bearer %b\r\nContent-Type: text/plain\r\n" % PUBLISHER[0]
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    b"GET /events HTTP/1.1\r\nHost: [:1]\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nTransfer-Encoding: chunk\r\n\r\n",
    b"GET /events/news HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
]
LAST = b"GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Generator:
    """Draws requests that are valid, that have odd parts, that are changed at random, and that are noise."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ids: dict[str, str] = {}  #: of the newest events, by the clients' names of the channels
        self._oddness = 0.0

    def request(self) -> Request:
        dice = self.dice
        self._oddness = dice.choice((0.0, 0.0, 0.05, 0.1))
        method = self._one(METHODS, ODD_METHODS)
        credential, open_names = PUBLISHER if method == b"POST" and dice.random() < 0.7 else dice.choice(CLIENTS)
        names = [self._one(open_names, NAMES + ODD_NAMES) for _ in range(dice.choice((1, 1, 2, 4)))]
        in_path = method == b"POST" or dice.random() < 0.5
        asked = [b"~" if name in open_names and name.startswith(b"~") else name for name in names]
        path = self._one([b"/events/" + asked[0]] if in_path else PATHS, ODD_PATHS)
        parameters = [b"channel=" + name for name in asked[in_path:]]
        headers = [(b"Host", self._one(HOSTS, ODD_HOSTS))] if dice.random() < 0.9 else []
        self._add_id(parameters, headers, names)
        self._add_credential(parameters, headers, credential)
        if dice.random() < 0.1:
            headers.append((b"Origin", self._one(ORIGIN_VALUES, ODD_ORIGINS)))
        for _ in range(dice.choice((0, 0, 1, 3))):
            name, values = dice.choice(HEADERS)
            headers.append((name, dice.choice(values)))
        body = b""
        if method == b"POST" or self._is_odd():
            body = self._one(BODIES, ODD_BODIES)
            parameters += dice.choice(([], [], [b"event=e"], [b"event=gap"], [b"key=k"], [b"retry=5"], [b"event=%0a"]))
            headers.append((b"Content-Type", self._one(TYPES, ODD_TYPES)))
            if dice.random() < 0.05:
                headers.append((b"Transfer-Encoding", b"chunked"))
            else:
                headers.append((b"Content-Length", dice.choice(LENGTHS) if self._is_odd() else b"%d" % len(body)))
        while self._is_odd():
            parameters.insert(dice.randint(0, len(parameters)), dice.choice(PARAMETERS))
        version = b"HTTP/1.0" if dice.random() < 0.1 else b"HTTP/1.1"
        request = Request(method, path, b"&".join(parameters), headers, body, version)
        return self._changed(request) if dice.random() < 0.35 else request

    def mutated(self, text: bytes) -> bytes:
        dice = self.dice
        if dice.random() < 0.02:
            return dice.randbytes(dice.randint(0, 300))
        at = dice.randint(0, len(text))
        to = min(len(text), at + dice.choice((1, 1, 2, 8)))
        part = text[at:to]
        changed = dice.choice(
            (bytes([dice.randrange(256)]), b"", part * 2, part * dice.choice((100, 3000)), dice.choice(PIECES) + part)
        )
        return text[:at] + changed + text[to:]

    def _is_odd(self) -> bool:
        return self.dice.random() < self._oddness

    def _one(self, right: list[bytes], odd: list[bytes]) -> bytes:
        return self.dice.choice(odd if self._is_odd() else right)

    def _add_id(self, parameters: list[bytes], headers: list[tuple[bytes, bytes]], names: list[bytes]) -> None:
        dice = self.dice
        if dice.random() < 0.5:
            return
        known = [self.ids.get(name.decode("latin-1"), "a-1").encode() for name in dict.fromkeys(names)]
        value = b",".join(known)
        if dice.random() < 0.3:  # some events ago, or some ahead
            value = re.sub(rb"[0-9]+\b", lambda found: b"%d" % max(0, int(found[0]) + dice.choice((-3, -40, 9))), value)
        if dice.random() < 0.2:
            value = dice.choice(ODD_IDS)
        if dice.random() < 0.2:
            value = self.mutated(value)
        if dice.random() < 0.7:
            headers.append((b"Last-Event-ID", value))
        else:
            parameters.append(
                dice.choice(ID_FIELDS) + b"=" + (value if self._is_odd() else quote_from_bytes(value).encode())
            )

    def _add_credential(self, parameters: list[bytes], headers: list[tuple[bytes, bytes]], credential: bytes) -> None:
        dice = self.dice
        if not credential and dice.random() < 0.8:
            return
        is_session = credential in SESSION_COOKIES
        if self._is_odd() or not credential:
            credential = dice.choice(BAD_SESSIONS if is_session else BAD_TOKENS).encode()
        if self._is_odd():
            credential = self.mutated(credential)
        way = dice.random()
        if is_session:
            headers.append(
                (b"Cookie", self._one([b"session="], [b"token=", b"x=;session=", b"session=;session="]) + credential)
            )
        elif way < 0.6:
            scheme = self._one([b"Bearer "], [b"bearer", b"Bearer   ", b"Basic ", b"Digest ", b"", b"\xff "])
            headers.append((b"Authorization", scheme + credential))
        elif way < 0.8:
            parameters.append(b"token=" + credential)
        else:
            headers.append((b"Cookie", b'token="%b"; x=y' % credential if self._is_odd() else b"token=" + credential))

    def _changed(self, request: Request) -> Request:
        dice = self.dice
        if dice.random() < 0.05:
            method, path, query, body = (dice.randbytes(dice.randint(0, 40)) for _ in range(4))
            return Request(method, path, query, [], body, b"HTTP/1.1")
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            part = dice.choice(("path", "query", "query", "headers", "headers", "body", "method"))
            if part != "headers":
                changed: dict[str, Any] = {part: self.mutated(getattr(request, part))}
                request = request._replace(**changed)
            elif request.headers:
                at = dice.randrange(len(request.headers))
                name, value = request.headers[at]
                again = request.headers[at:] if dice.random() < 0.2 else request.headers[at + 1 :]
                request = request._replace(headers=[*request.headers[:at], (name, self.mutated(value)), *again])
        if dice.random() < 0.1:  # repeat all of its parameters
            request = request._replace(query=b"&".join([request.query] * dice.choice((2, 60))))
        return request


def draw_steering(dice: random.Random) -> dict[str, str]:
    """Draw what the app is to revoke, as :func:`tests.apps.security.fuzzed.steer_streams` takes it."""
    kind, values = dice.choice((("recheck", PEOPLE), ("person", PEOPLE), ("channel", PUBLIC + CLOSED)))
    return {kind: dice.choice(values)}
