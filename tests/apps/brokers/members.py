"""Rooms that know who reads them: who that is stands in the query."""

from __future__ import annotations

from flask import request

from tests.apps.base import make_app

app, sse = make_app(__name__)
sse.authorizer(lambda _: request.args.get("user") or True)
sse.channels("room*", members=True)
app.add_url_rule("/state", view_func=app.view_functions["base.stats"])
