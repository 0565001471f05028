// npm "@vueuse/core": useEventSource with autoReconnect.
import { watchEvents } from "./vueuse-watch.mjs";

watchEvents({ autoReconnect: { delay: 100 } });
