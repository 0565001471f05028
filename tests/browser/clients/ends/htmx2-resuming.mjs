// npm "htmx.org" and "htmx-ext-sse" with the createEventSource of npm "flask-sse-emitters/htmx".
import htmx from "htmx.org";
import "htmx-ext-sse";
import { createEventSource } from "../../../../npm/src/htmx.js";
import { serve } from "./serve.mjs";

htmx.createEventSource = createEventSource;
document.body.setAttribute("hx-ext", "sse");

serve((url, onEvent, onOver) => {
  const stream = document.createElement("div");
  stream.innerHTML = `
    <div sse-connect="${url}">
      <p sse-swap="message"></p>
      <i hx-trigger="sse:gap" hx-get="/stats" hx-swap="none"></i>
    </div>`;
  const tell = ({ detail: { type, lastEventId } }, data) => onEvent(type, lastEventId, data);
  let source;
  stream.addEventListener("htmx:sseOpen", (event) => (source = event.detail.source));
  stream.addEventListener("htmx:sseMessage", (event) => {
    if (event.target.localName === "p") tell(event, event.target.innerHTML);
  });
  stream.addEventListener("sse:gap", (event) => onEvent("gap", event.detail.lastEventId, event.detail.data));
  document.body.append(stream);
  htmx.process(stream);
  const watch = setInterval(() => {
    if (source?.readyState !== EventSource.CLOSED) return;
    clearInterval(watch);
    onOver();
  }, 20);
});
