"""What an error of a server means: what to change, and whether it may have done what it was asked to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

#: The causes that more than the text of an error depends on.
AWAY_CAUSE, RIGHTS_CAUSE = "away", "rights"

#: The attribute of an error that was raised before anything was sent.
_UNSENT = "flask_sse_emitters_unsent"


class Trouble(NamedTuple):
    """The meaning of an error."""

    cause: str  #: the same for all errors that one change fixes
    advice: str  #: what to change; ``{url}`` stands for the address of the server
    was_refused: bool = True  #: the server has answered, and has done nothing


@contextmanager
def before_sending() -> Iterator[None]:
    """Mark errors that are raised in this block: nothing was sent before. See :func:`is_unsent`."""
    try:
        yield
    except Exception as error:
        setattr(error, _UNSENT, True)
        raise


def is_unsent(error: BaseException | None) -> bool:
    """Return whether an error was raised before anything was sent, so that the server has done nothing."""
    while error is not None:
        if getattr(error, _UNSENT, False):
            return True
        error = error.__cause__
    return False
