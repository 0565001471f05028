"""The code blocks of a page of the documentation, and how each is run.

A block without a language holds shell commands. A block of Python whose ``:caption:`` is a file name, such as
``tasks.py``, belongs to that file; all others of a page make up its ``app.py``, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from markdown_it import MarkdownIt

from tests.support.servers import ROOT

#: README.md and its translations, and every page of docs.
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.rst")])

#: The ways to run a block, by language.
SHELL = ("", "sh")
BROWSER = ("javascript", "html")
PYTHON = ("python",)

#: A directive ``code-block``, or a line that ends with ``::``; and all that is indented further.
_OF_REST = re.compile(
    r"^(?P<indent> *)(?:\.\. (?:code|sourcecode|code-block)::(?: (?P<language>[\w+-]+))?|(?! |\.\. ).*::)\n"
    r"(?P<options>(?: +:[\w-]+:.*\n)*)"
    r"(?P<text>(?:(?P=indent) +.*\n|\n)+)",
    re.MULTILINE,
)


class Block(NamedTuple):
    """A code block of a page."""

    page: str
    line: int
    language: str
    text: str
    caption: str = ""

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def blocks_of(page: Path) -> list[Block]:
    return list((_of_markdown if page.suffix == ".md" else _of_rest)(page.name, page.read_text()))


def modules_of(blocks: list[Block]) -> dict[str, str]:
    """Return the text of each Python file made up of these blocks."""
    modules: dict[str, str] = {}
    for block in blocks:
        if block.language in PYTHON:
            file = block.caption if re.fullmatch(r"[\w.]+\.py", block.caption) else "app.py"
            modules[file] = modules.get(file, "") + f"# {block.page}:{block.line}\n{block.text}\n\n\n"
    return modules


def _of_markdown(page: str, text: str) -> Iterator[Block]:
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block") and token.map is not None:
            yield Block(page, token.map[0] + 1, token.info, token.content.strip("\n"))


def _of_rest(page: str, text: str) -> Iterator[Block]:
    for found in _OF_REST.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        caption = re.search(r":caption: (.*)", found["options"])
        code = dedent(found["text"]).strip("\n")
        yield Block(page, line, found["language"] or "", code, caption[1] if caption else "")
