// What a component does with useEventSource.
import { useEventSource } from "@vueuse/core";
import { createApp, watch } from "vue";
import { serve } from "./serve.mjs";

export function watchEvents(options) {
  serve((url, onEvent, onOver) => {
    const setup = () => {
      const { event, data, lastEventId, error, eventSource } = useEventSource(url, ["gap", "~end"], options);
      watch([event, data, lastEventId], () => onEvent(event.value ?? "message", lastEventId.value, data.value));
      watch(error, () => error.value && eventSource.value.readyState === 2 && !options.autoReconnect && onOver());
      return () => null;
    };
    createApp({ setup }).mount(document.body.appendChild(document.createElement("div")));
  });
}
