"""Errors of Redis: whether the command may have run, and what to change."""

from __future__ import annotations

import redis

from ..remote.trouble import AWAY_CAUSE, RIGHTS_CAUSE, Trouble, is_unsent

#: Redis cannot be reached, or does not answer.
AWAY = Trouble(AWAY_CAUSE, "is {url} right (SSE_BROKER_URL), and does it run?", was_refused=False)

#: The script ran, and found something else in the keys of one channel. Other channels may be fine.
KEYS = Trouble("keys", "its keys hold something else than this package puts there: {keys}; delete them to start over")

#: This user may not run all the commands that are needed.
RIGHTS = Trouble(
    RIGHTS_CAUSE, "give the user of SSE_BROKER_URL the rights for these commands, keys and channels (ACL SETUSER)"
)

#: Redis refuses a command as a whole, for a reason that the table lacks.
OTHER = Trouble("other", "does the server at {url} (SSE_BROKER_URL) know scripts, streams and publishing?")

#: By parts of the error's text: those of Redis and Valkey, as redis-py passes them on. Older versions put other words
#: around them where the error comes from within a script.
TABLE = (
    (
        ("of the package understands",),
        Trouble(
            "format",
            "a newer version of flask-sse-emitters uses this Redis: install that here as well, or give this app a "
            "SSE_BROKER_PREFIX of its own",
        ),
    ),
    (("used memory > 'maxmemory'",), Trouble("memory", "Redis is full: raise its maxmemory, or lower SSE_HISTORY")),
    (
        ("Authentication required", "Protocol error: unauthenticated"),
        Trouble("password", "Redis asks for a password: put it into SSE_BROKER_URL, as in redis://:password@host"),
    ),
    (
        ("invalid username-password pair", "invalid password"),
        Trouble("login", "Redis refuses the user or the password in SSE_BROKER_URL: put the right ones there"),
    ),
    (
        ("without any password configured", "no password is set"),
        Trouble("no password", "Redis has no password: take it out of SSE_BROKER_URL, or set requirepass in Redis"),
    ),
    (("has no permissions", "No permissions to", "The user executing the script can't"), RIGHTS),
    (
        ("read only replica", "previous master is now a slave"),
        Trouble("replica", "this Redis is a replica, which takes no writes: let SSE_BROKER_URL name the master"),
    ),
    (
        ("is loading the dataset",),
        Trouble("away", "Redis is reading its data, and answers when it is done: nothing needs to be changed"),
    ),
    (
        ("MISCONF",),
        Trouble(
            "disk",
            "Redis cannot write to its disk: make room there, or set stop-writes-on-bgsave-error to no; its own log "
            "says more",
        ),
    ),
    (
        ("NOREPLICAS",),
        Trouble("replicas", "Redis has too few replicas: bring them back, or lower its min-replicas-to-write"),
    ),
    (
        ("cluster is down", "Hash slot not served", "during rehashing of slot"),
        Trouble("cluster", "a part of the cluster is away, or being moved: bring its nodes back, or wait for it"),
    ),
    (("max number of clients",), Trouble("maxclients", "Redis takes no more connections: raise its maxclients")),
    (
        ("Too many open files",),
        Trouble(
            "files", "this process may open no more files: raise its limit (ulimit -n, or LimitNOFILE= in systemd)"
        ),
    ),
)


def diagnose(error: BaseException) -> Trouble:
    """Find out what an error means: one of Redis, or one on the way there."""
    text = str(error)
    for marks, trouble in TABLE:
        if any(mark in text for mark in marks):
            return trouble
    if _is_from_script(error) or isinstance(error, ValueError):  # or another program has written what was read
        return KEYS
    return OTHER if isinstance(error, redis.ResponseError) else AWAY


def may_have_run(error: BaseException) -> bool:
    """Return whether a script that failed with this error may have changed something.

    A refused one has not: Redis refuses a script's first write, or none. Only rights are checked at each command, and
    so may be missing in the middle.
    """
    trouble = diagnose(error)
    if trouble is RIGHTS:
        return _is_from_script(error)
    return not trouble.was_refused and not is_unsent(error)


def error_text(error: BaseException) -> str:
    """Return the error's own text, without the place in the script."""
    return f"{error}".partition(" script: ")[0].rstrip(". ") or type(error).__name__


def _is_from_script(error: BaseException) -> bool:
    return isinstance(error, redis.ResponseError) and "user_script" in str(error)
