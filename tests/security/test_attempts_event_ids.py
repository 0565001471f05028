"""No ``Last-Event-ID`` replays what its sender may not read."""

from __future__ import annotations

import pytest

from tests.security.attempts import Attempt, World, check_attempt, on_gevent

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
