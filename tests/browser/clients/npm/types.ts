// What the compiler says of right and wrong uses. Nothing here is run.
import { subscribe, type ChannelEvent, type ChannelSubscription, type Options, type State } from "flask-sse-emitters";
import { createEventSource } from "flask-sse-emitters/htmx";
import { useChannel, useEvents } from "flask-sse-emitters/react";
import { useEvents as useEventsInVue } from "flask-sse-emitters/vue";

export const options: Options = { onGap: ({ channels }) => channels.join(), headers: async () => ({ Authorization: "" }) };
export const live: ChannelSubscription = subscribe("/events", ["orders", "news"], options);
export const state: State = live.state;
export const stop: () => void = live.on("created", (event: ChannelEvent) => event.id.length, { channel: "orders" });
export const source: EventSource = createEventSource("/events?channel=rows");
export const newest: ChannelEvent | null = useChannel(new URL("http://localhost"), "orders").event;
export const texts: string[] = useEventsInVue(() => "/events", "orders").events.value.map(({ data }) => data);

// @ts-expect-error: an address and channels
subscribe("/events");
// @ts-expect-error: no such option
subscribe("/events", "orders", { onGone: () => {} });
// @ts-expect-error: a number
useEvents("/events", "orders", { limit: "3" });
// @ts-expect-error: the list is not the caller's
useEvents("/events", "orders").events.push();
// @ts-expect-error: there may be none yet
export const id: string = useChannel("/events", "orders").event.id;
