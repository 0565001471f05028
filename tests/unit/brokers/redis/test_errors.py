"""What errors of Redis mean: their causes, what to change, and whether a command may have run."""

from __future__ import annotations

import pytest
import redis

from flask_sse_emitters.brokers.redis.errors import AWAY, KEYS, OTHER, RIGHTS, diagnose, error_text, may_have_run

OLD = "Error running script (call to f_64db9): @user_script:8: @user_script: 8: "


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{OLD}-OOM command not allowed when used memory > 'maxmemory'.", "memory"),
        (f"{OLD}-READONLY You can't write against a read only replica.", "replica"),
        (f"{OLD}-MISCONF Errors writing to the AOF file: No space left on device", "disk"),
        (f"{OLD}WRONGTYPE Operation against a key holding the wrong kind of value", "keys"),
        ("The cluster is down", "cluster"),
        ("unknown command 'evalsha'", "other"),
    ],
)
def test_errors_of_older_redis_versions_are_diagnosed(text: str, cause: str) -> None:
    error = redis.ResponseError(text)
    assert diagnose(error).cause == cause
    assert not may_have_run(error)


def test_error_of_timeout_or_disconnect_may_have_published() -> None:
    for error in (redis.TimeoutError("Timeout reading from socket"), redis.ConnectionError("closed by server")):
        assert diagnose(error) is AWAY
        assert may_have_run(error)


def test_error_text_omits_position_in_lua_script() -> None:
    error = redis.ResponseError("WRONGTYPE Operation script: 64db933a, on @user_script:8.")
    assert (error_text(error), diagnose(error)) == ("WRONGTYPE Operation", KEYS)
    assert error_text(redis.TimeoutError()) == "TimeoutError"


def test_error_advice_has_no_unfilled_placeholder() -> None:
    for trouble in (AWAY, KEYS, OTHER, RIGHTS):
        assert "{" not in trouble.advice.format(url="redis://x", keys="a and b")
