"""JSON Web Tokens as an access rule."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flask_sse_emitters import CloseReason
from flask_sse_emitters.access import jwt_authorizer
from tests.support.board import Board, levels, texts
from tests.support.waiting import until

SECRET, OTHER = "s" * 64, "o" * 64
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"sub": "ann", "sse": ["news"], **claims}, key, algorithm)


def board_with(key: Any = SECRET, algorithms: Any = ("HS256",), **options: Any) -> Board:
    return Board(jwt_authorizer(key, algorithms=algorithms, **options))


def status(board: Board, sent: str, path: str = "/events/news", **headers: str) -> int:
    with board.get(path, Authorization=f"Bearer {sent}", **headers) as response:
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
        (["n*s", "*ews", "new?", "^news$", ".*"], "news", 403),
        (["NEWS", "new", "newss", "news/*"], "news", 403),
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
def test_token_claim_names_the_channels(claim: Any, channel: str, expected: int) -> None:
    assert status(board_with(), token(sse=claim), f"/events/{channel}") == expected


def identity_of_reader(board: Board) -> str | None:
    """Return the identity of the only stream, as :meth:`SSE.stats` shows it for one with pending events."""
    board.publish("news", 1, 2)
    [slow] = board.sse.stats()["slow"]
    found: str | None = slow["identity"]
    return found


@pytest.mark.parametrize(
    ("options", "claims", "identity"),
    [
        ({}, {"sub": "ann"}, "ann"),
        ({}, {"sub": 7}, "7"),
        ({"identity": "user"}, {"user": "x"}, "x"),
        ({"identity": "user"}, {"user": 7}, "7"),
        ({"identity": "user"}, {"sub": "ann"}, None),
    ],
)
def test_token_subject_or_another_claim_is_the_identity(
    options: dict[str, str], claims: dict[str, Any], identity: str | None
) -> None:
    board = board_with(claim="channels", **options)
    sent = signed(json.dumps({"channels": ["news"], **claims}).encode())
    with board.get("/events/news", Authorization=f"bearer  {sent}"):
        assert identity_of_reader(board) == identity


@pytest.mark.parametrize("claimed", [[], {"a": 1}, 1.5, True, "", "x" * 501, "\ud800"], ids=ascii)
def test_token_with_invalid_identity_is_a_401(claimed: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert status(board_with(identity="user"), token(user=claimed)) == 401
    assert status(board_with(), signed(json.dumps({"sse": ["news"], "sub": claimed}).encode())) == 401
    assert levels(caplog) == []


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
    "a key of its own": jwt.encode(
        {"sse": "*"}, OTHER, headers={"jwk": {"kty": "oct", "k": "b28"}, "kid": "/dev/null"}
    ),
    "the address of a key": jwt.encode({"sse": "*"}, OTHER, headers={"jku": "http://127.0.0.1:1/"}),
    "something critical": by_hand('{"alg": "HS256", "crit": ["exp2"], "exp2": 1}', key=SECRET.encode()),
    "four parts": f"{token()}.x",
    "two parts": token().rpartition(".")[0],
    "no signature": token().rpartition(".")[0] + ".",
    "half a signature": token()[:-20],
    "other claims": ".".join([*token(sse=["*"]).split(".")[:2], token().split(".")[2]]),
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
def test_token_that_is_invalid_is_a_401_without_reason(name: str, caplog: pytest.LogCaptureFixture) -> None:
    board = board_with()
    assert status(board, BAD[name]) == 401
    assert (levels(caplog), board.clients) == ([], 0)
    if name == "expired":
        board.app.debug = True
        assert "expired" in board.get("/events/news", Authorization=f"Bearer {BAD[name]}").text


def test_token_signed_with_the_public_key_as_secret_is_a_401() -> None:
    board = board_with(PUBLIC, ["RS256"])
    assert status(board, token(RSA, "RS256")) == 200
    for algorithm in ("HS256", "RS256", "none"):
        for key in (PUBLIC, PUBLIC.strip(), b""):
            assert status(board, by_hand(json.dumps({"alg": algorithm}), key=key)) == 401


@pytest.mark.parametrize(
    ("audience", "sent", "expected"),
    [
        ("me", "me", 200),
        ("me", ["you", "me"], 200),
        (["us", "me"], "me", 200),
        ("me", "you", 401),
        ("me", None, 401),
        ("me", {"me": 1}, 401),
    ],
)
def test_token_audience_must_match(audience: Any, sent: Any, expected: int) -> None:
    assert status(board_with(audience=audience), token(**({} if sent is None else {"aud": sent}))) == expected


def test_token_that_is_missing_is_a_401_with_challenge() -> None:
    board = board_with()
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": token()}):
        answer = board.get("/events/news", **headers)
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
    board = board_with(**options)
    client = board.app.test_client(use_cookies=False)
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


def test_token_expiry_ends_the_stream() -> None:
    board = board_with()
    expires = int(time.time()) + 2
    sent = token(exp=expires)
    with board.get("/events/news", Authorization=f"Bearer {sent}") as response:
        [emitter] = board.emitters
        board.sse.publish("news", "early")
        until(lambda: not emitter.is_open, "its end")
        assert time.time() >= expires
        assert emitter.close_reason is CloseReason.TIMEOUT
        board.sse.publish("news", "late")
        assert b"late" not in response.data
    assert status(board, sent) == 401


def test_token_is_verified_once_for_all_channels() -> None:
    asked: list[str] = []

    def find_key(sent: str) -> str:
        asked.append(sent)
        return SECRET

    sent = token(sse="*")
    board = board_with(find_key)
    assert status(board, sent, "/events?channel=a&channel=b&channel=~") == 200
    assert status(board, "a" * 16_385) == 401
    assert asked == [sent], "and not at all, if it is too long"


KEYS = {"old": SECRET, "new": OTHER}


@pytest.mark.parametrize(
    "find_key",
    [
        lambda sent: KEYS[jwt.get_unverified_header(sent)["kid"]],
        lambda sent: KEYS.get(jwt.get_unverified_header(sent).get("kid", "")),
        lambda *_: OTHER,
        lambda found=OTHER: found,
        lambda: OTHER,
        lambda: jwt.PyJWK({"kty": "oct", "alg": "HS256", "k": jwt.utils.base64url_encode(OTHER.encode()).decode()}),
    ],
)
def test_token_key_function_is_called_for_each_token(find_key: Any, caplog: pytest.LogCaptureFixture) -> None:
    board = board_with(find_key)
    good = jwt.encode({"sse": "*"}, OTHER, headers={"kid": "new"})
    unknown = jwt.encode({"sse": "*"}, "u" * 64, headers={"kid": "unknown"})
    nameless = jwt.encode({"sse": "*"}, "n" * 64)
    assert status(board, good) == 200
    for sent in (unknown, nameless, *(BAD[name] for name in ("a head that is deep", "garbage", "dots"))):
        assert status(board, sent) == 401
    assert levels(caplog) == []


def test_token_keys_of_a_jwks_issuer_may_rotate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = jwt.PyJWKClient("https://issuer.invalid/jwks.json")
    monkeypatch.setattr(client, "cooldown_duration", 0.0, raising=False)  # before it queries the issuer again
    keys: dict[str, rsa.RSAPrivateKey] = {}

    def fetch_data() -> Any:
        if not keys:
            raise jwt.PyJWKClientConnectionError("the issuer is away")
        numbers = {kid: json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) for kid, key in keys.items()}
        return {"keys": [{**numbers[kid], "kid": kid, "use": "sig", "alg": "RS256"} for kid in keys]}

    monkeypatch.setattr(client, "fetch_data", fetch_data)
    board = board_with(client.get_signing_key_from_jwt, ["RS256"])
    old = jwt.encode({"sse": "*"}, RSA, "RS256", {"kid": "1"})
    assert status(board, old) == 403, "an outage of the issuer is not the token's fault"
    assert levels(caplog) == ["ERROR"]
    keys["1"] = RSA
    assert status(board, old) == 200
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    new = jwt.encode({"sse": "*"}, key, "RS256", {"kid": "2"})
    assert status(board, new) == 401
    keys = {"2": key}
    assert [status(board, new), status(board, old)] == [200, 401]


def test_token_rule_may_be_combined_with_other_checks() -> None:
    by_token = jwt_authorizer(SECRET, algorithms=["HS256"])
    board = Board(lambda channel: channel.startswith("free/") or by_token(channel))
    assert board.get("/events/news").status_code == 401
    with board.open("free/a") as stream:
        board.sse.publish("free/a", 1)
        assert texts(stream.ready()) == ["1"]


def test_token_may_be_required_by_the_publish_endpoint() -> None:
    board = board_with()
    board.sse.publisher(jwt_authorizer(SECRET, algorithms=["HS256"], claim="publish"))

    def post(**headers: str) -> Any:
        return board.client.post("/events/news", json=1, headers=headers)

    assert post().headers["WWW-Authenticate"] == "Bearer"
    assert post(Authorization=f"Bearer {token()}").status_code == 403
    assert post(Authorization=f"Bearer {token(publish=['news'])}").status_code == 201


@pytest.mark.parametrize(
    ("key", "algorithms", "wrong"),
    [
        *((SECRET, given, "algorithms") for given in ([], "HS256", ["none"], ["HS256", "None"], [None], ["XS1"], ())),
        *((given, ["HS256"], "key") for given in ("", None, b"", 7)),
        (SECRET, ["RS256"], "key"),
        (PUBLIC, ["RS256", "HS256"], "key"),
    ],
    ids=lambda value: "PEM" if value is PUBLIC else repr(value)[:20],
)
def test_token_key_or_algorithms_that_are_invalid_are_rejected(key: Any, algorithms: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        jwt_authorizer(key, algorithms=algorithms)


def test_token_key_function_with_an_unusable_key_denies_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    board = board_with(lambda: PUBLIC, ["HS256"])
    assert (status(board, token()), levels(caplog)) == (403, ["ERROR"])
