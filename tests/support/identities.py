"""Identities that equal a text and are no plain str."""

from __future__ import annotations

import enum
from typing import Any

from werkzeug.local import LocalProxy

TEXT = "admin"


class Role(str, enum.Enum):  # noqa: UP042 - its format is not its text
    ADMIN = TEXT


class Shouting(str):
    """A str whose ``str()`` differs from its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


ADMINS: list[Any] = [Role.ADMIN, Shouting(TEXT), LocalProxy(lambda: TEXT), LocalProxy(lambda: Role.ADMIN)]
