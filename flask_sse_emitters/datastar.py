"""For apps with Datastar, whose events datastar-py makes: ``pip install datastar-py``.

::

    from datastar_py import ServerSentEventGenerator as D
    from flask_sse_emitters.datastar import read_signals

    @app.post("/rows")
    def add_row():
        signals = read_signals(request)
        row = render_template("row.html", title=signals["title"])
        sse.publish("rows", D.patch_elements(row, selector="#rows", mode="append"))
        return "", 204

Its events may be given to all that sends and publishes, as they are.
"""

from __future__ import annotations

import json
from typing import Any

from flask import Request
from flask import request as current_request
from werkzeug.exceptions import BadRequest

__all__ = ["read_signals"]


def read_signals(request: Request | None = None) -> dict[str, Any] | None:
    """Return the signals that a page sends with a request; None where it sends none, or is not Datastar's.

    :param request: None is the current one.
    :raises werkzeug.exceptions.BadRequest: where they are no JSON object; Flask answers 400.
    """
    request = current_request if request is None else request
    if "Datastar-Request" not in request.headers:
        return None
    if request.method in ("GET", "DELETE"):
        text: Any = request.args.get("datastar")
    else:
        text = request.get_data() if request.is_json else None
    if not text:
        return None
    try:
        signals = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"the signals of Datastar are no JSON: {error}") from error
    if not isinstance(signals, dict):
        raise BadRequest("the signals of Datastar are no JSON object")
    return signals
