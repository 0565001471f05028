"""The npm package, packed and installed as its users do, and pages that Vite builds with it: ``clients/npm``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page

from tests.apps.browser.clients import PACKAGES
from tests.project.docs.docs_blocks import blocks_of
from tests.support.programs import miss, program
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE

SOURCES = Path(__file__).parents[1] / "clients" / "npm"


def run(folder: Path, *command: str | Path, **env: str) -> str:
    """Run a command in a folder, and return what it has written."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def project() -> Iterator[Path]:
    """Yield the folder of a project of a user's that has the package, and nothing else of this source.

    React, Vue, Vite and TypeScript are found in the folder above, as Node looks for them.
    """
    if not (PACKAGES / "vite").is_dir():
        miss("npm packages are missing: apt-get install npm && make build/npm/.installed")
    node, npm = program("node", "nodejs"), program("npm", "npm")
    with tempfile.TemporaryDirectory(dir=PACKAGES.parent) as place:
        package, folder = Path(place) / "package", Path(place) / "project"
        run(PACKAGES.parent, node, ROOT / "npm" / "build.mjs", package)
        packed = run(package, npm, "pack", "--silent", "--offline").strip()
        shutil.copytree(SOURCES, folder)
        _write_documented(folder)
        options = ["--offline", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        run(folder, npm, "install", *options, package / packed)
        yield folder


def _write_documented(folder: Path) -> None:
    """Write the scripts of the documentation, for the compiler alone; of a component of Vue the script."""
    for block in blocks_of(ROOT / "docs" / "npm.rst"):
        name = re.sub(r"\W*(\w+)\..*", r"\1", block.first_line)
        if block.language in ("javascript", "typescript"):
            (folder / f"{name}.tsx").write_text(block.text)
        elif block.language == "html":
            (folder / f"{name}InVue.ts").write_text(block.text.partition("<script setup>")[2].partition("</script>")[0])


def check_types(folder: Path) -> None:
    run(folder, program("node", "nodejs"), PACKAGES / "typescript" / "bin" / "tsc", "--project", folder)


def build_pages(folder: Path) -> Path:
    """Build the pages, with the development version of React, and return where they are."""
    vite = PACKAGES / "vite" / "bin" / "vite.js"
    run(folder, program("node", "nodejs"), vite, "build", "--logLevel", "warn", NODE_ENV="development")
    return folder / "dist"


class Shown:
    """A page with components that read channels."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def show(self, readers: int, *channels: str, **wanted: Any) -> None:
        self.page.evaluate("wanted => show(wanted)", {"readers": readers, "channels": channels, **wanted})

    def all(self, part: str) -> Locator:
        """Return this part of each component: ``output`` the state, ``li`` the events, ``b`` the newest that was
        created, ``i`` the gaps, ``em`` the status of an error, ``button`` forgets the events.
        """
        return self.page.locator(f"section > {part}")

    def events(self, number: int = 0) -> Locator:
        return self.page.locator("section").nth(number).locator("li")

    @property
    def notes(self) -> list[str]:
        noted: list[str] = self.page.evaluate("notes")
        return noted


def opened(context: BrowserContext, pages: Path, site: Server, framework: str) -> Shown:
    """Open a page that the site seems to serve."""
    context.route("**/app/**", lambda route: route.fulfill(path=pages / route.request.url.partition("/app/")[2]))
    page = context.new_page()
    page.goto(f"{site.url}/app/{framework}.html")
    page.wait_for_function("() => !!window.show")
    return Shown(page)
