"""Clients of others, each with streams that a test begins: ``clients/ends``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from playwright.sync_api import Browser, Page

from tests.apps.browser.ends import PACKAGES
from tests.support.programs import miss, program
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

HERE = Path(__file__).parent / "clients" / "ends"

#: Said by a client that has given up, or was told to.
OVER = "over"

#: The clients that are programs. All others are pages.
PROGRAMS = {"eventsource", "eventsource-client", "openai", "ai"}


class Reader(Protocol):
    """A client that can read many streams."""

    def follow(self, url: str) -> int:
        """Begin to read a stream, and return its number."""

    def told(self, number: int) -> list[list[str] | str]:
        """Return what a stream has told so far: name, id and data of each event, and OVER."""


class ReaderPage:
    """One in a page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def follow(self, url: str) -> int:
        number: int = self._page.evaluate("url => follow(url)", url)
        return number

    def told(self, number: int) -> list[list[str] | str]:
        told: list[list[str] | str] = self._page.evaluate("number => streams[number]", number)
        return told


class ReaderProgram:
    """One in a program of Node's."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process = process
        self._output = output
        self._count = 0

    def follow(self, url: str) -> int:
        assert self._process.stdin is not None
        print(url, file=self._process.stdin, flush=True)
        self._count += 1
        return self._count - 1

    def told(self, number: int) -> list[list[str] | str]:
        *lines, _ = self._output.read_text().split("\n")
        said = [json.loads(line) for line in lines]
        return [told for each, told in said if each == number]


def bundle(folder: Path) -> None:
    """Make a script of each client and what it imports, as their users do."""
    scripts = [path for path in HERE.glob("*.mjs") if path.stem not in ("serve", "vueuse-watch")]
    bundle_for("node", [path for path in scripts if path.stem in PROGRAMS], folder)
    bundle_for("browser", [path for path in scripts if path.stem not in PROGRAMS], folder)


def bundle_for(platform: Literal["node", "browser"], scripts: Sequence[Path], folder: Path) -> None:
    """Make a script ``NAME.js`` of each of these and what it imports."""
    if not (PACKAGES / "esbuild").is_dir():
        miss("npm packages are missing: apt-get install npm && make build/npm/.installed")
    form = "cjs" if platform == "node" else "esm"
    subprocess.run(
        [
            *(str(PACKAGES / ".bin" / "esbuild"), *map(str, scripts), "--bundle", "--jsx=automatic"),
            *(f"--platform={platform}", f"--format={form}", "--external:node:*", "--log-level=warning"),
            *('--define:process.env.NODE_ENV="production"', f"--outdir={folder}"),
        ],
        env={**os.environ, "NODE_PATH": str(PACKAGES)},
        timeout=2 * PATIENCE,
        check=True,
    )


@contextmanager
def in_page(name: str, site: Server, browser: Browser, scripts: Path) -> Iterator[ReaderPage]:
    with browser.new_context() as context:
        page = context.new_page()
        if (HERE / f"{name}.html").exists():
            page.goto(f"{site.url}/pages/{name}.html")
        else:
            page.goto(f"{site.url}/empty")
            page.add_script_tag(content=(scripts / f"{name}.js").read_text(), type="module")
        page.wait_for_function("() => !!window.follow")
        yield ReaderPage(page)


@contextmanager
def as_program(name: str, scripts: Path, output: Path) -> Iterator[ReaderProgram]:
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            [program("node", "nodejs"), str(scripts / f"{name}.js")], stdin=subprocess.PIPE, stdout=stdout, text=True
        )
    try:
        yield ReaderProgram(process, output)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
