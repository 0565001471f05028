"""Run the Python of one page, in a process of its own: ``python -m tests.project.docs.docs_run FOLDER``.

Import the files of the folder, request every route of every app in them, and run the tests among them. Write the
responses of the routes as JSON: the status, and the first events of a stream, from its beginning and after an id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_sse_emitters.testing import open_stream

#: The value of each variable part of a URL.
PART = "7"

#: The body of POST requests, with all keys that views of the pages use.
BODY = {
    "id": 7,
    "name": "ann",
    "text": "hello",
    "message": {"role": "user", "parts": [{"type": "text", "text": "hello"}]},
    "messages": [{"role": "user", "content": "hello"}],
    "params": {"_meta": {"progressToken": 1}},
}

#: The id with which every stream is requested once more, as by a client that reconnects.
LAST = "1"


def apps_in(namespace: dict[str, Any]) -> list[Flask]:
    made = [value for value in namespace.values() if isinstance(value, Flask)]
    factory = namespace.get("create_app")
    return made if made or factory is None else [factory()]


def request_routes(app: Flask) -> Iterator[tuple[str, list[Any]]]:
    """Request every route that the page defines, by each of its methods."""
    app.testing = True  # errors of views are raised here
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static" or "sse_" in rule.endpoint:
            continue
        built = rule.build(dict.fromkeys(rule.arguments, PART), append_unknown=False)
        assert built is not None
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            options: Any = {"json": BODY} if method != "GET" else {}
            with client.open(built[1], method=method, **options) as response:
                begun: list[Any] = []
            if response.mimetype == "text/event-stream" and method == "GET":
                begun = events_of(client, built[1])
                yield f"{method} {rule.rule} after {LAST}", [200, *events_of(client, built[1], LAST)]
            yield f"{method} {rule.rule}", [response.status_code, *begun]


def events_of(client: FlaskClient, path: str, last: str = "") -> list[list[str | None]]:
    """Return the first events of a stream: those that are there at once."""
    with open_stream(client, path, headers={"Last-Event-ID": last}) as stream:
        return [[event.event, event.data] for event in stream.ready()]


def main(folder: Path) -> None:
    answers: dict[str, list[Any]] = {}
    sys.path.insert(0, str(folder))
    for file in sorted(folder.glob("*.py"), key=lambda file: file.name != "app.py"):  # others may import app.py
        namespace = vars(import_module(file.stem)) if file.stem.isidentifier() else run_path(str(file))
        for app in apps_in(namespace):
            answers.update(request_routes(app))
        if any(name.startswith("test_") for name in namespace):
            options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", str(folder)]
            assert not pytest.main([str(file), *options]), f"the tests in {file}"
    print(json.dumps(answers))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
