"""What the pages of the documentation need to run, and which blocks are not run."""

from __future__ import annotations

_SPRING = "Spring's Java code needs a JDK, Spring Boot and a build"

#: The first line, by which blocks are listed, of the one for Datastar.
_DATASTAR = "<!doctype html><!-- Datastar -->"

#: The first line of the one for the AI SDK.
_USE_CHAT = '// import { DefaultChatTransport } from "ai"; import { useChat } from "@ai-sdk/react";'

_CHECK = "flask sse check 'https://example.com/events?channel=kitchen' --header 'Cookie: session=...'"
_MACHINE = "changes the machine; tests/project/docs/test_tutorial.py does the same with folders of its own"
_BUNDLED = "needs a bundler; tests/browser/npm/test_npm_package.py has it compiled"

#: Blocks that are not run, by their page and first line, and why.
NOT_RUN: dict[tuple[str, str], str] = {
    ("hypermedia.rst", _DATASTAR): "npm has no Datastar that knows these events",
    ("npm.rst", "// vite.config.js"): "is Vite's",
    ("npm.rst", "// Board.jsx"): _BUNDLED,
    ("npm.rst", "// Orders.tsx"): _BUNDLED,
    ("npm.rst", "<!-- Board.vue -->"): _BUNDLED,
    ("replay.rst", "event: gap"): "what a stream looks like",
    ("streaming.rst", _USE_CHAT): "needs a bundler; tests/browser/clients/chats has these lines",
    ("tutorial.rst", "apt-get install nginx redis-server python3-venv"): _MACHINE,
    ("tutorial.rst", "nginx -t && systemctl reload nginx"): _MACHINE,
    (
        "tutorial.rst",
        "flask sse check 'https://example.com/events?channel=kitchen' --header 'Cookie: session=...'",
    ): _MACHINE,
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

#: Responses of routes, by page: the status, and the first events of a stream. All other routes are only required not
#: to fail.
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
        "POST /orders/import": [200],
        "POST /jobs/<int:number>/progress/<int:percent>": [204],
        "POST /jobs/<int:number>/abandon": [204],
        "POST /ask": [200],
        "POST /answers/<path:name>/stop": [200],
    },
    "emitters.rst": {
        "GET /connect": [200, ["connect", "connected!"]],
        "POST /notices": [200],
        "GET /rooms/<room>": [200],
        "GET /with-a-header": [200],
    },
    "ends.rst": {"GET /connect": [200], "POST /finish": [204]},
    "index.rst": {"POST /news": [201]},
    "jobs.rst": {"POST /jobs": [202], "POST /resize": [202], "POST /cancel/<path:job>": [200]},
    "members.rst": {"POST /login": [204], "GET /rooms/<name>": [200]},
    "quickstart.rst": {"POST /notes": [201]},
    "streaming.rst": {
        "POST /answers": [200],
        "POST /v1/chat/completions": [200],
        "POST /v1/messages": [200],
        "POST /api/chat/<chat>": [200],
        "POST /api/chat/<chat>/stop": [200],
        "POST /mcp": [200],
        "POST /rows": [200],
    },
    "tutorial.rst": {
        "POST /login": [204],
        "POST /orders": [201],
        "GET /orders": [403],
        "POST /orders/<int:number>/ready": [403],
    },
    "transactions.rst": {"POST /orders": [201]},
    "replay.rst": {
        "POST /orders": [201],
        "GET /orders": [200],
        "GET /story": [200, ["chapter", "Once"], ["chapter", "upon"], ["chapter", "a time"]],
        "GET /story after 1": [200, ["chapter", "upon"], ["chapter", "a time"]],
    },
}

#: The environment of the pages' Python and commands.
ENVIRONMENT = {"TOKEN": "of the tests alone", "SECRET_KEY": "of the tests alone, and long enough for a signature"}

_LOGIN = """fetch("/login", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ name: "ann" }),
    })"""

#: JavaScript that runs before the scripts of a page, which rely on it: a login, or functions of the reader's own.
IN_BROWSER = {"access.rst": _LOGIN, "members.rst": _LOGIN}

#: What a user does next on a page of HTML, and what the page must then show.
DONE_AND_SEEN = {
    "hypermedia.rst": (  # more than once, as the stream may not be open yet
        """setInterval(() => fetch("/rows", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ text: "hello" }),
        }), 200)""",
        "document.querySelector('ul > li')?.textContent.trim() === 'hello'",
    ),
    "jobs.rst": (
        "document.querySelector('button').click()",
        "document.querySelector('output').value === 'up to order 2000: saved'",
    ),
    "tutorial.rst": (
        """document.forms[0].requestSubmit();
        const options = {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ text: "soup" }),
        };
        (async () => { while (!(await fetch("/orders", options)).ok); })()""",
        "document.querySelector('li')?.textContent.includes('soup for kitchen')",
    ),
    "quickstart.rst": (
        "document.forms[0].text.value = 'hello'; document.forms[0].requestSubmit()",
        "document.querySelector('li')?.textContent === 'hello'",
    ),
}
