"""Run the shell commands of the documentation as a reader would, in a folder with the page's ``app.py``."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.client import answer
from tests.support.programs import program
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE

#: Exit statuses of a command that was interrupted, or had ended by itself.
INTERRUPTED = (0, 130, -signal.SIGINT)


def commands_of(text: str) -> list[str]:
    """Return the commands of a block: lines with their continuations, or the whole block if it has a loop."""
    if re.search(r"^(for|while|until|if) ", text, re.MULTILINE):
        return [text]
    lines = text.replace("\\\n", " ").split("\n")
    return [line.removeprefix("$ ") for line in lines if line.strip() and not line.startswith("#")]


def run(command: str, folder: Path, env: dict[str, str]) -> None:
    """Run a command as it is, or check that it could run if it cannot run here."""
    env = environment(folder, env)
    match [word for word in shlex.split(command, comments=True) if not re.match("[A-Z_]+=", word)]:
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text()
            assert [each for each in targets if not re.search(rf"^{each}:", makefile, re.MULTILINE)] == []
        case ["pip", "install", *requirements]:
            for requirement in (Requirement(re.sub(r"^\.", "flask-sse-emitters", each)) for each in requirements):
                assert requirement.extras <= set(metadata(requirement.name).get_all("Provides-Extra") or ())
        case ["npm", "install", package]:
            described = json.loads((ROOT / "npm" / "package.json").read_text())
            assert re.fullmatch(rf"(.*/dist/)?{described['name']}(-\*\.tgz)?", package)
        case ["gunicorn", *arguments, app]:
            _run_server(arguments, app, env)
        case ["flask", "sse", "listen", *_]:
            _run_for_a_while(command, folder, env)
        case _:
            _run_to_its_end(command, folder, env)


def _run_server(arguments: list[str], app: str, env: dict[str, str]) -> None:
    """Run a server until it responds, on a free port in place of the named one."""
    if "--bind" in arguments:
        at = arguments.index("--bind")
        del arguments[at : at + 2]
    with Server("gevent", app, arguments=arguments, env=env) as server:
        assert answer(server, "GET", "/")[0] < 500, server.log


def _run_for_a_while(command: str, folder: Path, env: dict[str, str]) -> None:
    """Run a command on a terminal, so that it writes each line at once, and interrupt it after its first output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        output = b""
        try:
            with suppress(OSError):  # its last writer has closed the terminal
                output = os.read(ours, 1000)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            os.close(ours)
        _, errors = process.communicate(timeout=PATIENCE)
    assert output, f"{command}: no output, exit status {process.returncode}\n{errors.decode()}"
    assert process.returncode in INTERRUPTED, f"{command}: exit status {process.returncode}\n{errors.decode()}"


def _run_to_its_end(command: str, folder: Path, env: dict[str, str]) -> None:
    if command.startswith("curl"):
        program("curl", "curl")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}"


def environment(folder: Path, env: dict[str, str]) -> dict[str, str]:
    (folder / ".curlrc").write_text(f"fail\nmax-time = {PATIENCE:g}\n")
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "CURL_HOME": str(folder),
        "FLASK_APP": "app",
        **env,
    }
