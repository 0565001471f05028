// npm "eventsource".
import { EventSource } from "eventsource";
import { listen, serve } from "./serve.mjs";

serve((url, onEvent, onOver) => listen(new EventSource(url), onEvent, onOver));
