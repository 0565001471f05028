// A server that renders a page: what the hooks show there, and how many requests they made.
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { createSSRApp, h } from "vue";
import { renderToString as renderVueToString } from "vue/server-renderer";
import { useEvents } from "flask-sse-emitters/react";
import { useEvents as useEventsInVue } from "flask-sse-emitters/vue";

let requests = 0;
globalThis.fetch = async () => {
  requests += 1;
  throw new Error("nothing is fetched here");
};

const url = "http://127.0.0.1/events";
const react = renderToString(createElement(() => createElement("p", null, useEvents(url, "orders").state)));
const vue = await renderVueToString(createSSRApp(() => h("p", useEventsInVue(url, "orders").state.value)));
await new Promise((resolve) => setTimeout(resolve)); // requests begin later than subscriptions
console.log(JSON.stringify([react, vue, requests]));
