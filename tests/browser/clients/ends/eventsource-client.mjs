// npm "eventsource-client".
import { createEventSource } from "eventsource-client";
import { serve } from "./serve.mjs";

serve((url, onEvent, onOver) => {
  const stream = createEventSource({
    url,
    onMessage: ({ event, id, data }) => onEvent(event ?? "message", id ?? "", data),
    onDisconnect: () => setTimeout(() => stream.readyState === "closed" && onOver()),
  });
});
