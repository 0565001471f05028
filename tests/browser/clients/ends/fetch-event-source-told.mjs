// npm "@microsoft/fetch-event-source", told that only "~end" is the end.
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { serve } from "./serve.mjs";

serve((url, onEvent, onOver) => {
  let isOver = false;
  fetchEventSource(url, {
    async onopen({ status }) {
      isOver = status === 204;
    },
    onmessage({ event, id, data }) {
      if (data || event) onEvent(event || "message", id, data); // else it was only an id, a time to wait, or a comment
      isOver ||= event === "~end";
    },
    onclose() {
      if (!isOver) throw new Error("ended"); // it comes back
    },
    onerror() {
      if (isOver) throw new Error("over"); // it stays away: a 204 has no body to read
    },
  }).then(onOver, onOver);
});
