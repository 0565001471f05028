"""Make text from outside safe to show in a terminal. Pure."""

from __future__ import annotations

import re

#: Characters that control a terminal (C0, DEL, C1), that change the order of the text (Unicode's line ends, direction
#: marks and overrides), and lone surrogates, which cannot be encoded.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str, keep: str = "") -> str:
    r"""Show each control character as Python writes it: ``\x1b``, ``\u202e``. All other text stays as it is.

    :param keep: control characters that also stay.
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def escape_block(block: bytes, encoding: str) -> bytes:
    """Escape the control characters of a block of a stream, except line ends and tabs.

    :param block: in UTF-8; other bytes are escaped one by one.
    :param encoding: of the terminal, and of the result.
    """
    text = escape_controls(block.decode("utf-8", "backslashreplace"), keep="\n\t")
    return text.encode(encoding, "backslashreplace")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
