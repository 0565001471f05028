"""What lies in the database: the tables, and the functions that keep the rules. All in one schema, and versioned.

Every change of a channel is one call of a function, and so one round trip, and one step. The files have the statements
for the schema ``sse``, and a name between two ``@`` for each figure.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from ....config.settings import DEFAULTS
from ....wire.frame import END
from ...base import INTERRUPTED
from ...event_ids import EPOCH_LENGTH
from ...event_log import MAX_FORMER_EPOCHS
from ...listening.members import CLAIM_SECONDS, GONE_AT_ONCE

#: Is raised with what :func:`ddl` returns. Who finds a lower one in the database runs that again.
VERSION = 2

#: From this one on, processes of this version do not understand what lies there. Until then, functions are called as
#: they are here, whatever else has changed: two neighbouring versions of the package share a database in an upgrade.
NOT_UNDERSTOOD = 100

#: In the order in which they are run.
_FILES = ("tables", "channels", "publishing", "reading", "members", "upkeep")

_DAY_MS = 86_400_000

_FIGURES: dict[str, object] = {
    "version": VERSION,
    "end": END,
    "interrupted": INTERRUPTED.payload.decode().replace("\n", "\\012"),  # as a literal of bytea
    "epoch_length": EPOCH_LENGTH,
    "former_epochs": MAX_FORMER_EPOCHS,
    "history": DEFAULTS.history,  # the bounds of a channel that was given none
    "history_ms": round(DEFAULTS.history_seconds * 1000),
    "max_bytes": DEFAULTS.max_event_bytes,  # of an event that is published by SQL
    "key_ms": 300_000,  # a key is remembered for so long
    "grace_ms": 10_000,  # events stay for so long beyond the bounds, for processes that have not read them yet
    "events_per_deletion": 64,  # old ones are deleted with each event that has a multiple of this offset,
    "deleted": 1000,  # so many at a time at most
    "page_bytes": 262_144,  # of one channel that are read at once, and one event in any case
    "presence_ms": 12_000,  # the counts that a process reports hold for so long
    "touch_ms": 60_000,  # a channel that is used is noted as such after so long,
    "unused_touch_ms": 300_000,  # by its readers after this, where it never had an event,
    "used_touch_ms": _DAY_MS,  # and after this, where it had
    "unused_ms": 600_000,  # without use, a channel that never had an event, nor has a run, is forgotten after this,
    "used_ms": 7 * _DAY_MS,  # and another one after this
    "waiting": 1000,  # events of the outbox, and
    "tidied": 200,  # channels, that are gone through at a time
    "claim_ms": round(CLAIM_SECONDS * 1000),
    "gone_at_once": GONE_AT_ONCE,
    "rows": 1000,  # old rows that are deleted at a time
    "tidy_ms": 900,  # by whichever process comes first after this
}

#: A schema's name: PostgreSQL cuts off what has more than 63 characters. It is quoted everywhere.
_NAME = re.compile(r"(?!pg_)[A-Za-z0-9._\-:/]{1,63}", re.ASCII)


def check_prefix(prefix: str) -> str:
    """Return the name of the schema, if it is one.

    :raises ValueError: says what it may be.
    """
    if not _NAME.fullmatch(prefix):
        raise ValueError(
            "over PostgreSQL, SSE_BROKER_PREFIX is the name of a schema: 1 to 63 ASCII letters, digits and . _ - : /, "
            f"and not pg_ first, unlike {prefix!r}"
        )
    return prefix


@cache
def render(statement: str, prefix: str) -> str:
    """Return a statement with the name of the schema in the place of ``sse``."""
    return re.sub(r"(?<=SCHEMA )sse\b|\bsse\b(?=[.;])", f'"{prefix}"', statement).replace("'sse'", f"'{prefix}'")


@cache
def ddl(prefix: str) -> str:
    """Return the statements that make the schema, its tables and its functions, or bring them up to date.

    They are to be run in one transaction, wait while another process does it, and may be run again.
    """
    text = "\n".join(files(__package__).joinpath(f"{name}.sql").read_text("utf-8") for name in _FILES)
    return render(re.sub(r"@(\w+)@", lambda match: str(_FIGURES[match[1]]), text), prefix)
