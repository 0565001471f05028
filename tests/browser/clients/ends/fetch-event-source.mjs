// npm "@microsoft/fetch-event-source", as it comes.
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { serve } from "./serve.mjs";

serve((url, onEvent, onOver) => {
  fetchEventSource(url, { onmessage: ({ event, id, data }) => onEvent(event || "message", id, data) }).then(
    onOver,
    onOver,
  );
});
