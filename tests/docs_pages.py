"""What the pages of the documentation need to run, and what of them is not run."""

from __future__ import annotations

_SPRING = "Java of Spring: it needs a JDK, Spring Boot and its build"

#: Blocks that are not run, by their page and first line, and why.
NOT_RUN: dict[tuple[str, str], str] = {
    ("replay.rst", "event: gap"): "what a stream looks like",
    ("from-spring.rst", '@GetMapping(value = "/connect", produces = MediaType.TEXT_EVENT_STREAM_VALUE)'): _SPRING,
    ("from-spring.rst", "@Component"): _SPRING,
    ("from-spring.rst", "for (SseEmitter emitter : emitters) {"): _SPRING,
}

_README: dict[str, list[object]] = {
    "GET /connect": [200, ["connect", "connected!"]],
    "POST /notices": [200],
    "POST /orders": [201],
    "POST /mail/<user>": [403],
    "POST /logout": [204],
}

#: What routes answer, by their page: the status, and the events that a stream begins with. Of all others it is known
#: that they are there, and do not fail.
ANSWERS: dict[str, dict[str, list[object]]] = {
    "README.md": _README,
    "README.ko.md": _README,
    "access.rst": {
        "POST /login": [204],
        "GET /orders/stream": [200],
        "POST /mail/<name>": [200],
        "POST /logout": [204],
    },
    "brokers.rst": {"POST /orders/<int:number>": [201]},
    "channels.rst": {
        "POST /orders": [201],
        "POST /orders/<int:number>/paid": [200],
        "GET /orders/stream": [200],
        "GET /orders/readers": [200],
    },
    "emitters.rst": {
        "GET /connect": [200, ["connect", "connected!"]],
        "POST /notices": [200],
        "GET /rooms/<room>": [200],
        "GET /with-a-header": [200],
    },
    "ends.rst": {"GET /connect": [200], "POST /finish": [204]},
    "index.rst": {"POST /news": [201]},
    "quickstart.rst": {"POST /notes": [201]},
    "replay.rst": {
        "POST /orders": [201],
        "GET /orders": [200],
        "GET /story": [200, ["chapter", "Once"], ["chapter", "upon"], ["chapter", "a time"]],
    },
}

#: What pages take from the environment: in their Python, and in their commands.
ENVIRONMENT = {"TOKEN": "of the tests alone", "SECRET_KEY": "of the tests alone, and long enough for a signature"}

#: What the browser does before the scripts of a page, which count on it: a login, or functions of the reader's own.
IN_BROWSER = {
    "access.rst": """fetch("/login", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ name: "ann" }),
    })""",
}

#: What a person does next on a page of HTML, and what is to be seen of it then.
DONE_AND_SEEN = {
    "quickstart.rst": (
        "document.forms[0].text.value = 'hello'; document.forms[0].requestSubmit()",
        "document.querySelector('li')?.textContent === 'hello'",
    ),
}
