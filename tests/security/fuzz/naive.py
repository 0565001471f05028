"""A second reader of event streams, for comparison: the standards' own steps, one character after the other.

It knows nothing of pieces, and is written for no speed at all: WHATWG Encoding, section 8.1.1, and WHATWG HTML, section
9.2.6. Nothing here may come from the package that it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Told(NamedTuple):
    name: str
    id: str | None
    data: str


def read(stream: bytes) -> list[Told]:
    """All that a browser dispatches."""
    text = utf8(stream)
    events = []
    data, name, last_id = "", "", None
    for line in lines(text.removeprefix("\ufeff")):
        if line == "":
            if data != "":
                events.append(Told(name if name != "" else "message", last_id, data[:-1]))
            data, name = "", ""
        elif line[0] == ":":
            continue
        else:
            field, value = field_of(line)
            if field == "event":
                name = value
            if field == "data":
                data = data + value + "\n"
            if field == "id" and "\0" not in value:
                last_id = value
    return events


def field_of(line: str) -> tuple[str, str]:
    for at, character in enumerate(line):
        if character == ":":
            value = line[at + 1 :]
            return line[:at], value[1:] if value[:1] == " " else value
    return line, ""


def lines(text: str) -> Iterator[str]:
    """Those that have an end."""
    line = ""
    at = 0
    while at < len(text):
        if text[at] not in "\r\n":
            line += text[at]
            at += 1
            continue
        at += 2 if text[at : at + 2] == "\r\n" else 1
        yield line
        line = ""


def utf8(stream: bytes) -> str:
    text = ""
    point, needed, seen, lower, upper = 0, 0, 0, 0x80, 0xBF
    at = 0
    while at < len(stream):
        byte = stream[at]
        if needed == 0:
            at += 1
            if byte <= 0x7F:
                text += chr(byte)
            elif 0xC2 <= byte <= 0xDF:
                needed, point = 1, byte & 0x1F
            elif 0xE0 <= byte <= 0xEF:
                lower = 0xA0 if byte == 0xE0 else lower
                upper = 0x9F if byte == 0xED else upper
                needed, point = 2, byte & 0xF
            elif 0xF0 <= byte <= 0xF4:
                lower = 0x90 if byte == 0xF0 else lower
                upper = 0x8F if byte == 0xF4 else upper
                needed, point = 3, byte & 0x7
            else:
                text += "\ufffd"
            continue
        if not lower <= byte <= upper:
            point, needed, seen, lower, upper = 0, 0, 0, 0x80, 0xBF
            text += "\ufffd"  # and this byte is looked at again
            continue
        at += 1
        lower, upper = 0x80, 0xBF
        point = point << 6 | byte & 0x3F
        seen += 1
        if seen == needed:
            text += chr(point)
            point, needed, seen = 0, 0, 0
    return text + "\ufffd" if needed else text
