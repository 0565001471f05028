"""The code blocks of a page of the documentation, and how each is run.

A block without a language holds shell commands. A block of Python whose ``:caption:`` is a file name, such as
``tasks.py``, belongs to that file; all others of a page make up its ``app.py``, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tests.support.servers import ROOT

#: README.md and its translations, and every page of docs.
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.rst")])

#: The ways to run a block, by language.
SHELL = ("", "sh", "shell", "bash", "console")
BROWSER = ("javascript", "js", "html")
PYTHON = ("python", "py")
PARSED = ("ini", "json", "toml", "yaml")

_FENCE = re.compile(r"( *)```(\w*)")
_DIRECTIVE = re.compile(r"( *)\.\. (?:code-block|code|sourcecode)::(?: +([\w+-]+))?$")
_OPTION = re.compile(r" *:([\w-]+):(?: +(.*))?$")
_ENDS_LITERAL = re.compile(r"( *)(?!\.\. )\S.*::$|( *)::$")
_FILE = re.compile(r"[\w.]+\.py")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    language: str
    text: str
    caption: str = ""

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def file(self) -> str:
        """The file to which a block of Python belongs."""
        return self.caption if _FILE.fullmatch(self.caption) else "app.py"


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text().split("\n")
    return list((_of_markdown if page.suffix == ".md" else _of_rest)(page.name, lines))


def modules_of(blocks: list[Block]) -> dict[str, str]:
    """Return the text of each Python file made up of these blocks."""
    modules: dict[str, str] = {}
    for block in blocks:
        if block.language in PYTHON:
            origin = f"# {block.page}:{block.line}\n"
            modules[block.file] = modules.get(block.file, "") + f"{origin}{block.text}\n\n\n"
    return modules


def _of_markdown(page: str, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        begin = number
        if fence := _FENCE.match(lines[number]):
            indent, language = fence.groups()
            number = next(at for at in range(begin + 1, len(lines)) if lines[at].startswith(f"{indent}```"))
            yield Block(page, begin + 1, language, _text(lines[begin + 1 : number]))
        elif lines[number].startswith("    ") and not lines[number - 1].strip():
            number = _end_of_indented(lines, number, 3)
            yield Block(page, begin + 1, "", _text(lines[begin:number]))
            continue
        number += 1


def _of_rest(page: str, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        directive, literal = _DIRECTIVE.match(lines[number]), _ENDS_LITERAL.match(lines[number])
        number += 1
        if directive is None and literal is None:
            continue
        begin, options = number, {}
        indent = len(lines[begin - 1]) - len(lines[begin - 1].lstrip(" "))
        if directive is not None:
            while option := _OPTION.match(lines[number]):
                options[option[1]] = option[2] or ""
                number += 1
        number = _end_of_indented(lines, number, indent)
        body = lines[begin + len(options) : number]
        language = (directive[2] or "") if directive is not None else ""
        yield Block(page, begin, language, _text(body), options.get("caption", ""))


def _end_of_indented(lines: list[str], number: int, indent: int) -> int:
    """Return the line after the last one that is blank or indented by more than ``indent``."""
    while number < len(lines) and (not lines[number].strip() or lines[number].startswith(" " * (indent + 1))):
        number += 1
    return number


def _text(lines: list[str]) -> str:
    return dedent("\n".join(lines)).strip("\n")
