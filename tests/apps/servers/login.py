"""An app with Flask-Login: users read the news and their private channel, and staff its own channel.

The server keeps what it knows of users in a folder that all workers share: a file for each mark of a user.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user

from tests.apps.base import make_app

FOLDER = Path(os.environ.get("FOLDER", ""))

app, sse = make_app(__name__, SECRET_KEY="of the tests alone", SSE_RETRY=100)
manager = LoginManager(app)


def is_marked(name: str, what: str) -> bool:
    return (FOLDER / f"{name}.{what}").exists()


class User(UserMixin):  # type: ignore[misc]
    """A user whose id is the name."""

    def __init__(self, name: str) -> None:
        self.id = name

    @property
    def is_active(self) -> bool:
        return not is_marked(self.id, "inactive")


def load(name: str) -> User | None:
    return None if is_marked(name, "gone") else User(name)


manager.user_loader(load)


#: The channels that the rule was asked about.
asked: list[str] = []


@sse.authorizer
def may_read(channel: str) -> bool | str:
    asked.append(channel)
    if not current_user.is_authenticated or (channel == "staff" and not is_marked(current_user.id, "staff")):
        return False
    return str(current_user.get_id())


@app.post("/login/<name>")
def login(name: str) -> ResponseReturnValue:
    return "" if login_user(User(name)) else ("", 403)


def logout() -> ResponseReturnValue:
    name = current_user.get_id()
    logout_user()
    sse.disconnect(name)
    return ""


def own() -> Any:
    """Return a stream of a view."""
    return sse.channel("news").subscribe(identity=current_user.get_id())


app.add_url_rule("/logout", view_func=login_required(logout), methods=["POST"])
app.add_url_rule("/own", view_func=login_required(own))


@app.get("/state")
def state() -> dict[str, Any]:
    return {**sse.stats(), "pid": os.getpid(), "asked": len(asked)}
