// npm "react-eventsource": its hook in a component, closed at "~end".
import { createElement, useCallback, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useSSE } from "react-eventsource";
import { serve } from "./serve.mjs";

/** Tell when a body has come to a clean end, of which the hook says nothing. */
async function noteEnd({ body }, onOver) {
  const reader = body?.getReader();
  while (reader && !(await reader.read()).done);
  if (reader) onOver();
}

function Stream({ url, onEvent, onOver }) {
  const [isOver, setIsOver] = useState(false);
  // The hook begins anew when one of these is another function than before.
  const onMessage = useCallback(({ event, id, data }) => {
    onEvent(event || "message", id, data);
    if (event === "~end") setIsOver(true);
  }, []);
  const { close } = useSSE({
    url,
    onMessage,
    fetch: async (...request) => {
      const response = await fetch(...request);
      noteEnd(response.clone(), onOver).catch(() => {});
      return response;
    },
  });
  useEffect(() => {
    if (!isOver) return;
    close();
    onOver(); // the clean end may come later, and is not read any more
  }, [isOver]);
  return null;
}

serve((url, onEvent, onOver) => {
  createRoot(document.body.appendChild(document.createElement("div"))).render(
    createElement(Stream, { url, onEvent, onOver }),
  );
});
