"""Errors of PostgreSQL: whether the command may have run, and what to change."""

from __future__ import annotations

import logging
from collections.abc import Callable

import psycopg

from ...remote.health import Health
from ...remote.trouble import AWAY_CAUSE, RIGHTS_CAUSE, Trouble, is_unsent

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")


class SchemaError(psycopg.OperationalError):
    """The schema is not there, and cannot be made."""


class NewerSchemaError(psycopg.OperationalError):
    """A newer version of this package keeps its channels there, in a way that this one does not understand."""


#: The database cannot be reached, or does not answer.
AWAY = Trouble(AWAY_CAUSE, "is {url} right (SSE_BROKER_URL), and does it run?", was_refused=False)

#: It refuses for a reason that the tables lack.
OTHER = Trouble("other", "the log of PostgreSQL at {url} (SSE_BROKER_URL) may say more")

SCHEMA = Trouble(
    "schema",
    "the schema is missing, or that of an older version, and the role of SSE_BROKER_URL may not make it: run what "
    "'flask sse schema' prints as a role that may, and grant this one its rights, which it names as well",
)

_NEWER = Trouble(
    "format",
    "a newer version of flask-sse-emitters uses this schema: install that here as well, or give this app a "
    "SSE_BROKER_PREFIX of its own",
)
_RIGHTS = Trouble(
    RIGHTS_CAUSE,
    "grant the role of SSE_BROKER_URL its rights on the schema: 'flask sse schema' prints them",
)
_LOGIN = Trouble("login", "PostgreSQL refuses the user or the password in SSE_BROKER_URL: put the right ones there")
_FULL = Trouble("full", "PostgreSQL has no room left: its log says where")
_STANDBY = Trouble("standby", "this PostgreSQL takes no writes, as a standby: let SSE_BROKER_URL name the primary")
_CONNECTIONS = Trouble(
    "connections", "PostgreSQL takes no more connections: raise its max_connections, or put pgbouncer before it"
)
_ISOLATION = Trouble(
    "isolation",
    "let the transactions of this role be READ COMMITTED: ALTER ROLE ... SET default_transaction_isolation TO "
    "'read committed'",
)
_STARTING = Trouble(
    AWAY_CAUSE, "PostgreSQL is starting, or shutting down: nothing needs to be changed", was_refused=False
)

#: By the code of the error, or its class.
_BY_CODE = {
    "42501": _RIGHTS,
    "28": _LOGIN,
    "53100": _FULL,
    "53200": _FULL,
    "54": _FULL,
    "53300": _CONNECTIONS,
    "25006": _STANDBY,
    "SSE01": _ISOLATION,
    "57P": _STARTING,
    "42P01": SCHEMA,
    "42883": SCHEMA,
    "3F000": SCHEMA,
}

#: By parts of the text, for errors of connecting, which have no code.
_BY_TEXT = (
    (("password authentication failed", "no password supplied", "no pg_hba.conf entry", 'role "'), _LOGIN),
    (("too many clients", "remaining connection slots", "too many connections"), _CONNECTIONS),
    (("the database system is",), _STARTING),
)

#: The classes of errors after which the transaction may have been committed all the same.
_IN_DOUBT = ("08", "57P", "40003", "XX")


def diagnose(error: BaseException) -> Trouble:
    """Find out what an error means: one of PostgreSQL, or one on the way there."""
    if isinstance(error, SchemaError):
        return SCHEMA
    if isinstance(error, NewerSchemaError):
        return _NEWER
    code = code_of(error)
    for length in (5, 3, 2):
        if code[:length] in _BY_CODE:
            return _BY_CODE[code[:length]]
    for marks, trouble in _BY_TEXT:
        if any(mark in str(error) for mark in marks):
            return trouble
    return OTHER if code and not code.startswith("08") else AWAY


def code_of(error: BaseException) -> str:
    """Return the code that PostgreSQL has given to an error; empty where it has given none."""
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""


def was_refused(error: BaseException) -> bool:
    """Return whether PostgreSQL has answered with this error, and goes on."""
    code = code_of(error)
    return bool(code) and not code.startswith(_IN_DOUBT)


def may_have_run(error: BaseException) -> bool:
    """Return whether a command that failed with this error may have been committed."""
    return not was_refused(error) and not is_unsent(error)


def error_text(error: BaseException) -> str:
    """Return the error's own text, its first line."""
    return f"{error}".strip().partition("\n")[0].rstrip(". ") or type(error).__name__


class PostgresqlHealth(Health):
    """The parts of the work that fail: see :class:`.Health`."""

    def __init__(self, url: str, changed: Callable[[], object] = lambda: None) -> None:
        super().__init__(url, changed, diagnose, error_text, log)
