"""The version of what lies in Redis, which each process compares with its own when it first uses a connection."""

from __future__ import annotations

import redis

#: Is raised where a process with a lower one could not go on: where keys or announcements mean something else. A field
#: more, which older versions pass over, is no reason.
FORMAT = 1


class NewerFormatError(redis.ResponseError):
    """A newer version of this package keeps its channels there, in a way that this one does not understand."""

    def __init__(self, found: int) -> None:
        super().__init__(f"what lies there has format {found}, and this version of the package understands {FORMAT}")
