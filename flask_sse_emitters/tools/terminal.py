"""Text from elsewhere, made safe to show in a terminal: pure."""

from __future__ import annotations

import re

#: What a terminal obeys in place of showing it (C0, DEL, C1), what changes the order in which it shows the rest
#: (line ends of Unicode, marks and overrides of the direction of text), and lone surrogates, which cannot be written.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str, keep: str = "") -> str:
    r"""Show each control character as Python writes it: ``\x1b``, ``\u202e``. All other text stays as it is.

    :param keep: control characters that stay as well.
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def escape_block(block: bytes, encoding: str) -> bytes:
    """Show the control characters of a block of a stream, but for its line ends and tabs.

    :param block: in UTF-8; bytes that are not are shown one by one.
    :param encoding: of the terminal, which the result is in.
    """
    text = escape_controls(block.decode("utf-8", "backslashreplace"), keep="\n\t")
    return text.encode(encoding, "backslashreplace")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
