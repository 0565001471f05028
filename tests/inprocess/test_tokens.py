"""JSON Web Tokens as an access rule."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flask_sse_emitters import CloseReason
from flask_sse_emitters.access import jwt_authorizer
from flask_sse_emitters.access.jwt import MAX_TOKEN_CHARACTERS
from tests.support.board import texts
from tests.support.servers import ROOT
from tests.support.site import Site, emitter_of, levels
from tests.support.waiting import until

SECRET, OTHER = "s" * 64, "o" * 64
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"sub": "ann", "sse": ["news"], **claims}, key, algorithm)


def site_with(key: Any = SECRET, algorithms: Any = ("HS256",), **options: Any) -> Site:
    return Site(jwt_authorizer(key, algorithms=algorithms, **options))


def status(site: Site, sent: str, path: str = "/events/news", **headers: str) -> int:
    with site.get(path, Authorization=f"Bearer {sent}", **headers) as response:
        assert response.status_code in (200, 401, 403)
        if response.status_code != 200:
            assert response.text in ("Unauthorized\n", "Forbidden\n")
        if response.status_code == 401:
            assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        return int(response.status_code)


@pytest.mark.parametrize(
    ("claim", "channel", "expected"),
    [
        (["news"], "news", 200),
        ("news", "news", 200),
        (["*"], "any/thing", 200),
        (["a", "orders/*"], "orders/7", 200),
        (["orders/*"], "orders/", 200),
        (["orders/*"], "orders", 403),
        (["news"], "news2", 403),
        (["*/7"], "orders/7", 403),
        (["n*s"], "news", 403),
        (["NEWS"], "news", 403),
        ([], "news", 403),
        ("", "news", 403),
        (None, "news", 403),
        ({"news": True}, "news", 403),
        ([["news"], 7, None], "news", 403),
        (["~"], "~", 200),
        (["*"], "~", 200),
        (["news"], "~", 403),
    ],
    ids=str,
)
def test_claim_names_the_channels(claim: Any, channel: str, expected: int) -> None:
    assert status(site_with(), token(sse=claim), f"/events/{channel}") == expected


def test_subject_is_the_identity() -> None:
    site = site_with()
    authorization = {"Authorization": f"Bearer {token(sse='*')}"}
    with site.get("/events/~", **authorization) as response:
        site.sse.publish_to("ann", "hello")
        assert [part for part in (next(response.iter_encoded()) for _ in range(2)) if b"hello" in part]


@pytest.mark.parametrize(("claimed", "identities"), [("x", ("x",)), (7, ("7",)), (None, ())])
def test_identity_may_be_another_claim(claimed: Any, identities: tuple[str, ...]) -> None:
    site = site_with(identity="user", claim="channels")
    sent = jwt.encode({"user": claimed, "channels": ["news"]}, SECRET)
    with site.get("/events/news", Authorization=f"bearer  {sent}"):
        assert tuple(site.sse.find_state().streams._owned) == identities


@pytest.mark.parametrize("claimed", [[], {"a": 1}, 1.5, True, "", "x" * 501])
def test_token_with_invalid_identity_is_a_401(claimed: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert status(site_with(identity="user"), token(user=claimed)) == 401
    assert status(site_with(), signed(json.dumps({"sse": ["news"], "sub": claimed}).encode())) == 401
    assert levels(caplog) == []


def mangled(sent: str, part: int, change: Callable[[str], str]) -> str:
    parts = sent.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def by_hand(head: str, body: bytes = b'{"sse": ["news"]}', key: bytes = b"") -> str:
    """Return a token signed with HS256, whatever its header says; unsigned without a key."""
    parts = [jwt.utils.base64url_encode(part).decode() for part in (head.encode(), body)]
    signature = jwt.get_algorithm_by_name("HS256").sign(".".join(parts).encode(), key) if key else b""
    return ".".join([*parts, jwt.utils.base64url_encode(signature).decode()])


def signed(body: bytes) -> str:
    return by_hand('{"alg": "HS256"}', body, SECRET.encode())


BAD = {
    "nothing": "",
    "garbage": "x",
    "dots": "..",
    "not ASCII": "é.é.é",
    "100 kB": "a" * 100_000,
    "100 kB in three parts": ".".join("a" * 33_000 for _ in range(3)),
    "none": by_hand('{"alg": "none"}'),
    "NONE": by_hand('{"alg": "NONE"}'),
    "signed and none": by_hand('{"alg": "none"}', key=SECRET.encode()),
    "no algorithm": by_hand("{}", key=SECRET.encode()),
    "a list of algorithms": by_hand('{"alg": ["HS256"]}', key=SECRET.encode()),
    "another secret": token(OTHER),
    "another algorithm": token(algorithm="HS512"),
    "an algorithm of another family": token(RSA, "RS256"),
    "no signature": mangled(token(), 2, lambda _: ""),
    "half a signature": mangled(token(), 2, lambda part: part[:20]),
    "other claims": mangled(token(), 1, lambda _: token(sse=["*"]).split(".")[1]),
    "expired": token(exp=int(time.time()) - 1),
    "expired long ago": token(exp=0),
    "before all time": token(exp=-(10**30)),
    "never, as a text": token(exp="never"),
    "not yet": token(nbf=int(time.time()) + 3600),
    "issued in the future": token(iat=int(time.time()) + 3600),
    "for another audience": token(aud="other"),
    "a list": signed(b"[1]"),
    "no JSON": signed(b"\xff{"),
    "deep": signed(b"[" * 5000),
    "infinite": signed(b'{"sse": "*", "exp": 1e999}'),
    "a number of 400 digits": signed(b'{"sse": "*", "exp": %s}' % (b"1" * 400)),
    "a text of 400 digits": signed(b'{"sse": "*", "exp": "%s"}' % (b"1" * 400)),
    "a head that is deep": by_hand("[" * 5000),
    "no number": signed(b'{"sse": "*", "exp": NaN}'),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_token_is_a_401_without_reason(name: str, caplog: pytest.LogCaptureFixture) -> None:
    site = site_with()
    assert status(site, BAD[name]) == 401
    assert levels(caplog) == []
    assert site.counts() == (0, 0, 0)


def test_public_key_is_not_accepted_as_hmac_secret() -> None:
    site = site_with(PUBLIC, ["RS256"])
    forged = by_hand('{"alg": "HS256"}', key=PUBLIC)
    assert (status(site, forged), status(site, token(RSA, "RS256"))) == (401, 200)


@pytest.mark.parametrize(
    ("audience", "sent", "expected"),
    [("me", "me", 200), ("me", ["you", "me"], 200), (["us", "me"], "me", 200), ("me", "you", 401), ("me", None, 401)],
)
def test_audience_of_token_must_match(audience: Any, sent: Any, expected: int) -> None:
    assert status(site_with(audience=audience), token(**({} if sent is None else {"aud": sent}))) == expected


def test_request_without_token_is_a_401_with_challenge() -> None:
    site = site_with()
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": token()}):
        answer = site.get("/events/news", **headers)
        assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("options", "works"),
    [
        ({}, {"header"}),
        ({"cookie": "auth"}, {"header", "cookie"}),
        ({"query": "token"}, {"header", "query"}),
        ({"cookie": "auth", "query": "token"}, {"header", "cookie", "query"}),
    ],
)
def test_token_is_read_only_from_allowed_places(options: dict[str, str], works: set[str]) -> None:
    site = site_with(**options)
    client = site.app.test_client(use_cookies=False)
    sent = token()
    asks = {
        "header": ("/events/news", {"Authorization": f"BEARER {sent}"}),
        "cookie": ("/events/news", {"Cookie": f"auth={sent}"}),
        "query": (f"/events/news?token={sent}", {}),
        "another cookie": ("/events/news", {"Cookie": f"other={sent}"}),
    }
    for where, (path, headers) in asks.items():
        with client.get(path, headers=headers) as response:
            assert (response.status_code == 200) == (where in works), where
    with client.get(f"/events/news?token={sent}", headers={"Authorization": "Bearer x"}) as response:
        assert response.status_code == 401, "an invalid token in the header is not replaced by another"


def test_stream_ends_when_its_token_expires() -> None:
    site = site_with()
    expires = int(time.time()) + 2
    sent = token(exp=expires)
    with site.get("/events/news", Authorization=f"Bearer {sent}") as response:
        [stream] = site.sse.find_state().streams.streams_of("ann")
        site.sse.publish("news", "early")
        until(lambda: stream.close_reason is not None, "its end")
        assert time.time() >= expires
        assert stream.close_reason is CloseReason.TIMEOUT
        site.sse.publish("news", "late")
        assert b"late" not in response.data
    assert status(site, sent) == 401


def test_token_is_verified_once_for_all_channels() -> None:
    asked: list[str] = []

    def find_key(sent: str) -> str:
        asked.append(sent)
        return SECRET

    sent = token(sse="*")
    assert status(site_with(find_key), sent, "/events?channel=a&channel=b&channel=~") == 200
    assert asked == [sent]


def test_numeric_subject_is_an_identity() -> None:
    site = site_with()
    with site.get("/events/news", Authorization="Bearer " + signed(b'{"sse": ["news"], "sub": 7}')):
        assert list(site.sse.find_state().streams._owned) == ["7"]


@pytest.mark.parametrize("name", ["a head that is deep", "garbage", "dots"])
def test_invalid_token_read_by_key_function_is_a_401(name: str, caplog: pytest.LogCaptureFixture) -> None:
    site = site_with(lambda sent: keys()[jwt.get_unverified_header(sent)["kid"]])
    assert (status(site, BAD[name]), levels(caplog)) == (401, [])


def keys() -> dict[str, str]:
    return {"old": SECRET, "new": OTHER}


@pytest.mark.parametrize(
    "find_key",
    [
        lambda sent: keys()[jwt.get_unverified_header(sent)["kid"]],
        lambda sent: keys().get(jwt.get_unverified_header(sent).get("kid", "")),
        lambda *_: OTHER,
        lambda found=OTHER: found,
        lambda: OTHER,
        lambda: jwt.PyJWK({"kty": "oct", "alg": "HS256", "k": jwt.utils.base64url_encode(OTHER.encode()).decode()}),
    ],
)
def test_key_function_is_called_for_each_token(find_key: Any, caplog: pytest.LogCaptureFixture) -> None:
    site = site_with(find_key)
    good = jwt.encode({"sse": "*"}, OTHER, headers={"kid": "new"})
    unknown = jwt.encode({"sse": "*"}, "u" * 64, headers={"kid": "unknown"})
    nameless = jwt.encode({"sse": "*"}, "n" * 64)
    assert [status(site, sent) for sent in (good, unknown, nameless, "x")] == [200, 401, 401, 401]
    assert levels(caplog) == []


def test_keys_of_jwks_issuer_may_rotate(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    client = jwt.PyJWKClient("https://issuer.invalid/jwks.json")
    monkeypatch.setattr(client, "cooldown_duration", 0.0, raising=False)  # before it queries the issuer again
    published: list[dict[str, Any]] = []

    def fetch_data() -> Any:
        if not published:
            raise jwt.PyJWKClientConnectionError("the issuer is away")
        return {"keys": published}

    def add(kid: str, key: rsa.RSAPrivateKey) -> None:
        numbers = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        published[:] = [{**numbers, "kid": kid, "use": "sig", "alg": "RS256"}]

    monkeypatch.setattr(client, "fetch_data", fetch_data)
    site = site_with(client.get_signing_key_from_jwt, ["RS256"])

    def sent(kid: str, key: rsa.RSAPrivateKey) -> str:
        return jwt.encode({"sse": "*"}, key, "RS256", {"kid": kid})

    assert status(site, sent("1", RSA)) == 403, "an outage of the issuer is not the token's fault"
    assert levels(caplog) == ["ERROR"]
    add("1", RSA)
    assert status(site, sent("1", RSA)) == 200
    new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert status(site, sent("2", new)) == 401
    add("2", new)
    assert [status(site, sent("2", new)), status(site, sent("1", RSA))] == [200, 401]


def test_rule_may_combine_token_with_other_checks() -> None:
    by_token = jwt_authorizer(SECRET, algorithms=["HS256"])
    site = Site(lambda channel: channel.startswith("free/") or by_token(channel))
    assert site.get("/events/news").status_code == 401
    with site.open("free/a") as stream:
        site.sse.publish("free/a", 1)
        assert texts(stream.ready()) == ["1"]
        assert emitter_of(stream).is_open


def test_publish_endpoint_may_require_a_token() -> None:
    site = site_with()
    site.sse.publisher(jwt_authorizer(SECRET, algorithms=["HS256"], claim="publish"))

    def post(**headers: str) -> Any:
        return site.client.post("/events/news", json=1, headers=headers)

    assert post().headers["WWW-Authenticate"] == "Bearer"
    assert post(Authorization=f"Bearer {token()}").status_code == 403
    assert post(Authorization=f"Bearer {token(publish=['news'])}").status_code == 201


@pytest.mark.parametrize("algorithms", [[], "HS256", ["none"], ["HS256", "None"], [None], ["XS1"], ()])
def test_invalid_algorithms_raise(algorithms: Any) -> None:
    with pytest.raises(ValueError, match="algorithms"):
        jwt_authorizer(SECRET, algorithms=algorithms)


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        ("", ["HS256"]),
        (None, ["HS256"]),
        (b"", ["HS256"]),
        (7, ["HS256"]),
        (SECRET, ["RS256"]),
        (PUBLIC, ["RS256", "HS256"]),
    ],
    ids=["empty", "None", "no bytes", "a number", "a text", "of two kinds"],
)
def test_invalid_key_raises(key: Any, algorithms: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        jwt_authorizer(key, algorithms=algorithms)


def test_unusable_key_from_function_is_logged_and_denies(caplog: pytest.LogCaptureFixture) -> None:
    site = site_with(lambda: PUBLIC, ["HS256"])
    assert (status(site, token()), levels(caplog)) == (403, ["ERROR"])


def test_too_long_token_is_rejected_unread() -> None:
    def find_key(sent: str) -> str:
        raise AssertionError(f"called with {len(sent)} characters")

    assert status(site_with(find_key), "a" * (MAX_TOKEN_CHARACTERS + 1)) == 401


def test_pyjwt_is_imported_only_when_used() -> None:
    program = (
        "import sys, flask_sse_emitters.access as access\n"
        "print('jwt' in sys.modules)\n"
        "sys.modules['jwt'] = None\n"
        "try:\n    access.jwt_authorizer('s', algorithms=['HS256'])\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "jwt_authorizer needs PyJWT: pip install 'flask-sse-emitters[jwt]'"]


def test_debug_mode_shows_why_token_is_invalid(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    site = site_with()
    site.app.debug = True
    answer = site.get("/events/news", Authorization=f"Bearer {BAD['expired']}")
    assert (answer.status_code, "expired" in answer.text) == (401, True)
