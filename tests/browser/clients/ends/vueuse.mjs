// npm "@vueuse/core": useEventSource as it comes.
import { watchEvents } from "./vueuse-watch.mjs";

watchEvents({});
